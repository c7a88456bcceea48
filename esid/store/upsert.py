"""Writes rows: sorted by key, unchanged rows left alone, all values of a row at once."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from esid.store.connection import Store
from esid.store.model import Row, StampedTable, Table, utc_text

Key = tuple[Any, ...]


def upsert(store: Store, rows: Iterable[Row], now: dt.datetime) -> set[tuple[type[Table], Key]]:
    """Insert or update rows inside the caller's transaction.

    Keys are written in order, so that two transactions never wait for each other in a circle. `updated_at` moves only
    on rows where a value differs.

    Returns:
        (model, key) of every row that is new or has changed; times are texts in a key.
    """
    groups: dict[tuple[type[Table], tuple[str, ...]], dict[Key, Row]] = defaultdict(dict)
    for row in rows:
        groups[row.model, tuple(row.values)][row.key] = row
    changed: set[tuple[type[Table], Key]] = set()
    for (model, names), by_key in sorted(groups.items(), key=lambda item: (item[0][0].__name__, item[0][1])):
        values = [[by_key[key].values[name] for name in names] for key in sorted(by_key)]
        returned = put(store, model, names, values, now, returning=True)
        changed.update((model, tuple(map(plain, key))) for key in returned)
    return changed


def put(
    store: Store,
    model: type[Table],
    names: tuple[str, ...],
    rows: Iterable[Sequence[Any]],
    now: dt.datetime,
    *,
    returning: bool = False,
) -> list[Key]:
    """Insert or update rows of one shape, in the order in which they come.

    Args:
        returning: the keys of those that are new or have changed are returned.
    """
    stamps = stamps_of(model, now)
    values = [[*map(plain, row), *stamps.values()] for row in rows]
    tail = _tail(model, names, store.is_sqlite)
    tail += f" RETURNING {', '.join(model.key())}" if returning else ""
    return store.insert(name_of(model), (*names, *stamps), values, tail)


def stamps_of(model: type[Table], now: dt.datetime) -> dict[str, str | None]:
    """The columns that say when a new row came."""
    return dict.fromkeys(("created_at", "updated_at"), utc_text(now)) if issubclass(model, StampedTable) else {}


def plain(value: Any) -> Any:
    """A value as both drivers take it."""
    return utc_text(value) if isinstance(value, dt.datetime) else value


def name_of(model: type[Table]) -> str:
    """The table's name."""
    return str(model._meta.table_name)


@lru_cache
def _tail(model: type[Table], names: tuple[str, ...], is_sqlite: bool) -> str:
    key, table = model.key(), name_of(model)
    keys = ", ".join(key)
    rest = [name for name in names if name not in key]
    if not rest:
        return f"ON CONFLICT ({keys}) DO NOTHING"
    sets = [f"{name} = excluded.{name}" for name in rest]
    if issubclass(model, StampedTable):
        sets.append("updated_at = excluded.updated_at")
    differs = "IS NOT" if is_sqlite else "IS DISTINCT FROM"
    where = " OR ".join(f"{table}.{name} {differs} excluded.{name}" for name in rest)
    return f"ON CONFLICT ({keys}) DO UPDATE SET {', '.join(sets)} WHERE {where}"
