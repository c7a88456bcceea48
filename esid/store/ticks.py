"""Ticks of the schedule: a row for each that has run, so that none runs twice however many daemons there are."""

from __future__ import annotations

import datetime as dt

from esid import clock
from esid.store.connection import Store
from esid.store.model import utc_text

#: Seconds for which ticks are remembered.
KEPT_S = 7 * 86_400.0


def claim(store: Store, name: str, due_at: dt.datetime) -> bool:
    """True for the one caller that may run this tick; False when somebody has."""

    def work() -> bool:
        now = clock.now()
        old = utc_text(now - dt.timedelta(seconds=KEPT_S))
        store.rows("DELETE FROM ticks WHERE name = %s AND due_at < %s", (name, old))
        row = (name, utc_text(due_at), utc_text(now))
        return bool(store.insert("ticks", ("name", "due_at", "ran_at"), [row], "ON CONFLICT DO NOTHING RETURNING name"))

    return store.run(work)
