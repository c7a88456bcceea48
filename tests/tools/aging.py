"""Answers grow old in the database."""

from __future__ import annotations

import datetime as dt

from esid.store.connection import Store
from esid.store.model import utc_text

#: Seconds that a bulk answer is good for, and a little more than any other answer of the fake is.
HOUR_S, DAY_S = 3700.0, 90_000.0


def age(store: Store, seconds: float) -> None:
    """Let every answer be older than it is."""

    def work() -> None:
        times = ("expires_at", "checked_at", "next_at", "refresh_at")
        for key, kind, *found in store.rows(
            f"SELECT entity_id, entity_type, {', '.join(times)} FROM sync_jobs WHERE checked_at IS NOT NULL"
        ):
            older = [
                utc_text(dt.datetime.fromisoformat(str(time)) - dt.timedelta(seconds=seconds)) if time else None
                for time in found
            ]
            store.rows(
                f"UPDATE sync_jobs SET {' = %s, '.join(times)} = %s WHERE entity_id = %s AND entity_type = %s",
                (*older, key, kind),
            )

    store.run(work)
