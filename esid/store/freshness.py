"""How fresh the data are: how many answers are due by the schedule, and how old the oldest look is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from esid import clock
from esid.store.connection import Store
from esid.store.due import is_due
from esid.store.model import Patience, utc_time


def due(store: Store, entity: str, patience: Sequence[Patience]) -> int:
    """How many answers of one entity are due by the schedule. Touches only those that have expired."""
    condition, parameters = is_due(clock.now(), None, patience)
    with store.connection():
        sql = f"SELECT COUNT(*) FROM sync_jobs WHERE entity_type = %s AND status = 'completed' AND {condition}"
        return int(store.rows(sql, (entity, *parameters))[0][0])


def oldest(store: Store, entity: str) -> dt.datetime | None:
    """When the answer of one entity was looked at that nobody has looked at for longest."""
    with store.connection():
        sql = "SELECT MIN(checked_at) FROM sync_jobs WHERE entity_type = %s AND checked_at IS NOT NULL"
        return utc_time(store.rows(sql, (entity,))[0][0])
