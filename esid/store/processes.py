"""Processes of all daemons on this database: each says every few seconds that it lives and what it does."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from esid import clock
from esid.store import notes
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds after which a process that is silent is taken for gone, and after which it is forgotten.
SILENT_S, FORGOTTEN_S = 30.0, 3600.0
#: Seconds in which a daemon that begins or ends has all of its processes up, or none.
MOVING_S = 60.0
#: Memos: when a daemon began, and when a process signed off.
_BEGAN, _LEFT = "processes.began_at", "processes.left_at"


def beat(store: Store, name: str, kind: str, state: dict[str, Any]) -> int:
    """Say that a process lives, and what it does; the number of the schema by now, which costs no statement more."""
    row = (name, kind, utc_text(clock.now()), json.dumps(state))
    tail = "ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at, state = excluded.state "
    tail += "RETURNING (SELECT COALESCE(MAX(number), 0) FROM schema_migrations)"
    return int(store.run(lambda: store.insert("processes", ("name", "kind", "beat_at", "state"), [row], tail))[0][0])


def leave(store: Store, name: str) -> None:
    """A process ends in good order."""

    def work() -> None:
        store.rows("DELETE FROM processes WHERE name = %s", (name,))
        _note(store, _LEFT)

    store.run(work)


def begin(store: Store) -> None:
    """A daemon begins."""
    store.run(lambda: _note(store, _BEGAN))


def _note(store: Store, memo: str) -> None:
    """Note the time. A daemon that begins and ends again and again is not noted each time: it would be excused for ever."""
    now = clock.now()
    often = utc_text(now - dt.timedelta(seconds=2 * MOVING_S))
    tail = f"ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE memos.value <= '{often}'"
    store.insert("memos", ("name", "value"), [(memo, utc_text(now))], tail)


def are_moving(store: Store) -> bool:
    """Whether a daemon has begun or ended within the last minute: what is missing now may be there soon, or was stopped."""
    now = clock.now()
    times = (utc_time(notes.memo(store, name)) for name in (_BEGAN, _LEFT))
    return any(time and 0.0 <= (now - time).total_seconds() < MOVING_S for time in times)


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
