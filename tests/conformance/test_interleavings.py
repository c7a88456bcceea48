"""Whoever comes first: publishers, workers, schedulers and a broker that delivers twice take turns in thousands of orders,
and in none of them is an open job left with neither a message nor a time. What then is lost, the sweep alone would find.
"""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.entities.character import CHARACTER
from esid.entities.corporation import CORPORATION
from esid.queue import dispatch as dispatching
from esid.queue.asking import Asking
from esid.queue.broker import FOLLOW_UP
from esid.queue.publish import Publisher
from esid.store import ledger, migrate, recoveries
from esid.store.connection import Store
from esid.store.model import Done, Failure

IDS = range(1, 31)
ENTITIES = (CORPORATION, CHARACTER)
#: What a step may wait for: nothing, the settling of a death, a grace, a hold.
STEPS_S = (0.0, 0.0, 0.0, 0.001, 1.0, 3.0, 11.0)
#: Calls of the ledger before which others may come.
INTERRUPTED = (
    "take", "queued", "claim", "waiting", "unpublished", "gathered", "finish", "retry", "defer", "give_back", "orphaned",
    "adopt",
)  # fmt: skip
#: Orders of events of one test.
ORDERS = 100
TESTS = [pytest.param(n * ORDERS, marks=[pytest.mark.long] if n else []) for n in range(40)]


class Turns:
    """Lets one thread at a time run, and another one whenever somebody says `turn`, as the dice have it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self._condition = threading.Condition()
        self._running: list[int] = []
        self._now = 0
        self._errors: list[BaseException] = []

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """All of them, to their ends."""
        self._running = list(range(len(tasks)))
        self._now = self.dice.choice(self._running)
        threads = [threading.Thread(target=self._task, args=(number, task)) for number, task in enumerate(tasks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if self._errors:
            raise self._errors[0]
        assert not any(thread.is_alive() for thread in threads)

    def turn(self) -> None:
        """Somebody else may go on before me."""
        mine = getattr(threading.current_thread(), "number", None)
        if mine is None:
            return
        with self._condition:
            self._now = self.dice.choice(self._running)
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._now == mine, 60)

    def _task(self, number: int, task: Callable[[], None]) -> None:
        thread: Any = threading.current_thread()
        thread.number = number
        try:
            with self._condition:
                assert self._condition.wait_for(lambda: self._now == number, 60)
            task()
        except BaseException as error:
            self._errors.append(error)
        with self._condition:
            self._running.remove(number)
            if self._running:
                self._now = self.dice.choice(self._running)
            self._condition.notify_all()


class Broker:
    """Messages in memory: (entity, ids, whether it was delivered before)."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self.waiting: list[tuple[str, list[int], bool]] = []
        self._turn = turn

    def enqueue_many(self, messages: Sequence[Any]) -> None:
        """They are there, and then their publisher hears of it."""
        self.waiting += [(one.actor_name, list(one.args[0]), False) for one in messages]
        self._turn()

    def busy(self) -> set[str]:
        """As the sweep asks."""
        return {f"x.{entity}" for entity, _, _ in self.waiting}


