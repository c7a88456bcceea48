"""Writes entity rows: sorted by key, unchanged rows left alone, all values of a row at once."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from esid.store.connection import Store
from esid.store.model import EntityTable, Row, Table, utc_text


def upsert(store: Store, rows: Iterable[Row], now: dt.datetime) -> set[tuple[type[Table], int]]:
    """Insert or update rows inside the caller's transaction.

    Keys are written in order, so that two transactions never wait for each other in a circle. `updated_at` moves only
    on rows where a value differs.

    Returns:
        (model, first column of the key) of every row that is new or has changed.
    """
    groups: dict[tuple[type[Table], tuple[str, ...]], dict[tuple[Any, ...], Row]] = defaultdict(dict)
    for row in rows:
        key = tuple(row.values[name] for name in _key(row.model))
        groups[row.model, tuple(row.values)][key] = row
    changed: set[tuple[type[Table], int]] = set()
    stamp = utc_text(now)
    for (model, names), by_key in sorted(groups.items(), key=lambda item: (item[0][0].__name__, item[0][1])):
        stamped = issubclass(model, EntityTable)
        columns = (*names, "created_at", "updated_at") if stamped else names
        values = [
            [*(_plain(by_key[key].values[name]) for name in names), *([stamp, stamp] if stamped else [])]
            for key in sorted(by_key)
        ]
        returned = store.insert(_table(model), columns, values, _tail(model, names, store.is_sqlite))
        changed.update((model, returned_row[0]) for returned_row in returned)
    return changed


def _plain(value: Any) -> Any:
    return utc_text(value) if isinstance(value, dt.datetime) else value


def _table(model: type[Table]) -> str:
    return str(model._meta.table_name)


@lru_cache
def _key(model: type[Table]) -> tuple[str, ...]:
    primary: Any = model._meta.primary_key
    return tuple(getattr(primary, "field_names", None) or (primary.name,))


@lru_cache
def _tail(model: type[Table], names: tuple[str, ...], is_sqlite: bool) -> str:
    key, table = _key(model), _table(model)
    rest = [name for name in names if name not in key]
    if not rest:
        return f"ON CONFLICT ({', '.join(key)}) DO NOTHING RETURNING {key[0]}"
    sets = [f"{name} = excluded.{name}" for name in rest]
    if issubclass(model, EntityTable):
        sets.append("updated_at = excluded.updated_at")
    differs = "IS NOT" if is_sqlite else "IS DISTINCT FROM"
    where = " OR ".join(f"{table}.{name} {differs} excluded.{name}" for name in rest)
    return f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(sets)} WHERE {where} RETURNING {key[0]}"
