"""Writes all rows that an answer speaks of: what is equal stays untouched, what differs is written, what is gone ends.

Inside the caller's transaction, which has locked whose rows they are. The stored rows are read by pages, in order of their
keys, so that memory holds the answer and one page.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
    key, place = owned.table.key(), {name: number for number, name in enumerate(owned.columns)}
    key_of, scope_of = [place[name] for name in key], place.get(owned.of)
    told = [number for name, number in place.items() if name not in key and name != owned.of]
    columns, ends = owned.columns, owned.gone not in (DELETED, KEPT, EMPTIED)
    if ends:
        columns = (*columns, owned.gone)
    wanted = {}
    for row in owned.rows:
        stored = copying.as_stored(store, (*row, None) if ends else row)
        wanted[tuple(stored[number] for number in key_of)] = stored
    differ, lost = dict[Key, Any](), list[tuple[Key, Any]]()
    for row in _stored(store, owned, columns, key):
        this = tuple(row[number] for number in key_of)
        if (want := wanted.pop(this, None)) is None:
            if _is_to_end(owned, row, told):
                lost.append((this, None if scope_of is None else row[scope_of]))
        elif want != row:
            differ[this] = want
    touched = {scope for _, scope in lost} | {
        None if scope_of is None else row[scope_of] for some in (differ, wanted) for row in some.values()
    }
    new = [wanted[one] for one in sorted(wanted)]
    if copied:
        copying.add(store, owned.table, columns, new, now)
    else:
        differ |= wanted
    put(store, owned.table, columns, [differ[one] for one in sorted(differ)], now)
    _end(store, owned, [one for one, _ in lost], now)
    return {plain(scope) for scope in touched}


def _is_to_end(owned: Owned, row: Sequence[Any], told: Sequence[int]) -> bool:
    """Whether a row that the answer does not name is still as if it did.

    Args:
        told: places of what the answer tells of a row.
    """
    if owned.gone in (DELETED, KEPT):
        return owned.gone == DELETED
    if owned.gone == EMPTIED:
        return any(row[number] is not None for number in told)
    return row[-1] is None


def _stored(store: Store, owned: Owned, columns: Sequence[str], key: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if owned.of and not owned.scopes:
        return
    names, order = ", ".join(columns), ", ".join(key)
    key_of = [columns.index(name) for name in key]
    where, values = _scope(store, owned)
    after, last = "", list[Any]()
    while True:
        sql = f"SELECT {names} FROM {name_of(owned.table)} WHERE {where}{after} ORDER BY {order} LIMIT {PAGE}"
        rows = store.rows(sql, [*values, *last])
        yield from rows
        if len(rows) < PAGE:
            return
        after, last = f" AND ({order}) > ({marks(key)})", [rows[-1][number] for number in key_of]


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
        which = f"({', '.join(key)}) IN ({listed})"
        if owned.gone == DELETED:
            store.rows(f"DELETE FROM {table} WHERE {which}", (text,))
        else:
            assigned = ", ".join(f"{name} = %s" for name in sets)
            store.rows(f"UPDATE {table} SET {assigned} WHERE {which}", (*sets.values(), text))
