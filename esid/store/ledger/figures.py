"""The ledger as people see it: how many jobs in which state, and one of them."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import esid.store.ledger.lookup as lookup
from esid.store.connection import Store, marks
from esid.store.ledger.words import IS_OPEN, each
from esid.store.model import utc_text, utc_time


def counts(store: Store) -> dict[str, dict[str, int]]:
    """Entity -> status -> how many."""
    with store.connection():
        rows = store.rows("SELECT entity_type, status, COUNT(*) FROM sync_jobs GROUP BY entity_type, status")
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for entity, status, count in rows:
        found[entity][status] = count
    return dict(found)


def open_count(store: Store, entities: Sequence[str]) -> int:
    """How many jobs of these entities are pending or in work."""
    with store.connection():
        sql = f"SELECT COUNT(*) FROM sync_jobs WHERE entity_type IN ({marks(entities)}) AND {IS_OPEN}"
        return int(store.rows(sql, entities)[0][0])


def unanswered(store: Store) -> list[tuple[str, str, int]]:
    """(entity, source, how many) of what is open and never had an answer; see `Job.source`."""
    sql = f"SELECT entity_type, created_at, COUNT(*) FROM sync_jobs WHERE {IS_OPEN} AND checked_at IS NULL GROUP BY 1, 2"
    with store.connection():
        return [(entity, str(created), count) for entity, created, count in store.rows(sql)]


def states(store: Store, entity: str, ids: Sequence[int]) -> list[tuple[int, str]]:
    """(id, status) of those of `ids` that are known."""
    with store.connection():
        return [(key, status) for key, status in lookup.jobs(store, entity, ids, "entity_id, status")]


def purged(store: Store, entities: Sequence[str]) -> int:
    """How many jobs of these entities wait for the next scheduled sync because their queue was emptied."""
    with store.connection():
        which = f"entity_type IN ({marks(entities)}) AND status = 'failed' AND error = 'purged'"
        return int(store.rows(f"SELECT COUNT(*) FROM sync_jobs WHERE {which}", tuple(entities))[0][0])


def failed_since(store: Store, entities: Sequence[str], since: dt.datetime) -> int:
    """How many jobs of these entities were given up since then; what was purged is none of them."""
    with store.connection():
        which = f"entity_type IN ({marks(entities)}) AND status = 'failed' AND error <> 'purged' AND updated_at >= %s"
        return int(store.rows(f"SELECT COUNT(*) FROM sync_jobs WHERE {which}", (*entities, utc_text(since)))[0][0])


def was_asked(store: Store, entity: str) -> bool:
    """True when ESI has ever said anything of this entity, or somebody is about to ask."""
    which = "SELECT 1 FROM sync_jobs WHERE entity_type = %s AND"
    with store.connection():
        found = store.rows(f"{which} checked_at IS NOT NULL LIMIT 1", (entity,))
        return bool(found or store.rows(f"{which} {IS_OPEN} AND due_at IS NULL LIMIT 1", (entity,)))


def is_open(store: Store, entities: Sequence[str]) -> bool:
    """True when any job of these entities is pending or in work."""
    if not entities:
        return False
    with store.connection():
        sql = f"SELECT 1 FROM sync_jobs WHERE entity_type IN ({marks(entities)}) AND {IS_OPEN} LIMIT 1"
        return bool(store.rows(sql, entities))


def oldest_open(store: Store, entities: Sequence[str]) -> dict[str, dt.datetime]:
    """Entity -> when its longest untouched open job was last touched."""
    oldest = f"(SELECT MIN(updated_at) FROM sync_jobs WHERE entity_type = column1 AND {IS_OPEN})"
    with store.connection():
        rows = store.rows(f"SELECT column1, {oldest} FROM {each(entities)}", entities)
    return {entity: time for entity, text in rows if (time := utc_time(text)) is not None}


def job(store: Store, entity: str, key: int) -> dict[str, Any] | None:
    """One row of the ledger, as `esid show` prints it."""
    columns = (
        "status", "retry_count", "error", "created_at", "updated_at", "checked_at", "changed_at", "expires_at", "next_at",
        "refresh_at", "due_at",
        "etag", "argument",
    )  # fmt: skip
    with store.connection():
        rows = store.rows(
            f"SELECT {', '.join(columns)} FROM sync_jobs WHERE entity_type = %s AND entity_id = %s", (entity, key)
        )
    return dict(zip(columns, rows[0], strict=True)) if rows else None
