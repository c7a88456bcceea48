"""What runs when: the named jobs of the schedule and the times of their ticks. Pure; knows no database and no clock.

The ticks of a job follow from its setting and from the installation alone, so that all daemons on one database mean the
same ticks. No two installations tick at the same second: an interval begins at a moment drawn for the installation, a
crontab expression is moved by drawn seconds. Jobs that ask ESI do not tick from 11:00 to 11:15 UTC, its downtime.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apscheduler.triggers.base import BaseTrigger

from esid import crontab
from esid.catalogue import LANES
from esid.settings import Settings, duration

#: Seconds of the day in which nobody asks ESI by schedule.
QUIET_FROM_S, QUIET_TO_S = 11 * 3600.0, 11 * 3600.0 + 900.0
#: Seconds between looks for intents and retries whose time has come.
DISPATCH_S = 1.0
_DAY_S = 86_400.0
_EPOCH, _INSTANT = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that people may schedule.

    Attributes:
        setting: the attribute of `Settings` that says when.
        queue: the lane that it fills; "" where it serves all of them.
        asks_esi: True where its ticks lead to requests at once: it keeps out of ESI's downtime.
        runs_at_start: it runs when a scheduler starts, whatever its times.
    """

    name: str
    setting: str
    words: str
    queue: str = ""
    asks_esi: bool = True
    runs_at_start: bool = True


JOBS: tuple[Job, ...] = (
    *(
        Job(f"sync_{lane.name}", lane.setting.lower(), lane.due or f"{lane.plural} that are due", lane.name)
        for lane in LANES
    ),
    Job("refresh_character", "esid_schedule_affiliations", "affiliations of characters, 1000 a request", "character"),
    Job("heal", "esid_schedule_heal", "killmails by day compared with zKillboard", "killmail", runs_at_start=False),
    Job("sweep", "esid_schedule_sweep", "work whose message was lost", asks_esi=False, runs_at_start=False),
    Job("audit", "esid_schedule_audit", "what must not be is looked for and mended", asks_esi=False, runs_at_start=False),
    Job("clean_up", "esid_schedule_clean_up", "old ticks and samples are deleted", asks_esi=False, runs_at_start=False),
)
BY_NAME = {job.name: job for job in JOBS}


def schedules(settings: Settings, *, with_syncs: bool = True) -> dict[str, str]:
    """Name of a job -> its setting. Without syncs only what mends and cleans is left."""
    texts = {job.name: getattr(settings, job.setting) for job in JOBS if with_syncs or not job.asks_esi}
    return texts if settings.follows_killmails else texts | {"heal": "off"}


@dataclass(frozen=True, slots=True)
class Planned:
    """A job with its times.

    Attributes:
        when: an interval in seconds, or a crontab expression, UTC.
        offset_s: an interval's ticks are that many seconds after midnight of 1970-01-01 and then every interval; a
            crontab's are that many seconds after the minute that it names.
        is_quiet: no tick falls into ESI's downtime.
        at_start: it runs when a scheduler starts, whatever its times.
    """

    name: str
    when: float | str
    offset_s: float = 0.0
    is_quiet: bool = False
    at_start: bool = False


def plan(texts: Mapping[str, str], installation: str, queues: Collection[str]) -> tuple[Planned, ...]:
    """The jobs that are not off, for the queues that are served.

    Args:
        texts: name of a job -> its setting (`10m`, a crontab expression, `off`); jobs without one are left out.
        installation: a text that is this installation's own for ever.
    """
    return tuple(
        planned(job, texts[job.name], installation)
        for job in JOBS
        if texts.get(job.name, "off") != "off" and (not job.queue or job.queue in queues)
    )


def planned(job: Job, text: str, installation: str) -> Planned:
    """One job with its times. `text` has been checked by `settings`."""
    when = interval_s(text) or text
    # Not for secrets: it spreads installations over time.
    drawn = random.Random(f"{installation}/{job.name}/{text}")  # noqa: S311
    offset_s = draw(drawn, when) if isinstance(when, float) else float(drawn.randint(1, 59))
    return Planned(job.name, when, offset_s, is_quiet=job.asks_esi, at_start=job.runs_at_start)


