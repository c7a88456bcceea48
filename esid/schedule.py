"""APScheduler inside the daemon: what runs when (pure), and its wiring.

Several daemons may run on one database: one of them owns the schedule of a queue (see `store.leader`), each tick is a row
that is written once, and due jobs are claimed by an atomic statement, so each is published once.
"""

from __future__ import annotations

import datetime as dt
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from esid import clock, log
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, Stopping
from esid.esi.budget import Budget
from esid.queue.progress import Progress
from esid.queue.publish import Publisher
from esid.queue.requests import Requests, dispatch, sweep
from esid.settings import duration
from esid.store import recoveries, ticks
from esid.store.connection import Store

#: Seconds between looks for intents and retries whose time has come, and for jobs without a message.
DISPATCH_S, SWEEP_S = 1.0, 60.0
#: Seconds that an open job is left alone before the sweep takes its message for lost.
QUIET_S = 300.0
_EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
#: Seconds between looks whether healing is due, and that a moment of a crontab lasts for several daemons.
LOOK_S, CRON_S = 3600.0, 50.0
_log = log.get("schedule")


@dataclass(frozen=True, slots=True)
class Planned:
    """A named job: when (an interval in seconds or a crontab expression, UTC) and whether it runs at start too.

    `phase_s` moves the ticks of an interval, so that no two installations ask ESI at the same second; `spread` lets the
    first run of an interval be at a random moment of it.
    """

    name: str
    when: float | str
    at_start: bool = False
    phase_s: float = 0.0
    spread: bool = False


def plan(schedules: Mapping[str, str], *, progress_s: float, phase_s: float = 0.0, heal: str = "off") -> tuple[Planned, ...]:
    """Every job of a daemon.

    Args:
        schedules: entity -> its setting (`10m`, a crontab expression, `off`), for the entities that it works on.
        progress_s: seconds between progress lines.
        phase_s: see `phase`.
        heal: the same for healing. An interval is looked at every hour (whether it is over is in the database), so that
            a daemon that is started anew each day heals too.
    """
    syncs = [
        Planned(f"sync_{entity}", _when(text), at_start=True, phase_s=phase_s)
        for entity, text in schedules.items()
        if text != "off"
    ]
    if heal != "off":
        when = _when(heal)
        syncs.append(Planned("heal", min(when, LOOK_S) if isinstance(when, float) else when, spread=True))
    return (
        Planned("dispatch", DISPATCH_S, at_start=True),
        Planned("sweep", SWEEP_S),
        Planned("progress", progress_s),
        *syncs,
    )


def heals_every_s(text: str) -> float:
    """Seconds that must have passed since the last healing of any daemon; a crontab names the moments itself."""
    when = _when(text)
    # A little less, or an interval that is looked at every hour would slip by an hour each time.
    return 0.95 * when if isinstance(when, float) else CRON_S


def _when(text: str) -> float | str:
    """Seconds of `10m`; a crontab expression as it is."""
    return duration(text) if text[-1:] in "smhd" and " " not in text else text


class Scheduler:
    """Runs the plan in threads of its process. Ticks that were due while the process was frozen run once, late.

    Args:
        others: jobs of a plan that are somebody else's work, by name.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        requests: Requests,
        budget: Budget,
        queues: Sequence[str],
        may_run: Callable[[], bool] = lambda: True,
        others: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._others = dict(others or {})
        self._store, self._publisher, self._requests, self._queues = store, publisher, requests, queues
        self._may_run = may_run
        self._progress = Progress(store, budget, queues)
        self._planned: dict[str, Planned] = {}
        self._started: set[str] = set()
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler: Any = BackgroundScheduler(
            timezone=dt.UTC, job_defaults=defaults, executors={"default": ThreadPoolExecutor(4)}
        )

    def start(self, planned: Sequence[Planned]) -> None:
        """Begin; returns at once."""
        for job in planned:
            self._planned[job.name] = job
            first = {"next_run_time": clock.now()} if job.at_start else {}
            if job.spread and isinstance(job.when, float):
                offset = dt.timedelta(seconds=random.uniform(0, job.when))  # noqa: S311
                first = {"next_run_time": clock.now() + offset}
            self._scheduler.add_job(self._guarded(job.name), trigger(job), id=job.name, **first)
        self._scheduler.start()

    def stop(self, *, wait: bool = True) -> None:
        """Start nothing more; with `wait` what runs has ended on return."""
        self._scheduler.shutdown(wait=wait)

    def _guarded(self, name: str) -> Callable[[], None]:
        """A job that says once that the database or the broker is away, and tries again at its next tick."""

        def run() -> None:
            try:
                if not self._may_run():
                    return
                self._run(name)
                for thing in ("database", "rabbitmq"):
                    log.outage(thing).up(wrote=name not in {"dispatch", "progress"})
            except (DatabaseUnavailable, BrokerUnavailable) as error:
                log.outage("rabbitmq" if isinstance(error, BrokerUnavailable) else "database").down(error)
            except Stopping:
                pass
            except EsidError as error:
                log.event(_log, "schedule.failed", str(error), level=30, job=name)

        return run

    def _run(self, name: str) -> None:
        if name in self._others:
            self._others[name]()
        elif name == "dispatch":
            dispatch(self._store, self._publisher, self._queues)
        elif name == "sweep":
            recoveries.prune(self._store)
            if count := sweep(self._store, self._publisher, self._queues, QUIET_S):
                log.event(_log, "schedule.swept", "jobs without a message are published again", jobs=count)
        elif name == "progress":
            self._progress.say()
        elif self._is_first(name):
            entity = name.removeprefix("sync_")
            if count := self._requests.sync(entity):
                self._progress.began()
                jobs = "job" if count == 1 else "jobs"
                log.event(_log, "sync.started", f"{count:,} due {jobs} for ESI in the {entity} queue", entity=entity)

    def _is_first(self, name: str) -> bool:
        """True when nobody has run this tick: not even another daemon, or this one before the clock was set back.

        What runs at the start of a scheduler is no tick of its own, and always runs.
        """
        at_start = name not in self._started and self._planned[name].at_start
        self._started.add(name)
        return ticks.claim(self._store, name, last_due(self._planned[name], clock.now())) or at_start


def trigger(job: Planned) -> Any:
    """APScheduler's trigger. Intervals are counted from a fixed time, so that all daemons mean the same ticks."""
    if isinstance(job.when, float):
        return IntervalTrigger(seconds=job.when, start_date=_begin(job), timezone=dt.UTC)
    return CronTrigger.from_crontab(job.when, timezone=dt.UTC)


def last_due(job: Planned, now: dt.datetime) -> dt.datetime:
    """When the newest tick of a job was due: the same for every daemon that asks."""
    if isinstance(job.when, float):
        return _begin(job) + dt.timedelta(seconds=(now - _begin(job)).total_seconds() // job.when * job.when)
    cron, due = trigger(job), now - dt.timedelta(days=8)
    # The newest of the last week, found by halving the time in which the next one falls.
    low, high = due, now
    while (high - low).total_seconds() > 1:
        middle = low + (high - low) / 2
        next_one = cron.get_next_fire_time(None, middle)
        if next_one is not None and next_one <= now:
            low, due = middle, next_one
        else:
            high = middle
    return due


def phase(installation: str) -> float:
    """Seconds by which the ticks of one installation are moved: the same for all of its daemons."""
    return float(zlib.crc32(installation.encode()) % 86_400)


def _begin(job: Planned) -> dt.datetime:
    return _EPOCH + dt.timedelta(seconds=job.phase_s)
