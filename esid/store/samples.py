"""A sample of the state each minute, for rates and for the plots of the last hour."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from esid import clock
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds between samples, and for which they are kept.
EVERY_S, KEPT_S = 60.0, 25 * 3600.0


def add(store: Store, state: dict[str, Any]) -> None:
    """Keep the state of this minute; the first of several daemons does."""
    minute = clock.now().replace(second=0, microsecond=0)
    row = (utc_text(minute), json.dumps(state))
    store.run(lambda: store.insert("samples", ("taken_at", "state"), [row], "ON CONFLICT DO NOTHING"))


def last(store: Store, seconds: float) -> list[tuple[dt.datetime, dict[str, Any]]]:
    """The samples of the last `seconds`, oldest first."""
    now = clock.now()
    with store.connection():
        rows = store.rows(
            "SELECT taken_at, state FROM samples WHERE taken_at >= %s AND taken_at <= %s ORDER BY taken_at",
            (utc_text(now - dt.timedelta(seconds=seconds)), utc_text(now)),
        )
    return [(utc_time(time) or now, json.loads(state)) for time, state in rows]


def prune(store: Store) -> int:
    """Forget old samples."""
    old = utc_text(clock.now() - dt.timedelta(seconds=KEPT_S))
    return len(store.run(lambda: store.rows("DELETE FROM samples WHERE taken_at < %s RETURNING taken_at", (old,))))
