"""The schedule as people see it: each task with its last run, result, duration and next run. Reads only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from esid import clock
from esid.schedule.plan import TASKS, Planned, last_due, next_due, planned
from esid.store import ticks
from esid.store.connection import Store

#: Seconds that a tick may be late, and those in which a scheduler that has begun has run what was late.
LATE_S = 120.0


def tasks(
    store: Store, texts: Mapping[str, str], installation: str, living: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every task, as it runs: a task that no process runs has no next run, whatever the settings say.

    Args:
        texts: name of a task -> its setting here, which is shown where nobody runs it.
        installation: see `plan.planned`.
        living: the processes that were heard of lately.
    """
    now, newest = clock.now(), ticks.newest_runs(store)
    found = []
    for task in TASKS:
        runner = next((one for one in living if task.name in one.get("jobs", {})), None)
        text, ran = runner["jobs"][task.name] if runner else texts.get(task.name, "off"), newest.get(task.name)
        times = planned(task, text, installation) if runner else None
        following = next_due(times, now) if times else None
        found.append(
            {
                "name": task.name,
                "what": task.words,
                "setting": task.setting.upper(),
                "schedule": text,
                "runs_in": runner["name"] if runner else None,
                "late_s": _late_s(times, runner, ran, now) if times and runner else None,
                "last_run": _text(ran.ran_at if ran else None),
                "last_result": (ran.result or "running") if ran else None,
                "last_duration_s": _duration_s(ran),
                "last_words": ran.words if ran else None,
                "next_run": _text(following),
            }
        )
    return found


def _late_s(times: Planned, runner: Mapping[str, Any], ran: ticks.Ran | None, now: dt.datetime) -> float | None:
    """Seconds since the newest tick was due, where nobody has begun it though there was the time; else None."""
    due = last_due(times, now)
    # A tick that came while the one before it ran was left out.
    if due is None or runner.get("up_s", 0) < LATE_S or (ran and (ran.ended_at is None or ran.ended_at >= due)):
        return None
    late_s = (now - due).total_seconds()
    return round(late_s, 1) if ran and late_s > LATE_S else None


def _duration_s(ran: ticks.Ran | None) -> float | None:
    return round((ran.ended_at - ran.ran_at).total_seconds(), 3) if ran and ran.ended_at else None


def _text(time: dt.datetime | None) -> str | None:
    return time.astimezone(dt.UTC).isoformat(timespec="seconds") if time else None
