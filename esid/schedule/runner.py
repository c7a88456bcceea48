"""What runs, in threads of APScheduler: errands every few seconds, and the tasks of the plan (see `esid.schedule.plan`).

One look a second finds the tasks whose newest tick nobody is known to have claimed. It asks the plan and not the database;
the task's own thread claims the tick then. A tick is a row that is written once, so it runs once however many daemons there
are. What is late, was left out by a clock that was set, has failed, died or never run is due at the next look as well.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from esid import clock, log
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, Stopping
from esid.schedule.plan import Every, Planned, Ticks
from esid.store import ticks
from esid.store.connection import Store

#: Seconds from one look to the next. Errands that are as frequent run at the start as well.
LOOK_S = 1.0
#: Seconds after which a task is tried again that the database or the broker has kept from running.
AGAIN_S = 5.0
#: Seconds after which a task that has failed is tried again, where its next tick is later than that; and in which a task
#: that has never run is run at the latest.
FAILED_S, FIRST_S = 3600.0, 3600.0
#: Seconds for which an errand may run on beyond its next time before that is said.
STILL_S = 300.0
#: Seconds by which the wall clock must differ from the monotonic one to have been set.
SET_S = 1.0
#: Threads for tasks: of the store's four connections one stays for errands, which have threads of their own.
THREADS = 3
#: What a task does; it says in words what it did.
Work = Callable[[], str]
#: APScheduler's name of the look; and a time at which a job is due whatever the clock shows.
_LOOK, _AT_ONCE = "look", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_log = log.get("schedule")


class _Task:
    """A task and what this process knows of its ticks.

    Attributes:
        seen: the newest tick that somebody has claimed, or that is not to be run.
        at_s: when it runs whatever its ticks, on the monotonic clock: at a start, after a failure, after its process died.
        again_s: not before then: the database or the broker is away.
        due_at: the tick that this process has claimed and not ended: it is tried again until it ends.
    """

    def __init__(self, planned: Planned) -> None:
        self.planned, self.name, self._ticks = planned, planned.name, Ticks(planned)
        self.seen: dt.datetime | None = None
        self.due_at: dt.datetime | None = None
        self.at_s, self.again_s, self.is_running = math.inf, 0.0, False

    def replanned(self, planned: Planned) -> _Task:
        """Itself, with the times that are planned now: at a takeover the database may tell what it could not before."""
        if planned != self.planned:
            self.planned, self._ticks = planned, Ticks(planned)
        return self

    @property
    def newest(self) -> dt.datetime | None:
        """Its newest tick."""
        return self._ticks.newest(clock.now())

    def is_due(self) -> bool:
        """Whether there may be something to claim. Asks no database."""
        now_s = clock.monotonic()
        is_open = self.due_at is not None or self.at_s <= now_s or self.newest != self.seen
        return is_open and self.again_s <= now_s and not self.is_running

    def misses(self) -> bool:
        """True once for a tick whose time has come while the one before it still runs: it is left out."""
        newest = self.newest
        if not self.is_running or newest == self.seen:
            return False
        self.seen = newest
        return True

    def begin(self, ran: ticks.Ran | None) -> None:
        """It is ours from now on, and ran last as said. Its newest tick is late where that was a tick before it."""
        due, when = self.newest, self.planned.when
        self.seen = None if ran and due and ran.due_at < due else due
        if self.planned.at_start:
            self.at_s = clock.monotonic()
        elif ran is None:
            # A daemon that is started anew each day would never see the tick of a daily task.
            first_s = min(self.planned.offset_s % FIRST_S, when if isinstance(when, float) else FIRST_S)
            self.at_s = clock.monotonic() + first_s

    def claim(self, store: Store) -> bool:
        """True when there is a tick to run: what is in hand, the newest, or one of its own where it runs whatever those."""
        newest = self.newest
        for due_at in (newest, clock.now() if self.at_s <= clock.monotonic() else None):
            if self.due_at is None and due_at is not None and ticks.claim(store, self.name, due_at):
                self.due_at = due_at
        self.seen, self.at_s = newest, math.inf
        return self.due_at is not None

    def run(self, store: Store, work: Work) -> None:
        """Claim a tick and run it. What database or broker keep from running stays in hand."""
        try:
            if self.claim(store) and self.due_at:
                self.is_running = True
                run(store, self.name, self.due_at, work)
                self.due_at = None
        except (DatabaseUnavailable, BrokerUnavailable, Stopping):
            self.again_s = clock.monotonic() + AGAIN_S
            raise
        except Exception:
            # A daily task need not wait for a day.
            self.due_at, self.seen, self.at_s = None, self.newest, clock.monotonic() + FAILED_S
            raise
        finally:
            self.is_running = False


class _Duty:
    """The tasks that are ours for now.

    Attributes:
        ask_s: when the table of ticks is asked what went before, on the monotonic clock; below 0 it was not yet.
    """

    def __init__(self, tasks: Sequence[_Task] = ()) -> None:
        self.tasks, self.ask_s = tasks, -1.0

    def ask(self, store: Store) -> None:
        """Find out what is late and which process has died with its tick; of one elsewhere that shows after a while."""
        died, newest = ticks.interrupted(store), ticks.newest_runs(store)
        for task in self.tasks:
            if self.ask_s < 0:
                task.begin(newest.get(task.name))
            if task.name in died:
                task.at_s = clock.monotonic()
        is_open = any(ran.ended_at is None for ran in newest.values())
        self.ask_s = clock.monotonic() + ticks.SILENT_S if is_open else math.inf


class Scheduler:
    """Runs errands, and the tasks that it is given.

    Args:
        works: what each task of a plan does, by name.
        errands: what is nobody's to plan: name -> (seconds from one run to the next, what to do).
        may_run: asked before each run.
    """

    def __init__(
        self,
        store: Store,
        works: Mapping[str, Work],
        errands: Mapping[str, tuple[float, Callable[[], object]]],
        may_run: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._works, self._may_run = store, works, may_run
        self._known: dict[str, _Task] = {}
        self._duty, self._is_stopping = _Duty(), False
        self._clock_s = _wall_less_monotonic()
        self._skipped_since: dict[str, float] = {}
        self._pools = {"default": ThreadPoolExecutor(len(errands) + 1), "tasks": ThreadPoolExecutor(THREADS)}
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler: Any = BackgroundScheduler(timezone=dt.UTC, job_defaults=defaults, executors=self._pools)
        self._scheduler.add_listener(self._is_skipped, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._has_ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        self._add_often(_LOOK, LOOK_S, self._look)
        for name, (every_s, errand) in errands.items():
            self._add_often(name, every_s, errand)

    def start(self, planned: Sequence[Planned] = ()) -> None:
        """Begin; returns at once."""
        if planned:
            self.serve(planned)
        self._scheduler.start()

    def serve(self, planned: Sequence[Planned]) -> None:
        """From now on these are the tasks. What is marked so runs once now; what runs goes on to its end."""
        self._duty = _Duty([self._known.setdefault(one.name, _Task(one)).replanned(one) for one in planned])

    def stop(self) -> None:
        """Start nothing more, nor what waits for a thread; what runs has ended on return."""
        self._is_stopping = True
        self._scheduler.pause()
        self._scheduler.remove_all_jobs()
        # With `wait` it would hold locks meanwhile that a look needs to come to its end.
        self._scheduler.shutdown(wait=False)
        for pool in self._pools.values():
            pool.shutdown(wait=True)

    def check_clock(self) -> None:
        """To be called each second: APScheduler would wait for the old time of a wall clock that was set back."""
        clock_s, before_s = _wall_less_monotonic(), self._clock_s
        if abs(clock_s - before_s) < SET_S:
            return
        self._clock_s = clock_s
        log.event(_log, "schedule.clock_set", "the clock was set; no tick is lost or repeated", by_s=clock_s - before_s)
        now = clock.now()
        for job in self._scheduler.get_jobs():
            if isinstance(job.trigger, Every):
                job.modify(next_run_time=job.trigger.get_next_fire_time(None, now))

    def _add_often(self, name: str, every_s: float, work: Callable[[], object]) -> None:
        first = {"next_run_time": clock.now()} if every_s <= LOOK_S else {}
        self._scheduler.add_job(self._guarded, Every(every_s), (name, work), id=name, name=name, **first)

    def _look(self) -> None:
        """Have what is due run."""
        duty = self._duty
        if duty.tasks and duty.ask_s <= clock.monotonic() and self._may_run():
            duty.ask(self._store)
        for task in duty.tasks if duty.ask_s >= 0 else ():
            if task.misses():
                self._say_still_runs(task.name)
            elif task.is_due():
                args = task.name, partial(task.run, self._store, self._works[task.name])
                once = {"id": task.name, "name": task.name, "next_run_time": _AT_ONCE, "replace_existing": True}
                self._scheduler.add_job(self._guarded, args=args, executor="tasks", **once)

    def _guarded(self, name: str, work: Callable[[], object]) -> None:
        """Do it if we may; say once that the database or the broker is away, and what else has failed."""
        try:
            if not self._is_stopping and (name == _LOOK or self._may_run()):
                work()
        except (DatabaseUnavailable, BrokerUnavailable) as error:
            log.outage("rabbitmq" if isinstance(error, BrokerUnavailable) else "database").down(error)
        except Stopping:
            return
        except EsidError as error:
            log.event(_log, "schedule.failed", str(error), level=logging.WARNING, job=name)

    def _is_skipped(self, event: Any) -> None:
        """An errand's time came while it was still running: said where it takes long for what it does."""
        if event.job_id not in self._works:
            since = self._skipped_since.setdefault(event.job_id, clock.monotonic())
            if clock.monotonic() - since >= STILL_S:
                self._say_still_runs(event.job_id)

    def _say_still_runs(self, name: str) -> None:
        """Once for each run."""
        if self._skipped_since.get(name) != math.inf:
            self._skipped_since[name] = math.inf
            words = "its time has come again and it still runs; until it ends it is not begun anew"
            log.event(_log, "schedule.still_runs", words, level=logging.WARNING, job=name)

    def _has_ended(self, event: Any) -> None:
        self._skipped_since.pop(event.job_id, None)


def run(store: Store, name: str, due_at: dt.datetime, work: Work) -> str:
    """Do the work of a claimed tick and note what came of it; returns that in words.

    Raises:
        EsidError: the work has failed; that is noted but for a database or a broker that is away.
    """
    try:
        words = work()
    except (DatabaseUnavailable, BrokerUnavailable, Stopping):
        raise
    except Exception as error:
        words = str(error) if isinstance(error, EsidError) else f"{type(error).__name__}: {error}"
        ticks.end(store, name, due_at, "failed", words)
        raise
    ticks.end(store, name, due_at, "done", words)
    return words


def run_now(store: Store, name: str, work: Work) -> str:
    """Run a task that a person asks for, as a tick of its own; what it did, in words. Raises EsidError."""
    now = clock.now()
    ticks.claim(store, name, now)
    try:
        return run(store, name, now, work)
    except (DatabaseUnavailable, BrokerUnavailable, Stopping) as error:
        ticks.end(store, name, now, "failed", str(error))
        raise


def _wall_less_monotonic() -> float:
    return clock.now().timestamp() - clock.monotonic()
