"""Reads, locks and changes the ledger's rows of some ids, each found by its key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from esid.store.connection import Store

#: SQL for "of this entity" beside ids. Which one it is stays hidden from PostgreSQL's planner: one that its statistics know
#: nothing of it takes for empty, and any index that begins with the entity for as good as the key.
OF_ENTITY = "entity_type = (SELECT %s)"
#: PostgreSQL: one row after the other, by its key.
_EACH = (
    "SELECT job.* FROM unnest(CAST(%s AS BIGINT[])) AS wanted (id) CROSS JOIN LATERAL "
    f"(SELECT {{columns}} FROM sync_jobs WHERE {OF_ENTITY} AND entity_id = wanted.id LIMIT 1 {{lock}}) AS job"
)


def update(
    store: Store, entity: str, ids: Collection[int], sets: str, which: str, parameters: Sequence[Any], returning: str = ""
) -> list[tuple[Any, ...]]:
    """UPDATE rows of the ledger among those of these ids, which are locked before, in the order of the ids.

    An UPDATE by itself locks rows in the order in which it comes across them, and two that come across the same ones in two
    orders wait for each other. SQLite's writer is alone.

    Args:
        sets, which, returning: SQL of the three clauses; `which` finds the ids (see `ledger.among`).
        parameters: of `sets` and `which`.
    """
    sql, tail = f"UPDATE sync_jobs SET {sets} WHERE {which}", f" RETURNING {returning}" if returning else ""
    if store.is_sqlite:
        return store.change(sql + tail, parameters)
    # Counted, the locks are there before the UPDATE looks for its first row.
    locked = f"WITH locked AS MATERIALIZED ({_EACH.format(columns='1', lock='FOR UPDATE')}) "
    return store.change(
        f"{locked}{sql} AND (SELECT COUNT(*) FROM locked) >= 0{tail}", (store.listed(sorted(ids)), entity, *parameters)
    )


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
