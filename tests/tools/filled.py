"""Fills a database with rows of every kind, by what the database itself tells of its tables: whatever schema it has.

Each value of a column's type is there, with the extremes, and NULL where it may be. In the first row all that may be NULL
is, in the second nothing; then each value has its turn, and the rest is mixed by a seed. No id need stand in another table.
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esid.entities import ENTITIES
from esid.store.connection import Store
from esid.store.model import utc_text

#: What has run is not made up.
BOOK = "schema_migrations"
_FIRST_DAY = dt.datetime(2003, 5, 6, 11, tzinfo=dt.UTC)
_TIMES = (
    _FIRST_DAY, dt.datetime.min, dt.datetime.max, dt.datetime(1970, 1, 1), dt.datetime(2026, 11, 24, 3, 7, 46, 1),
    dt.datetime(2038, 1, 19, 3, 14, 8),
)  # fmt: skip
_TEXTS = (
    "esid", "", " ", "0", "NULL", "Жук 漢字 🛰", "e\u0301\u202e\u00a0x", "two\nlines\tand a\r", "'; DROP TABLE memos; --",
    '"%s" {id} \\ %', "漢" * 500,
)  # fmt: skip
#: Type (in the words of both databases) -> its values, as the program writes them.
_VALUES: dict[str, tuple[Any, ...]] = {
    "bigint": (95_000_001, 0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    "integer": (3, 0, 1, -1, 2**31 - 1, -(2**31)),
    "double precision": (0.1, 0.0, -1.5, 2.0**53, 1e308, 5e-324, float("inf"), float("-inf")),
    "boolean": (True, False),
    "text": _TEXTS,
    "timestamptz": tuple(utc_text(time.replace(tzinfo=dt.UTC)) for time in _TIMES),
    "date": tuple(time.date().isoformat() for time in _TIMES),
}
_SAME = {"timestamp with time zone": "timestamptz"}
#: Columns whose words the program tells apart: these come, and a word that it does not know.
_WORDS = {
    "entity_type": (*(entity.name for entity in ENTITIES), "Жук"),
    "result": ("done", "failed", "interrupted", "Жук"),
}
#: Rows of one INSERT.
_AT_ONCE = 50
#: (column, values) of a CHECK that lists what it takes, as SQLite and PostgreSQL tell it.
_LISTED = re.compile(r"CHECK \(+(\w+) (?:IN|= ANY) \((?:ARRAY\[)?([^])]+)")


@dataclass(frozen=True)
class Column:
    """What is to be known of it for a row: its type, what it takes, and whether each row has another value there."""

    name: str
    values: tuple[Any, ...]
    kind: str
    is_own: bool

    def value(self, number: int, rng: random.Random) -> Any:
        """That of one row."""
        if self.is_own:
            return None if None in self.values and number % 3 == 0 else self._own(number)
        if number < 2 and None in self.values:
            return None if number == 0 else self.values[0]
        return self.values[number % len(self.values)] if number < 25 else rng.choice(self.values)

    def _own(self, number: int) -> Any:
        values = [value for value in self.values if value is not None]
        if self.kind == "text":
            return f"{values[number % len(values)]}{number}"
        if number < len(values):
            return values[number]
        if self.kind == "timestamptz":
            return utc_text(_FIRST_DAY + dt.timedelta(seconds=61.000001 * number))
        return (_FIRST_DAY + dt.timedelta(days=number)).date().isoformat() if self.kind == "date" else 10**9 + number


def fill(store: Store, numbers: Sequence[int]) -> None:
    """Put a row with each of these numbers into every table. Rows with other numbers do not collide."""
    listed = _listed(store)
    for table in tables(store):
        columns = _columns(store, table, listed)
        rng = random.Random(f"{table} {numbers[0]}")
        rows = [[column.value(number, rng) for column in columns] for number in numbers]
        names, one = ", ".join(column.name for column in columns), ", ".join(["%s"] * len(columns))
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            sql = f"INSERT INTO {table} ({names}) VALUES {', '.join([f'({one})'] * len(part))}"
            store.change(sql, [value for row in part for value in row])


def tables(store: Store) -> list[str]:
    """The names of those that are there, but for the book of migrations."""
    with store.connection():
        return sorted(set(store.database.get_tables()) - {BOOK})


def content(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Table -> its rows: column -> value as the driver tells it."""
    found = {}
    with store.connection():
        for table in tables(store):
            cursor = store.database.execute_sql(f"SELECT * FROM {table}")
            names = [one[0] for one in cursor.description]
            found[table] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return found


def key(store: Store, table: str) -> tuple[str, ...]:
    """The columns of its primary key."""
    with store.connection():
        return tuple(store.database.get_primary_keys(table))


def columns(store: Store, table: str) -> list[str]:
    """The names of its columns."""
    with store.connection():
        return [column.name for column in store.database.get_columns(table)]


def _columns(store: Store, table: str, listed: Mapping[tuple[str, str], tuple[str, ...]]) -> list[Column]:
    """Those that a row is given; a number that PostgreSQL gives itself is left to it."""
    keys = key(store, table)
    with store.connection():
        # Of what is unique together the last is another one in each row.
        own = {keys[-1], *(one.columns[-1] for one in store.database.get_indexes(table) if one.unique)}
        columns = store.database.get_columns(table)
        sql = "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_identity = 'YES'"
        given = set() if store.is_sqlite else {name for (name,) in store.rows(sql, (table,))}
    made = []
    for column in columns:
        if column.name in given:
            continue
        kind = _SAME.get(column.data_type.lower(), column.data_type.lower())
        if store.is_sqlite and keys == (column.name,) and kind == "integer":
            kind = "bigint"
        values = listed.get((table, column.name)) or _WORDS.get(column.name) or _VALUES[kind]
        is_nullable = column.null and column.name not in keys
        made.append(Column(column.name, (*values, None) if is_nullable else values, kind, column.name in own))
    return made


def _listed(store: Store) -> dict[tuple[str, str], tuple[str, ...]]:
    """(table, column) -> what its CHECK lists."""
    sql = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
        if store.is_sqlite
        else "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    )
    with store.connection():
        texts = store.rows(sql)
    return {
        (table, column): tuple(re.findall(r"'([^']*)'", values))
        for table, text in texts
        for column, values in _LISTED.findall(text)
    }
