"""Processes of all daemons on this database: each says every few seconds that it lives and what it does."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from esid import clock
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds after which a process that is silent is taken for gone, and after which it is forgotten.
SILENT_S, FORGOTTEN_S = 30.0, 3600.0


def beat(store: Store, name: str, kind: str, state: dict[str, Any]) -> int:
    """Say that a process lives, and what it does; the number of the schema by now, which costs no statement more."""
    row = (name, kind, utc_text(clock.now()), json.dumps(state))
    tail = "ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at, state = excluded.state "
    tail += "RETURNING (SELECT COALESCE(MAX(number), 0) FROM schema_migrations)"
    return int(store.run(lambda: store.insert("processes", ("name", "kind", "beat_at", "state"), [row], tail))[0][0])


def leave(store: Store, name: str) -> None:
    """A process ends in good order."""
    store.run(lambda: store.rows("DELETE FROM processes WHERE name = %s", (name,)))


def living(store: Store) -> list[dict[str, Any]]:
    """Those heard of lately: name, kind, seconds since then, and their own words."""
    now = clock.now()
    with store.connection():
        rows = store.rows("SELECT name, kind, beat_at, state FROM processes ORDER BY kind, name")
    found = []
    for name, kind, beat_at, state in rows:
        silent_s = (now - (utc_time(beat_at) or now)).total_seconds()
        # As far ahead as that it was heard of before the clock was set back.
        if abs(silent_s) <= SILENT_S:
            found.append({"name": name, "kind": kind, "silent_s": round(max(0.0, silent_s), 1), **json.loads(state)})
    return found


def prune(store: Store) -> int:
    """Forget those that are gone for long."""
    old, ahead = (utc_text(clock.now() + dt.timedelta(seconds=age)) for age in (-FORGOTTEN_S, FORGOTTEN_S))
    sql = "DELETE FROM processes WHERE beat_at < %s OR beat_at > %s RETURNING name"
    return len(store.run(lambda: store.rows(sql, (old, ahead))))
