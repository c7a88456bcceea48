"""The schedule as people see it: each job with its last run, result, duration and next run. Reads only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

from esid import clock
from esid.plan import JOBS, next_due, planned
from esid.store import ticks
from esid.store.connection import Store


def jobs(store: Store, texts: Mapping[str, str], installation: str, queues: Collection[str]) -> list[dict[str, Any]]:
    """Every job.

    Args:
        texts: name of a job -> its setting.
        installation: see `plan.planned`.
        queues: queues that are served; a job for another one has no next run here.
    """
    now, newest = clock.now(), ticks.newest_runs(store)
    found = []
    for job in JOBS:
        text, ran = texts.get(job.name, "off"), newest.get(job.name)
        is_on = text != "off" and (not job.queue or job.queue in queues)
        following = next_due(planned(job, text, installation), now) if is_on else None
        found.append(
            {
                "name": job.name,
                "what": job.words,
                "setting": job.setting.upper(),
                "schedule": text,
                "last_run": _text(ran.ran_at if ran else None),
                "last_result": (ran.result or "running") if ran else None,
                "last_duration_s": _duration_s(ran),
                "last_words": ran.words if ran else None,
                "next_run": _text(following),
            }
        )
    return found


def _duration_s(ran: ticks.Ran | None) -> float | None:
    return round((ran.ended_at - ran.ran_at).total_seconds(), 3) if ran and ran.ended_at else None


def _text(time: dt.datetime | None) -> str | None:
    return time.astimezone(dt.UTC).isoformat(timespec="seconds") if time else None
