"""Reads the ledger's rows of some ids, each by its key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from esid.store.connection import Store, marks

#: Ids of one statement.
_AT_ONCE = 1000


def lock(store: Store, entity: str, ids: Collection[int]) -> None:
    """Lock the rows of these ids, in the order of the ids: who is to change several locks them so before.

    An UPDATE of several locks them in the order in which it comes across them, and two that come across the same ones in two
    orders wait for each other. SQLite's writer is alone.
    """
    if not store.is_sqlite:
        jobs(store, entity, ids, "1", for_update=True)


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
    ordered, found = sorted(ids), list[tuple[Any, ...]]()
    lock = "FOR UPDATE" if for_update else ""
    for start in range(0, len(ordered), _AT_ONCE):
        part = ordered[start : start + _AT_ONCE]
        if store.is_sqlite:
            sql = (
                f"SELECT {columns} FROM sync_jobs WHERE entity_type = %s AND entity_id IN ({marks(part)}) ORDER BY entity_id"
            )
            found += store.rows(sql, (entity, *part))
        else:
            sql = (
                "SELECT job.* FROM unnest(%s) AS wanted (id) CROSS JOIN LATERAL "
                f"(SELECT {columns} FROM sync_jobs WHERE entity_type = %s AND entity_id = wanted.id LIMIT 1 {lock}) AS job"
            )
            found += store.rows(sql, (part, entity))
    return found