def interval_s(text: str) -> float | None:
    """Seconds of `30s`, `10m`, `6h`, `1d`; None for a crontab expression."""
    try:
        return duration(text)
    except ValueError:
        return None


def draw(drawn: random.Random, every_s: float) -> float:
    """Where an interval begins: neither in the first minute of an hour nor in ESI's downtime, where that can be."""
    offset_s = 0.0
    for _ in range(10_000):
        offset_s = round(drawn.uniform(0, every_s), 3)
        if not _is_unlucky(offset_s, every_s):
            break
    return offset_s


def _is_unlucky(offset_s: float, every_s: float) -> bool:
    if every_s >= 120 and 3600 % min(every_s, 3600.0) == 0 and offset_s % min(every_s, 3600.0) < 60:
        return True
    if every_s % _DAY_S == 0:
        return QUIET_FROM_S <= offset_s % _DAY_S < QUIET_TO_S
    return every_s >= 1800 and _DAY_S % every_s == 0 and (offset_s - QUIET_FROM_S) % every_s < 900.0


def last_due(job: Planned, now: dt.datetime) -> dt.datetime | None:
    """The newest tick that is due; None where there was none in a year (an odd crontab)."""
    due = _before(job, now)
    while due is not None and job.is_quiet and is_quiet(due):
        due = _before(job, _midnight(due) + dt.timedelta(seconds=QUIET_FROM_S) - _INSTANT)
    return due


def next_due(job: Planned, after: dt.datetime) -> dt.datetime | None:
    """The first tick after a time; None where there will be none in a year."""
    due = _after(job, after)
    while due is not None and job.is_quiet and is_quiet(due):
        if due - after > dt.timedelta(days=366):
            return None
        due = _after(job, _midnight(due) + dt.timedelta(seconds=QUIET_TO_S) - _INSTANT)
    return due


def is_quiet(time: dt.datetime) -> bool:
    """True from 11:00 to 11:15 UTC."""
    return QUIET_FROM_S <= (time - _midnight(time)).total_seconds() < QUIET_TO_S


class Ticks(BaseTrigger):  # type: ignore[misc]
    """The times of one job as APScheduler asks for them."""

    def __init__(self, job: Planned) -> None:
        self._job = job

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
        """The next tick."""
        return next_due(self._job, max(previous_fire_time, now) if previous_fire_time else now)


class Every(BaseTrigger):  # type: ignore[misc]
    """Again and again, for what no plan knows of. APScheduler's own interval counts each time that a clock which was set
    forward has left out (in ten years, of one each second, until the memory is full), and none before it was made."""

    def __init__(self, seconds: float) -> None:
        self._every = dt.timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime:
        """One interval after the time before; where that is past, after now."""
        following = (previous_fire_time or now) + self._every
        return following if now < following <= now + self._every else now + self._every


def _before(job: Planned, time: dt.datetime) -> dt.datetime | None:
    """The newest tick up to a time, quiet or not."""
    if isinstance(job.when, float):
        return _interval_tick(job.offset_s, job.when, time)
    for days in (0.01, 0.1, 2, 62, 400):
        due, following = None, _after(job, time - dt.timedelta(days=days))
        while following is not None and following <= time:
            due, following = following, _after(job, following)
        if due is not None:
            return due
    return None


def _after(job: Planned, time: dt.datetime) -> dt.datetime | None:
    """The first tick after a time, quiet or not."""
    if isinstance(job.when, float):
        return _interval_tick(job.offset_s, job.when, time) + dt.timedelta(seconds=job.when)
    moved = dt.timedelta(seconds=job.offset_s)
    due: dt.datetime | None = _cron(job.when).get_next_fire_time(None, time - moved + _INSTANT)
    return None if due is None else due + moved


def _interval_tick(offset_s: float, every_s: float, time: dt.datetime) -> dt.datetime:
    """The newest tick of an interval up to a time; exact, since a float of 1970 is not."""
    begin, every = _EPOCH + dt.timedelta(seconds=offset_s), dt.timedelta(seconds=every_s)
    return begin + (time - begin) // every * every


@lru_cache
def _cron(expression: str) -> Any:
    return crontab.trigger(expression)


def _midnight(time: dt.datetime) -> dt.datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)
