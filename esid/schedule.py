"""APScheduler inside the daemon: what runs when (pure), and its wiring.

Several daemons may run it on one database: due jobs are claimed by an atomic statement, so each is published once.
"""

from __future__ import annotations

import datetime as dt
import random
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
from esid.store.connection import Store

#: Seconds between looks for intents and retries whose time has come, and for jobs without a message.
DISPATCH_S, SWEEP_S = 1.0, 60.0
#: Seconds that an open job is left alone before the sweep takes its message for lost.
QUIET_S = 300.0
#: Seconds between looks whether healing is due, and that a moment of a crontab lasts for several daemons.
LOOK_S, CRON_S = 3600.0, 50.0
_log = log.get("schedule")


@dataclass(frozen=True, slots=True)
class Planned:
    """A named job: when (an interval in seconds or a crontab expression, UTC) and whether it runs at start too.

    `spread` lets the first run of an interval be at a random moment of it: no two installations run in step.
    """

    name: str
    when: float | str
    at_start: bool = False
    spread: bool = False


def plan(schedules: Mapping[str, str], *, progress_s: float, heal: str = "off") -> tuple[Planned, ...]:
    """Every job of a daemon.

    Args:
        schedules: entity -> its setting (`10m`, a crontab expression, `off`), for the entities that it works on.
        progress_s: seconds between progress lines.
        heal: the same for healing. An interval is looked at every hour (whether it is over is in the database), so that
            a daemon that is started anew each day heals too.
    """
    syncs = [Planned(f"sync_{entity}", _when(text), at_start=True) for entity, text in schedules.items() if text != "off"]
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
        others: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._others = dict(others or {})
        self._store, self._publisher, self._requests, self._queues = store, publisher, requests, queues
        self._progress = Progress(store, budget, queues)
        self._outage = log.Outage(_log, "schedule")
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler: Any = BackgroundScheduler(
            timezone=dt.UTC, job_defaults=defaults, executors={"default": ThreadPoolExecutor(4)}
        )

    def start(self, planned: Sequence[Planned]) -> None:
        """Begin; returns at once."""
        for job in planned:
            trigger = (
                IntervalTrigger(seconds=job.when, timezone=dt.UTC)
                if isinstance(job.when, float)
                else CronTrigger.from_crontab(job.when, timezone=dt.UTC)
            )
            first = {"next_run_time": clock.now()} if job.at_start else {}
            if job.spread and isinstance(job.when, float):
                offset = dt.timedelta(seconds=random.uniform(0, job.when))  # noqa: S311
                first = {"next_run_time": clock.now() + offset}
            self._scheduler.add_job(self._guarded(job.name), trigger, id=job.name, **first)
        self._scheduler.start()

    def stop(self) -> None:
        """Start nothing more and wait for what runs."""
        self._scheduler.shutdown(wait=True)

    def _guarded(self, name: str) -> Callable[[], None]:
        """A job that says once that the database or the broker is away, and tries again at its next tick."""

        def run() -> None:
            try:
                self._run(name)
                self._outage.up()
            except (DatabaseUnavailable, BrokerUnavailable) as error:
                self._outage.down(error)
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
            if count := sweep(self._store, self._publisher, self._queues, QUIET_S):
                log.event(_log, "schedule.swept", "jobs without a message are published again", jobs=count)
        elif name == "progress":
            self._progress.say()
        else:
            entity = name.removeprefix("sync_")
            if count := self._requests.sync(entity):
                log.event(_log, "sync.started", f"{count:,} due jobs of the {entity} queue go to ESI", entity=entity)
