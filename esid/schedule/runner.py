"""APScheduler inside the daemon: runs the plan (see `esid.schedule.plan`) in threads of its process.

Several daemons may run on one database: one of them owns the schedule of a queue (see `store.leader`), each tick is a row
that is written once, and due jobs are claimed by an atomic statement, so each is published once.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from esid import clock, log
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, Stopping
from esid.schedule.plan import DISPATCH_S, Every, Planned, Ticks, last_due, next_due
from esid.store import ticks
from esid.store.connection import Store

#: Seconds after which a job is tried again that the database or the broker has kept from running.
AGAIN_S = 5.0
#: Seconds after which a job that has failed is tried again, where its next tick is later than that; and in which a job
#: that has never run is run at the latest.
FAILED_S, FIRST_S = 3600.0, 3600.0
#: Seconds for which an errand may run on beyond its next time before that is said.
STILL_S = 300.0
#: Seconds by which the wall clock must differ from the monotonic one to have been set.
SET_S = 1.0
#: A job: does its work and says in words what it did.
Work = Callable[[], str]
_log = log.get("schedule")


class _Background(BackgroundScheduler):  # type: ignore[misc]
    """APScheduler's thread; a job that a shutdown takes away while it is looked at is no error."""

    def _process_jobs(self) -> float | None:
        try:
            wait_s: float | None = super()._process_jobs()
        except JobLookupError:
            return 0.0
        return wait_s


class _Pool(ThreadPoolExecutor):  # type: ignore[misc]
    """APScheduler's threads, whose end can be waited for without its locks: a job that runs may plan another."""

    def join(self) -> None:
        """Wait for what runs, after a shutdown."""
        self._pool.shutdown(wait=True)


class InHand:
    """The ticks that this process has claimed and not ended, for a scheduler and those that follow it.

    Attributes:
        due: when each was due. What database or broker has kept from running is tried again.
    """

    def __init__(self) -> None:
        self.due: dict[str, dt.datetime] = {}
        self._locks: dict[str, threading.Lock] = {}

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """True for one at a time who looks after this job; a scheduler that has ended may still run it."""
        lock = self._locks.setdefault(name, threading.Lock())
        is_alone = lock.acquire(blocking=False)
        try:
            yield is_alone
        finally:
            if is_alone:
                lock.release()


