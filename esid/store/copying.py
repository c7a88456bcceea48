"""Many rows at once, the fastest way that each database offers: COPY on PostgreSQL, one prepared statement on SQLite.

Inside the caller's transaction. Rows are tuples in the order of the named columns, already checked.
"""

from __future__ import annotations

import datetime as dt
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from peewee import __exception_wrapper__ as _translating  # type: ignore[attr-defined]

from esid.store import pg_deadline
from esid.store.connection import Store
from esid.store.model import Table, utc_text
from esid.store.upsert import name_of, stamps_of

Values = Sequence[Any]
_json = msgspec.json.Encoder()


def copy(store: Store, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that are not there yet, by COPY where the store of this process is one for imports.

    Raises:
        peewee.IntegrityError: one is there; nothing of the transaction must be committed.
    """
    if not rows:
        return
    names = ", ".join(columns)
    cursor = store.database.cursor()
    with _translating:
        if store.is_sqlite:
            plain = rows if not _has_times(rows[0]) else [_texts(row) for row in rows]
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", plain)
        elif pg_deadline.is_installed() or b"\\" in (text := _json.encode_lines(rows)):
            # COPY would block for ever where a server says nothing; and JSON escapes what it must in another way than CSV.
            store.insert(table, columns, rows)
        else:
            # A line of JSON is a line of CSV once it has lost its brackets; JSON's texts hold no line break.
            lines = text.removeprefix(b"[").replace(b"]\n[", b"\n").removesuffix(b"]\n")
            cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN WITH (FORMAT csv, NULL 'null')", io.BytesIO(lines))


def add(store: Store, model: type[Table], columns: Sequence[str], rows: Sequence[tuple[Any, ...]], now: dt.datetime) -> None:
    """Insert rows that are not there yet, with the time of their coming where their table keeps it. Raises as `copy`."""
    stamps = stamps_of(model, now)
    if stamps:
        columns, rows = (*columns, *stamps), [(*row, *stamps.values()) for row in rows]
    copy(store, name_of(model), columns, rows)


def prefer_indexes(store: Store) -> None:
    """Until the end of the transaction PostgreSQL looks ids up in their index.

    Its guess without statistics, on tables that have just grown, is that a few hundred ids are most of the table, and it
    reads all of it for each batch.
    """
    if not store.is_sqlite:
        store.rows("SET LOCAL enable_seqscan = off")


def by_id(store: Store, table: str, columns: Sequence[str], ids: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    """The rows of some ids, in order of the first two columns; the first is the id. Ids without rows are absent."""
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    order = ", ".join(columns[:2])
    sql = f"SELECT {', '.join(columns)} FROM {table} WHERE {store.one_of(columns[0])} ORDER BY {order}"
    for row in store.rows(sql, (store.listed(ids),)):
        found[row[0]].append(row)
    return found


def as_stored(store: Store, row: Values) -> tuple[Any, ...]:
    """A row as the database's driver would give it back."""
    return _texts(row) if store.is_sqlite and _has_times(row) else tuple(row)


def _has_times(row: Values) -> bool:
    return any(isinstance(value, dt.datetime) for value in row)


def _texts(row: Values) -> tuple[Any, ...]:
    return tuple(utc_text(value) if isinstance(value, dt.datetime) else value for value in row)
