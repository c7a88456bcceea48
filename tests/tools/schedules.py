"""The database tells who owns the schedule, and what has run."""

from __future__ import annotations

import datetime as dt

from esid.store import leader
from esid.store.connection import Store
from esid.store.model import utc_time

#: Locks of the schedules of this database; those under which budgets are divided come and go.
OWNS = (
    f"locktype = 'advisory' AND granted AND classid = {leader._CLASS} "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def runs(store: Store, name: str) -> list[tuple[dt.datetime, dt.datetime]]:
    """(due, run) of every tick of a job."""
    with store.connection():
        rows = store.rows("SELECT due_at, ran_at FROM ticks WHERE name = %s ORDER BY due_at", (name,))
    return [(utc_time(due), utc_time(ran)) for due, ran in rows]  # type: ignore[misc]