class Scheduler:
    """Runs jobs. Ticks that were due while the process was frozen, or the clock set forward, run once, late.

    Args:
        works: what each job of a plan does, by name.
        errands: jobs that are nobody's to plan: name -> (seconds from one run to the next, what to do).
        may_run: asked before each run.
        in_hand: what the scheduler before this one has left, which is run here, too.
    """

    def __init__(
        self,
        store: Store,
        works: Mapping[str, Work],
        errands: Mapping[str, tuple[float, Callable[[], object]]],
        may_run: Callable[[], bool] = lambda: True,
        in_hand: InHand | None = None,
    ) -> None:
        self._store, self._works, self._errands, self._may_run = store, dict(works), dict(errands), may_run
        self._planned: dict[str, Planned] = {}
        self._in_hand = in_hand or InHand()
        self._clock_s = _wall_less_monotonic()
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._pool = _Pool(4)
        self._scheduler: Any = _Background(timezone=dt.UTC, job_defaults=defaults, executors={"default": self._pool})
        self._skipped_since: dict[str, float] = {}
        self._scheduler.add_listener(self._is_skipped, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._has_ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)

    def start(self, planned: Sequence[Planned]) -> None:
        """Begin; returns at once. What is marked so runs once at the start, and so does what its process has died of."""
        for name, (every_s, errand) in self._errands.items():
            first = {"next_run_time": clock.now()} if every_s <= DISPATCH_S else {}
            self._scheduler.add_job(self._guarded(name, errand), Every(every_s), id=name, **first)
        for job in planned:
            self._planned[job.name] = job
            self._scheduler.add_job(self._ticking(job), Ticks(job), id=job.name)
            if job.at_start:
                self._once(job, clock.now(), "at_start")
            elif job.name in self._in_hand.due:
                self._tick_at(job, clock.now(), "again")
        self._look_for_late(clock.now())
        self._scheduler.start()

    def stop(self, *, wait: bool = True) -> None:
        """Start nothing more; with `wait` what runs has ended on return."""
        self._scheduler.shutdown(wait=False)
        if wait:
            self._pool.join()

    def check_clock(self) -> None:
        """To be called each second: after the wall clock was set, every job looks anew when it is due."""
        clock_s, before_s = _wall_less_monotonic(), self._clock_s
        if abs(clock_s - before_s) < SET_S:
            return
        self._clock_s = clock_s
        log.event(_log, "schedule.clock_set", "the clock was set; no tick is lost or repeated", by_s=clock_s - before_s)
        now = clock.now()
        for job in self._scheduler.get_jobs():
            if clock_s < before_s and job.next_run_time:
                # What is to be done once, in a while, waits as long as it would have.
                shifted = job.next_run_time + dt.timedelta(seconds=clock_s - before_s)
                is_repeated = job.id in {*self._planned, *self._errands}
                job.modify(next_run_time=job.trigger.get_next_fire_time(None, now) if is_repeated else shifted)
        self._scheduler.wakeup()

    def _is_skipped(self, event: Any) -> None:
        """Its time came while it was still running: said once, where it takes long for what it does."""
        now, name = clock.monotonic(), event.job_id
        skipped_s = now - self._skipped_since.setdefault(name, now)
        if skipped_s >= (STILL_S if name in self._errands else 0.0):
            self._skipped_since[name] = math.inf
            words = "its time has come again and it still runs; until it ends it is not begun anew"
            log.event(_log, "schedule.still_runs", words, level=logging.WARNING, job=name)

    def _has_ended(self, event: Any) -> None:
        self._skipped_since.pop(event.job_id, None)

    def _look_for_late(self, at: dt.datetime) -> None:
        look = self._guarded("late", self._run_late, again=lambda: self._look_for_late(_in_a_while()))
        self._scheduler.add_job(look, next_run_time=at, id="late", replace_existing=True)

    def _run_late(self) -> None:
        """Run what is not asked for at a start anyway and whose newest tick nobody has run, or has died with."""
        died, newest = self._run_interrupted(), ticks.newest_runs(self._store)
        for job in self._planned.values():
            due = last_due(job, clock.now())
            is_late = due is not None and job.name in newest and newest[job.name].due_at < due
            if job.at_start or job.name in died:
                continue
            if is_late:
                self._tick_at(job, clock.now(), "late")
            elif job.name not in newest:
                # A daemon that is started anew each day would never see the tick of a daily job.
                first_s = min(job.offset_s % FIRST_S, job.when if isinstance(job.when, float) else FIRST_S)
                self._tick_at(job, clock.now() + dt.timedelta(seconds=first_s), "first")

    def _run_interrupted(self) -> list[str]:
        """Run what its process has died with, and look again for as long as somebody may have died: their names."""
        died = ticks.interrupted(self._store)
        for name in died:
            if name in self._planned and not self._planned[name].at_start:
                self._once(self._planned[name], clock.now(), "late")
        if any(run.ended_at is None for run in ticks.newest_runs(self._store).values()):
            at = clock.now() + dt.timedelta(seconds=ticks.SILENT_S)
            look = self._guarded("interrupted", self._run_interrupted)
            self._scheduler.add_job(look, next_run_time=at, id="interrupted", replace_existing=True)
        return died

    def _once(self, job: Planned, at: dt.datetime, kind: str) -> None:
        self._scheduler.add_job(self._at_once(job), next_run_time=at, id=f"{job.name}/{kind}", replace_existing=True)

    def _at_once(self, job: Planned) -> Callable[[], None]:
        """A run at the start: it is the newest tick, where nobody has run that, else one of its own."""

        def again() -> None:
            self._once(job, _in_a_while(), "again")

        def work() -> None:
            now = clock.now()
            with self._in_hand.alone(job.name) as is_alone:
                if not is_alone:
                    again()
                elif self._claim(job.name, last_due(job, now)) or self._claim(job.name, now):
                    self._run_claimed(job.name)

        return self._guarded(job.name, work, again)

    def _ticking(self, job: Planned) -> Callable[[], None]:
        """A run of the newest tick, if nobody has run it: not another daemon, nor this one before the clock was set."""

        def again() -> None:
            self._tick_at(job, _in_a_while(), "again")

        def work() -> None:
            with self._in_hand.alone(job.name) as is_alone:
                if not is_alone:
                    again()
                elif self._claim(job.name, last_due(job, clock.now())):
                    self._run_claimed(job.name)

        return self._guarded(job.name, work, again)

    def _tick_at(self, job: Planned, at: dt.datetime, kind: str) -> None:
        """Look at some time whether the newest tick has been run."""
        tick = self._ticking(job)
        self._scheduler.add_job(tick, next_run_time=at, id=f"{job.name}/{kind}", replace_existing=True)

    def _claim(self, name: str, due_at: dt.datetime | None) -> bool:
        """True when this process has a tick of the job to run."""
        open_ticks = self._in_hand.due
        if name not in open_ticks and due_at is not None and ticks.claim(self._store, name, due_at):
            open_ticks[name] = due_at
        return name in open_ticks

    def _run_claimed(self, name: str) -> None:
        try:
            run(self._store, name, self._in_hand.due[name], self._works[name])
        except (DatabaseUnavailable, BrokerUnavailable, Stopping):
            raise
        except Exception:
            del self._in_hand.due[name]
            raise
        del self._in_hand.due[name]

    def _guarded(
        self, name: str, work: Callable[[], object], again: Callable[[], object] = lambda: None
    ) -> Callable[[], None]:
        """A job that says once that the database or the broker is away, and is tried again."""

        def run() -> None:
            try:
                if not self._may_run():
                    return
                work()
            except (DatabaseUnavailable, BrokerUnavailable) as error:
                log.outage("rabbitmq" if isinstance(error, BrokerUnavailable) else "database").down(error)
                again()
            except Stopping:
                return
            except EsidError as error:
                log.event(_log, "schedule.failed", str(error), level=30, job=name)
                self._try_failed_again(name)

        run.__qualname__ = name  # what APScheduler calls it where it tells of an error
        return run

    def _try_failed_again(self, name: str) -> None:
        """A daily job need not wait for a day."""
        job, at = self._planned.get(name), clock.now() + dt.timedelta(seconds=FAILED_S)
        following = next_due(job, clock.now()) if job else None
        if job and (following is None or following > at):
            self._once(job, at, "again")


def run(store: Store, name: str, due_at: dt.datetime, work: Work) -> str:
    """Do the work of a claimed tick and note what came of it; returns that in words.

    Raises:
        EsidError: the work has failed; that is noted but for a database or a broker that is away.
    """
    try:
        words = work()
    except (DatabaseUnavailable, BrokerUnavailable, Stopping):
        raise
    except EsidError as error:
        ticks.end(store, name, due_at, "failed", str(error))
        raise
    except Exception as error:
        ticks.end(store, name, due_at, "failed", f"{type(error).__name__}: {error}")
        raise
    ticks.end(store, name, due_at, "done", words)
    return words


def run_now(store: Store, name: str, work: Work) -> str:
    """Run a job that a person asks for, as a tick of its own; what it did, in words. Raises EsidError."""
    now = clock.now()
    ticks.claim(store, name, now)
    try:
        return run(store, name, now, work)
    except (DatabaseUnavailable, BrokerUnavailable, Stopping) as error:
        ticks.end(store, name, now, "failed", str(error))
        raise


def _in_a_while() -> dt.datetime:
    return clock.now() + dt.timedelta(seconds=AGAIN_S)


def _wall_less_monotonic() -> float:
    return clock.now().timestamp() - clock.monotonic()
