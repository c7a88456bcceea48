"""Reads, locks and changes the ledger's rows of some ids, each found by its key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from esid.store.connection import Store

#: Before all ids that there can be (type, group and category 0 exist), and the last of them.
BEFORE_ALL, LAST_ID = -1, 2**63 - 1
#: SQL for "of this entity" beside ids. Which one it is stays hidden from PostgreSQL's planner: one that its statistics know
#: nothing of it takes for empty, and any index that begins with the entity for as good as the key.
_OF_ENTITY = "entity_type = (SELECT %s)"
#: PostgreSQL: one row after the other, by its key.
_EACH = (
    "SELECT job.* FROM unnest(CAST(%s AS BIGINT[])) AS wanted (id) CROSS JOIN LATERAL "
    f"(SELECT {{columns}} FROM sync_jobs WHERE {_OF_ENTITY} AND entity_id = wanted.id LIMIT 1 {{lock}}) AS job"
)


def among(store: Store, states: Sequence[str]) -> str:
    """SQL for "one of these ids of an entity, in one of these states"; its parameters are the entity and the listed ids.

    The status is out of reach of every index: with old statistics both databases take one that has it, and read all open
    jobs to find the few.
    """
    listed = ", ".join(f"'{state}'" for state in states)
    return f"{_OF_ENTITY} AND {store.one_of('entity_id')} AND COALESCE(status, '') IN ({listed})"


def update(
    store: Store,
    entity: str,
    ids: Collection[int],
    states: Sequence[str],
    sets: str,
    values: Sequence[Any],
    *,
    also: str = "",
    limits: Sequence[Any] = (),
    returning: str = "",
    locking: Collection[int] = (),
) -> list[tuple[Any, ...]]:
    """UPDATE those of these rows of the ledger that are in one of these states; they are locked before, in the order of ids.

    An UPDATE by itself locks rows in the order in which it comes across them, and two that come across the same ones in two
    orders wait for each other. SQLite's writer is alone.

    Args:
        sets, also, returning: SQL of the three clauses; `also` narrows down which.
        values: parameters of `sets`.
        limits: parameters of `also`.
        locking: ids whose rows are locked, too, for what the caller's transaction does to them later.
    """
    sql = f"UPDATE sync_jobs SET {sets} WHERE {among(store, states)}{f' AND {also}' if also else ''}"
    tail = f" RETURNING {returning}" if returning else ""
    parameters = (*values, entity, store.listed(ids), *limits)
    if store.is_sqlite:
        return store.change(sql + tail, parameters)
    # Counted, the locks are there before the UPDATE looks for its first row.
    locked = f"WITH locked AS MATERIALIZED ({_EACH.format(columns='1', lock='FOR UPDATE')}) "
    sql = f"{locked}{sql} AND (SELECT COUNT(*) FROM locked) >= 0{tail}"
    return store.change(sql, (store.listed(sorted({*ids, *locking})), entity, *parameters))


def jobs(
    store: Store, entity: str, ids: Collection[int], columns: str, *, for_update: bool = False
) -> list[tuple[Any, ...]]:
    """The rows of these ids that there are, in the order of the ids, in the caller's transaction.

    An IN list would do on PostgreSQL, too, if it had statistics: without them it takes all jobs of an entity for a few,
    and reads them all to find some hundreds. So each id is looked up for itself.

    Args:
        columns: what to select.
        for_update: lock them, in that order. SQLite's writer is alone.
    """
    wanted = store.listed(sorted(ids))
    if store.is_sqlite:
        sql = f"SELECT {columns} FROM sync_jobs WHERE entity_type = %s AND {store.one_of('entity_id')} ORDER BY entity_id"
        return store.rows(sql, (entity, wanted))
    return store.rows(_EACH.format(columns=columns, lock="FOR UPDATE" if for_update else ""), (wanted, entity))


def nth_after(store: Store, entity: str, key: int, count: int) -> int | None:
    """The id up to which there are so many known ones after `key`; None where there are fewer."""
    sql = "SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND entity_id > %s ORDER BY entity_id LIMIT 1 OFFSET %s"
    with store.connection():
        rows = store.rows(sql, (entity, key, count - 1))
    return int(rows[0][0]) if rows else None


def largest(store: Store, entity: str) -> int | None:
    """The largest id that was ever answered; None = none was. What somebody has mistyped has had no answer."""
    sql = "SELECT MAX(entity_id) FROM sync_jobs WHERE entity_type = %s AND checked_at IS NOT NULL"
    with store.connection():
        found: int | None = store.rows(sql, (entity,))[0][0]
    return found
