"""What runs when: the named tasks of the schedule and the times of their ticks. Pure; knows no database and no clock.

The ticks of a task follow from its setting and from the installation alone, so that all daemons on one database mean the
same ticks. No two installations tick at the same second: an interval begins at a moment drawn for the installation, a
crontab expression is moved by drawn seconds. Tasks that ask ESI do not tick from 11:00 to 11:15 UTC, its downtime.
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
class Task:
    """A task that people may schedule.

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


TASKS: tuple[Task, ...] = (
    *(
        Task(f"sync_{lane.name}", lane.setting.lower(), lane.due or f"{lane.plural} that are due", lane.name)
        for lane in LANES
    ),
    Task("refresh_character", "esid_schedule_affiliations", "affiliations of characters, 1000 a request", "character"),
    Task("heal", "esid_schedule_heal", "killmails by day compared with zKillboard", "killmail", runs_at_start=False),
    Task("sweep", "esid_schedule_sweep", "work whose message was lost", asks_esi=False, runs_at_start=False),
    Task("audit", "esid_schedule_audit", "what must not be is looked for and mended", asks_esi=False, runs_at_start=False),
    Task("clean_up", "esid_schedule_clean_up", "old ticks and samples are deleted", asks_esi=False, runs_at_start=False),
)
BY_NAME = {task.name: task for task in TASKS}


def schedules(settings: Settings, *, with_syncs: bool = True) -> dict[str, str]:
    """Name of a task -> its setting. Without syncs only what mends and cleans is left."""
    texts = {task.name: getattr(settings, task.setting) for task in TASKS if with_syncs or not task.asks_esi}
    return texts if settings.follows_killmails else texts | {"heal": "off"}


@dataclass(frozen=True, slots=True)
class Planned:
    """A task with its times.

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
    """The tasks that are not off, for the queues that are served.

    Args:
        texts: name of a task -> its setting (`10m`, a crontab expression, `off`); tasks without one are left out.
        installation: a text that is this installation's own for ever.
    """
    return tuple(
        planned(task, texts[task.name], installation)
        for task in TASKS
        if texts.get(task.name, "off") != "off" and (not task.queue or task.queue in queues)
    )


def planned(task: Task, text: str, installation: str) -> Planned:
    """One task with its times. `text` has been checked by `settings`."""
    when = interval_s(text) or text
    # Not for secrets: it spreads installations over time.
    drawn = random.Random(f"{installation}/{task.name}/{text}")  # noqa: S311
    offset_s = draw(drawn, when) if isinstance(when, float) else float(drawn.randint(1, 59))
    return Planned(task.name, when, offset_s, is_quiet=task.asks_esi, at_start=task.runs_at_start)


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


def last_due(task: Planned, now: dt.datetime) -> dt.datetime | None:
    """The newest tick that is due; None where there was none in a year (an odd crontab)."""
    due = _before(task, now)
    while due is not None and task.is_quiet and is_quiet(due):
        due = _before(task, _midnight(due) + dt.timedelta(seconds=QUIET_FROM_S) - _INSTANT)
    return due


def next_due(task: Planned, after: dt.datetime) -> dt.datetime | None:
    """The first tick after a time; None where there will be none in a year."""
    due = _after(task, after)
    while due is not None and task.is_quiet and is_quiet(due):
        if due - after > dt.timedelta(days=366):
            return None
        due = _after(task, _midnight(due) + dt.timedelta(seconds=QUIET_TO_S) - _INSTANT)
    return due


def is_quiet(time: dt.datetime) -> bool:
    """True from 11:00 to 11:15 UTC."""
    return QUIET_FROM_S <= (time - _midnight(time)).total_seconds() < QUIET_TO_S


class Ticks:
    """The newest tick of a task for somebody who asks each second: worked out anew only when the clock has left the time
    up to the next one, whichever way."""

    def __init__(self, task: Planned) -> None:
        self._task = task
        self._known: tuple[dt.datetime | None, dt.datetime, dt.datetime] = (None, _EPOCH, _EPOCH)

    def newest(self, now: dt.datetime) -> dt.datetime | None:
        """What `last_due` says."""
        due, begin, end = self._known
        if not begin <= now < end:
            due = last_due(self._task, now)
            self._known = due, due or now, next_due(self._task, now) or now + dt.timedelta(seconds=_DAY_S)
        return due


class Every(BaseTrigger):  # type: ignore[misc]
    """Again and again, for what no plan knows of. APScheduler's own interval counts each time that a clock which was set
    forward has left out (in ten years, of one each second, until the memory is full), and none before it was made."""

    def __init__(self, seconds: float) -> None:
        self._every = dt.timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime:
        """One interval after the time before; where that is past, after now."""
        following = (previous_fire_time or now) + self._every
        return following if now < following <= now + self._every else now + self._every


def _before(task: Planned, time: dt.datetime) -> dt.datetime | None:
    """The newest tick up to a time, quiet or not."""
    if isinstance(task.when, float):
        return _interval_tick(task.offset_s, task.when, time)
    for days in (0.01, 0.1, 2, 62, 400):
        due, following = None, _after(task, time - dt.timedelta(days=days))
        while following is not None and following <= time:
            due, following = following, _after(task, following)
        if due is not None:
            return due
    return None


def _after(task: Planned, time: dt.datetime) -> dt.datetime | None:
    """The first tick after a time, quiet or not."""
    if isinstance(task.when, float):
        return _interval_tick(task.offset_s, task.when, time) + dt.timedelta(seconds=task.when)
    moved = dt.timedelta(seconds=task.offset_s)
    due: dt.datetime | None = _cron(task.when).get_next_fire_time(None, time - moved + _INSTANT)
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
