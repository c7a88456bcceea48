"""Ticks of the schedule: a row for each, so that none runs twice however many daemons there are, and what came of it.

A tick that has no end is running, or its process has died with it: then it is run again (see `interrupted`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from esid import clock, host
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds for which ticks are remembered; the newest of each task stays.
KEPT_S = 7 * 86_400.0
#: Seconds after which a tick without an end is taken for interrupted: since its process, of which nobody here can know
#: whether it lives, was last heard of; since its begin where that was never heard of.
SILENT_S, LOST_S = 120.0, 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Ran:
    """The newest run of a task. `ended_at` and `result` (done, failed, interrupted) are None while it runs."""

    name: str
    due_at: dt.datetime
    ran_at: dt.datetime
    ended_at: dt.datetime | None
    result: str | None
    words: str | None


def claim(store: Store, name: str, due_at: dt.datetime) -> bool:
    """True for the one caller that may run this tick; False when somebody has."""
    row = (name, utc_text(due_at), utc_text(clock.now()), host.me())
    columns = ("name", "due_at", "ran_at", "owner")
    # A commit whose answer was lost is repeated, and finds the row that this very call has written.
    mine = (
        "ON CONFLICT (name, due_at) DO UPDATE SET ran_at = excluded.ran_at WHERE ticks.owner = excluded.owner "
        "AND ticks.ran_at = excluded.ran_at AND ticks.ended_at IS NULL RETURNING name"
    )
    return store.run(lambda: bool(store.insert("ticks", columns, [row], mine)))


def end(store: Store, name: str, due_at: dt.datetime, result: str, words: str) -> None:
    """Note what came of a tick.

    Args:
        result: done, failed or interrupted.
    """
    sql = "UPDATE ticks SET ended_at = %s, result = %s, words = %s WHERE name = %s AND due_at = %s"
    store.run(lambda: store.rows(sql, (utc_text(clock.now()), result, words[:500], name, utc_text(due_at))))


def interrupted(store: Store) -> list[str]:
    """Note which ticks have lost their process, and return the tasks whose newest tick is among them."""
    with store.connection():
        rows = store.rows(
            "SELECT ticks.name, due_at, ran_at, owner, beat_at FROM ticks LEFT JOIN processes ON processes.name = owner "
            "WHERE ended_at IS NULL ORDER BY ticks.name, due_at"
        )
    lost = [(name, utc_time(due)) for name, due, ran, owner, beat in rows if _is_lost(owner, utc_time(ran), utc_time(beat))]
    names = []
    for name, due_at in lost:
        if due_at is not None:
            end(store, name, due_at, "interrupted", "its process has ended")
            names.append(name)
    newest = newest_runs(store)
    return sorted(name for name in set(names) if newest[name].result == "interrupted")


def newest_runs(store: Store) -> dict[str, Ran]:
    """Name of a task -> its newest run."""
    with store.connection():
        rows = store.rows(
            "SELECT name, due_at, ran_at, ended_at, result, words FROM ticks WHERE (name, ran_at) IN "
            "(SELECT name, MAX(ran_at) FROM ticks GROUP BY name) ORDER BY name, due_at"
        )
    found = {}
    for name, due_at, ran_at, ended_at, result, words in rows:
        due, ran = utc_time(due_at), utc_time(ran_at)
        if due and ran:
            found[name] = Ran(name, due, ran, utc_time(ended_at), result, words)
    return found


def prune(store: Store) -> int:
    """Forget old ticks but the newest of each task; returns how many."""
    old = utc_text(clock.now() - dt.timedelta(seconds=KEPT_S))
    sql = (
        "DELETE FROM ticks WHERE due_at < %s AND due_at < (SELECT MAX(newer.due_at) FROM ticks AS newer "
        "WHERE newer.name = ticks.name) RETURNING name"
    )
    return len(store.run(lambda: store.rows(sql, (old,))))


def _is_lost(owner: str | None, ran_at: dt.datetime | None, beat_at: dt.datetime | None) -> bool:
    """Whether its process has ended: for sure, or by the silence of one that told that it lives."""
    if owner and host.is_here(owner):
        return host.is_gone(owner)
    silent_s, since = (LOST_S, ran_at) if beat_at is None else (SILENT_S, beat_at)
    # As far ahead as that it was before the clock was set back.
    return since is None or abs(clock.now() - since) > dt.timedelta(seconds=silent_s)
