"""Writes things that never change (killmails) in bulk: whole, once, and again only where the tables say otherwise.

A batch is one transaction: readers see a thing with all of its rows or not at all. What is there and equal is left
alone; what is there and differs (a row lost, a value spoiled) is written anew. Locks are taken in the order in which
`ledger.finish` takes them: the ledger's rows, the tables by name, the ledger again.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import peewee

from esid import clock
from esid.errors import StoreError
from esid.store import copying, ledger
from esid.store.connection import Store
from esid.store.ledger import lookup
from esid.store.model import Owned, Seen, Table, utc_text
from esid.store.owned import replace
from esid.store.upsert import name_of

#: Times that a batch is tried when somebody else writes the same thing at the same moment, and seconds between (at most).
_ATTEMPTS, _WAIT_S = 20, 0.1
#: Columns of the ledger's row of a thing that came whole.
JOB_COLUMNS = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "changed_at", "argument")
Values = tuple[Any, ...]
#: Of a job: status, argument, and when the schedule asks next.
_Known = tuple[str, str | None, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """One thing: its id, what its route needs beside it (a hash), and its rows for each table of the layout."""

    id: int
    argument: str
    rows: tuple[Sequence[Values], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of one kind of thing, by name, each with its columns; the first is the id.

    Attributes:
        own: the place of the table that has one row a thing.
        argument: the place of the argument in that row.
        is_lasting: true of an argument that stays as it stands, whatever another source says.
    """

    entity: str
    tables: tuple[tuple[type[Table], tuple[str, ...]], ...]
    own: int
    argument: int
    is_lasting: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: ids that are new, that were written anew, that stood there as they are."""

    new: tuple[int, ...]
    repaired: tuple[int, ...]
    same: int


def write(
    store: Store,
    layout: Layout,
    batch: Sequence[Whole],
    seen: Sequence[Seen],
    gathering: Collection[str],
    also: Callable[[], None],
) -> Written:
    """Write a batch in one transaction.

    Args:
        batch: each id once.
        seen: ids that stand in the batch and are not known to be known.
        gathering: entities whose new ids wait for company (see `ledger.gathered`).
        also: what else belongs to the transaction, like how far an archive was read.

    Raises:
        StoreError: in its kinds; nothing of the batch was written.
    """
    ordered = sorted(batch, key=lambda one: one.id)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            work = partial(_write, store, layout, ordered, seen, gathering, also, is_first=attempt == 1)
            return store.run(work)
        except StoreError as error:
            # Somebody else has just written one of them, or the ledger has lost it; now it is seen.
            if attempt == _ATTEMPTS or not isinstance(error.__cause__, peewee.IntegrityError):
                raise
            clock.sleep(random.uniform(0, _WAIT_S))  # noqa: S311
    raise AssertionError("unreachable")


def _write(
    store: Store,
    layout: Layout,
    batch: Sequence[Whole],
    seen: Sequence[Seen],
    gathering: Collection[str],
    also: Callable[[], None],
    *,
    is_first: bool,
) -> Written:
    now = clock.now()
    copying.prefer_indexes(store)
    known = _known_jobs(store, layout.entity, [one.id for one in batch])
    # What the ledger does not know is new. Where rows of it are there all the same, they have numbers of the new ones, and
    # are in their way: the second attempt looks at all more closely.
    suspects = {one.id for one in batch if one.id in known or not is_first}
    there = _arguments(store, layout, suspects)
    batch = [_as_it_stands(layout, one, there.get(one.id)) for one in batch]
    changed = _write_rows(store, layout, batch, suspects, now)
    new = tuple(one.id for one in batch if one.id not in there)
    repaired = tuple(sorted(changed & there.keys()))
    _book(store, layout.entity, batch, known, {*new, *repaired}, now)
    ledger.discover(store, seen, now, gathering)
    also()
    return Written(new, repaired, len(batch) - len(new) - len(repaired))


def _arguments(store: Store, layout: Layout, ids: Collection[int]) -> dict[int, str]:
    """The argument of each thing that is there."""
    table, columns = layout.tables[layout.own]
    sql = f"SELECT {columns[0]}, {columns[layout.argument]} FROM {name_of(table)} WHERE {store.one_of(columns[0])}"
    return dict(store.rows(sql, (store.listed(ids),))) if ids else {}


def _as_it_stands(layout: Layout, one: Whole, standing: str | None) -> Whole:
    """A thing with the argument that it has: of two sources that differ neither overwrites the other again and again."""
    if standing is None or standing == one.argument or not layout.is_lasting(standing):
        return one
    ((*row,),) = one.rows[layout.own]
    row[layout.argument] = standing
    rows = (*one.rows[: layout.own], [tuple(row)], *one.rows[layout.own + 1 :])
    return Whole(one.id, standing, rows)


def _write_rows(
    store: Store, layout: Layout, batch: Sequence[Whole], suspects: Collection[int], now: dt.datetime
) -> set[int]:
    """Those of the suspects, that may have rows, whose rows were not as they should be. All others are new."""
    changed = set[int]()
    for place, (table, columns) in enumerate(layout.tables):
        fresh = [row for one in batch if one.id not in suspects for row in one.rows[place]]
        rows = [row for one in batch if one.id in suspects for row in one.rows[place]]
        changed |= replace(store, Owned(table, columns, rows, columns[0], tuple(suspects)), now, copied=True)
        copying.add(store, table, columns, fresh, now)
    return changed


def _known_jobs(store: Store, entity: str, ids: Sequence[int]) -> dict[int, _Known]:
    """The ledger's rows of these ids, locked."""
    rows = lookup.jobs(store, entity, ids, "entity_id, status, argument, next_at", for_update=True)
    return {key: (status, argument, next_at) for key, status, argument, next_at in rows}


def job(entity: str, key: int, argument: str, stamp: str | None) -> Values:
    """The ledger's row of a thing that came whole, in the order of `JOB_COLUMNS`."""
    return (entity, key, "completed", 0, stamp, stamp, stamp, argument)


def _book(
    store: Store,
    entity: str,
    batch: Sequence[Whole],
    known: dict[int, _Known],
    fresh: set[int],
    now: dt.datetime,
) -> None:
    """The ledger: all of the batch is done, and is never asked for again."""
    stamp = utc_text(now)
    copying.copy(
        store, "sync_jobs", JOB_COLUMNS, [job(entity, one.id, one.argument, stamp) for one in batch if one.id not in known]
    )
    for one in batch:
        if one.id in known and (known[one.id] != ("completed", one.argument, None) or one.id in fresh):
            store.rows(
                "UPDATE sync_jobs SET status = 'completed', retry_count = 0, error = NULL, due_at = NULL, "
                f"expires_at = NULL, {ledger.UNPLANNED}, argument = %s, updated_at = %s, "
                "changed_at = CASE WHEN %s THEN %s ELSE changed_at END "
                "WHERE entity_type = %s AND entity_id = %s",
                (one.argument, stamp, one.id in fresh, stamp, entity, one.id),
            )
    if known:
        sql = f"DELETE FROM dead_letters WHERE entity_type = %s AND {store.one_of('entity_id')}"
        store.rows(sql, (entity, store.listed(known)))
