"""Writes all rows that an answer speaks of: what is equal stays untouched, what differs is written, what is gone ends.

Inside the caller's transaction, which has locked whose rows they are. The stored rows are read by pages, in order of their
keys, so that memory holds the answer and one page.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from esid.store import copying
from esid.store.connection import Store, marks
from esid.store.model import DELETED, EMPTIED, KEPT, Owned, StampedTable, utc_text
from esid.store.upsert import Key, name_of, plain, put

#: Stored rows that are read at a time, and ended at a time.
PAGE = 5_000


def write(store: Store, answers: Sequence[tuple[int, Owned]], now: dt.datetime) -> set[int]:
    """Write what some answers own; those that own rows of the same kind are written together.

    Args:
        answers: (id of the job, what its answer owns).

    Returns:
        The ids of those whose rows have changed.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, Owned]]] = defaultdict(list)
    for key, one in answers:
        at = None if one.gone in (DELETED, KEPT, EMPTIED) else one.at
        groups[one.table.__name__, one.columns, one.of, one.gone, at].append((key, one))
    changed = set[int]()
    for _, some in sorted(groups.items(), key=lambda item: item[0][:4]):
        first = some[0][1]
        rows, scopes = [row for _, one in some for row in one.rows], [scope for _, one in some for scope in one.scopes]
        touched = replace(store, Owned(first.table, first.columns, rows, first.of, tuple(scopes), first.gone, first.at), now)
        changed |= {key for key, one in some if touched.intersection(map(plain, one.scopes) if one.of else (None,))}
    return changed


def replace(store: Store, owned: Owned, now: dt.datetime, *, copied: bool = False) -> set[Any]:
    """Make the stored rows of its scopes those of the answer. A row of another scope with the key of one comes over.

    Args:
        copied: what is new is written as fast as it can be; a key that is there all the same is an IntegrityError.

    Returns:
        The scopes of which rows have changed; {None} where the whole table is one set.
    """
    place = {name: number for number, name in enumerate(owned.columns)}
    key_of, scope_of = _values_of([place[name] for name in owned.table.key()]), place.get(owned.of)
    told = [number for name, number in place.items() if name not in owned.table.key() and name != owned.of]
    columns, is_noted = owned.columns, owned.gone not in (DELETED, KEPT, EMPTIED)
    if is_noted:
        # What returns is gone no more.
        columns = (*columns, owned.gone)
    wanted = {}
    for row in owned.rows:
        stored = copying.as_stored(store, (*row, None) if is_noted else row)
        wanted[key_of(stored)] = stored
    differ, lost, touched = dict[Key, Any](), list[Key](), set[Any]()
    for row in _stored(store, owned, columns, is_noted=is_noted):
        if (want := wanted.pop(key_of(row), None)) is None:
            is_there = owned.gone != EMPTIED or any(row[number] is not None for number in told)
            if owned.gone != KEPT and is_there:
                lost.append(key_of(row))
                touched.add(None if scope_of is None else row[scope_of])
        elif want != row:
            differ[key_of(want)] = want
    touched.update(None if scope_of is None else row[scope_of] for some in (differ, wanted) for row in some.values())
    if copied:
        copying.add(store, owned.table, columns, [wanted[one] for one in sorted(wanted)], now)
    else:
        differ |= wanted
    put(store, owned.table, columns, [differ[one] for one in sorted(differ)], now)
    _end(store, owned, lost, now)
    return set(map(plain, touched))


def _values_of(places: Sequence[int]) -> Callable[[Sequence[Any]], Key]:
    """Reads the values at these places of a row."""
    if len(places) == 1:
        (only,) = places
        return lambda row: (row[only],)
    return itemgetter(*places)


def _stored(store: Store, owned: Owned, columns: Sequence[str], *, is_noted: bool) -> Iterator[tuple[Any, ...]]:
    """The rows of its scopes, but for those that are noted as gone already."""
    if owned.of and not owned.scopes:
        return
    key = owned.table.key()
    names, order = ", ".join(columns), ", ".join(key)
    key_of = _values_of([columns.index(name) for name in key])
    where, values = _scope(store, owned)
    where += f" AND {owned.gone} IS NULL" if is_noted else ""
    after, last = "", list[Any]()
    while True:
        sql = f"SELECT {names} FROM {name_of(owned.table)} WHERE {where}{after} ORDER BY {order} LIMIT {PAGE}"
        rows = store.rows(sql, [*values, *last])
        yield from rows
        if len(rows) < PAGE:
            return
        after, last = f" AND ({order}) > ({marks(key)})", list(key_of(rows[-1]))


def _scope(store: Store, owned: Owned) -> tuple[str, list[Any]]:
    if not owned.of:
        return "TRUE", []
    if len(owned.scopes) == 1:
        return f"{owned.of} = %s", [plain(owned.scopes[0])]
    return store.one_of(owned.of), [store.listed(owned.scopes)]


def _end(store: Store, owned: Owned, keys: Sequence[Key], now: dt.datetime) -> None:
    """End rows by the word of their entity, in order of their keys."""
    table, key = name_of(owned.table), owned.table.key()
    sets: dict[str, str | None] = {owned.gone: utc_text(owned.at or now)}
    if owned.gone == EMPTIED:
        sets = dict.fromkeys(name for name in owned.columns if name not in key and name != owned.of)
    if issubclass(owned.table, StampedTable):
        sets["updated_at"] = utc_text(now)
    for start in range(0, len(keys), PAGE):
        part = keys[start : start + PAGE]
        text = json.dumps([dict(zip(key, one, strict=True)) for one in part], default=plain)
        listed = "SELECT " + ", ".join(
            f"json_extract(value, '$.{name}')" if store.is_sqlite else f"listed.{name}" for name in key
        )
        listed += " FROM json_each(%s)" if store.is_sqlite else f" FROM json_populate_recordset(NULL::{table}, %s) AS listed"
        # What somebody has moved to another scope meanwhile is not gone.
        scope, values = _scope(store, owned)
        which = f"({', '.join(key)}) IN ({listed}) AND {scope}"
        if owned.gone == DELETED:
            store.rows(f"DELETE FROM {table} WHERE {which}", (text, *values))
        else:
            assigned = ", ".join(f"{name} = %s" for name in sets)
            store.rows(f"UPDATE {table} SET {assigned} WHERE {which}", (*sets.values(), text, *values))
