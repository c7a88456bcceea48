"""How fresh the data are: how many answers are not due yet by the schedule, and how old the oldest look is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from esid import clock
from esid.store.connection import Store
from esid.store.due import is_due
from esid.store.model import Patience, utc_time


@dataclass(frozen=True, slots=True)
class Freshness:
    """Of one entity: what has an answer, how many of those are not due, when the oldest was looked at."""

    known: int
    fresh: int
    oldest_at: dt.datetime | None


def of(store: Store, entity: str, patience: Sequence[Patience]) -> Freshness:
    """Counts of one entity's completed rows. An immutable answer is always fresh."""
    condition, parameters = is_due(clock.now(), None, patience)
    with store.connection():
        ((known, due, oldest),) = store.rows(
            f"SELECT COUNT(*), SUM(CASE WHEN {condition} THEN 1 ELSE 0 END), MIN(checked_at) FROM sync_jobs "
            "WHERE entity_type = %s AND status = 'completed' AND (checked_at IS NOT NULL OR expires_at IS NOT NULL "
            "OR changed_at IS NOT NULL)",
            (*parameters, entity),
        )
    return Freshness(int(known), int(known) - int(due or 0), utc_time(oldest))