class World:
    """One run."""

    def __init__(self, store: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.turns = store, Turns(seed)
        self.dice = self.turns.dice
        self.broker = Broker(self.turns.turn)
        self.publisher = Publisher(store, self.broker, "x")  # type: ignore[arg-type]
        self.requests = Asking(store, self.publisher, "x")
        self.time = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
        self.faults = True
        monkeypatch.setattr(clock, "now", self.now)
        for name in INTERRUPTED:
            monkeypatch.setattr(ledger, name, self._interrupted(getattr(ledger, name)))
        monkeypatch.setattr(recoveries, "isolate", self._interrupted(recoveries.isolate))

    def now(self) -> dt.datetime:
        """Never the same twice."""
        self.time += dt.timedelta(microseconds=1)
        return self.time

    def _interrupted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def interrupted(*args: Any, **named: Any) -> Any:
            self.turns.turn()
            if self.faults:
                self.time += dt.timedelta(seconds=self.dice.choice(STEPS_S))
            return call(*args, **named)

        return interrupted

    def ask(self) -> None:
        """A person asks for some ids."""
        for entity in ENTITIES:
            ids = self.dice.sample(IDS, self.dice.choice((1, 3, 30)))
            list(self.requests.enqueue(entity, [(key, None) for key in ids]))

    def schedule(self) -> None:
        """The scheduler of a daemon."""
        for _ in range(3):
            dispatching.dispatch(self.store, self.publisher, ["corporation", "character"])  # type: ignore[arg-type]
            if self.faults and self.dice.random() < 0.3:
                dispatching.sweep(self.store, self.publisher, ["corporation", "character"], 5.0)  # type: ignore[arg-type]

    def work(self) -> None:
        """A thread of a worker."""
        for _ in range(6 if self.faults else 100):
            if self.broker.waiting:
                self._message(*self.broker.waiting.pop(self.dice.randrange(len(self.broker.waiting))))
            self.turns.turn()

    def _message(self, entity: str, ids: list[int], redelivered: bool) -> None:
        lost = self.faults and self.dice.random() < 0.3
        if lost:
            # The connection is gone, and nobody here knows: it is delivered to somebody else at once.
            self.broker.waiting.append((entity, ids, True))
        if redelivered:
            recoveries.isolate(self.store, entity, ids)
        jobs = [job.id for job in ledger.take(self.store, entity, ids)]
        end = self.dice.choice(("done", "unfinished", "failed", "held", "stopped")) if self.faults else "done"
        now = self.now()
        if end in {"done", "unfinished"}:
            expires = now + dt.timedelta(days=9)
            done = [Done(key, checked_at=now, expires_at=expires, unfinished=end != "done") for key in jobs]
            ledger.finish(self.store, entity, done)
            if end == "unfinished" and jobs:
                one = next(each for each in ENTITIES if each.name == entity)
                self.publisher.publish(one, jobs, FOLLOW_UP, in_batches=False)
        elif end == "failed":
            waits = {key: self.dice.choice((0.0, 2.0, 300.0)) for key in jobs}
            ledger.retry(self.store, entity, waits, {key: Failure("unavailable", "HTTP 502") for key in jobs})
        elif end == "held":
            ledger.defer(self.store, entity, jobs, self.dice.choice((0.0, 12.0)))
        else:
            ledger.give_back(self.store, entity, jobs, comes_back=not lost)
            if not lost:
                self.broker.waiting.append((entity, ids, True))

    def forgotten(self) -> list[tuple[Any, ...]]:
        """Open jobs that have neither a message nor a time."""
        there = {(entity, key) for entity, ids, _ in self.broker.waiting for key in ids}
        with self.store.connection():
            rows = self.store.rows(
                "SELECT entity_type, entity_id, status, updated_at FROM sync_jobs "
                "WHERE status IN ('pending', 'processing') AND due_at IS NULL"
            )
        return [row for row in rows if (row[0], row[1]) not in there]


@pytest.fixture
def one_store(tmp_path: Path) -> Iterator[Store]:
    """The turns make it one statement at a time, so that the smaller database says as much as the larger."""
    store = Store(f"sqlite:///{tmp_path / 'esid.db'}", pool_size=8)
    migrate.migrate(store)
    yield store
    store.close()


@pytest.mark.parametrize("first", TESTS)
def test_no_order_of_events_leaves_an_open_job_with_neither_a_message_nor_a_time(one_store: Store, first: int) -> None:
    for seed in range(first, first + ORDERS):
        with pytest.MonkeyPatch.context() as patch:
            one_store.run(partial(_empty, one_store))
            world = World(one_store, seed, patch)
            world.turns.run([world.ask, world.ask, world.schedule, world.work, world.work, world.work])
            assert world.forgotten() == [], seed

            # And when nothing fails any more, everything is done, with nobody's help
            world.faults = False
            for _ in range(12):
                world.time += dt.timedelta(seconds=400)
                world.schedule()
                world.work()
            assert {state for states in ledger.counts(one_store).values() for state in states} == {"completed"}


def _empty(store: Store) -> None:
    for table in ("sync_jobs", "dead_letters", "recoveries"):
        store.rows(f"DELETE FROM {table}")
