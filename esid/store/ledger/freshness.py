"""How fresh the data are: how many answers are due by the schedule, and how old the oldest of them is."""

from __future__ import annotations

import datetime as dt

from esid import clock
from esid.store.connection import Store
from esid.store.ledger.due import BY_SCHEDULE
from esid.store.model import utc_text, utc_time


def due(store: Store, entity: str) -> int:
    """How many answers of one entity are due by the schedule. Touches only those."""
    with store.connection():
        sql = f"SELECT COUNT(*) FROM sync_jobs WHERE {BY_SCHEDULE} AND status = 'completed'"
        return int(store.rows(sql, (entity, utc_text(clock.now())))[0][0])


def oldest(store: Store, entity: str) -> dt.datetime | None:
    """When the answer of one entity was looked at that nobody has looked at for longest."""
    with store.connection():
        sql = "SELECT MIN(checked_at) FROM sync_jobs WHERE entity_type = %s AND checked_at IS NOT NULL"
        return utc_time(store.rows(sql, (entity,))[0][0])
