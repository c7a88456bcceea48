"""Worker threads wait for messages without looking up in between, and end at once all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from types import SimpleNamespace

import dramatiq
import pytest

from esid.queue.broker import PERSON
from esid.queue.database import DatabaseBroker
from esid.queue.worker import Worker, WorkQueue
from esid.store import migrate
from esid.store.connection import Store
from tests.tools.waiting import wait_until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DatabaseBroker]:
    """A broker on a file with one queue."""
    store = Store(f"sqlite:///{tmp_path / 'esid.db'}")
    migrate.migrate(store)
    made = DatabaseBroker(store, [])
    made.declare_queue("work")
    yield made
    store.close()


def item(actor: str, priority: int = 1, option: int = 0) -> SimpleNamespace:
    """A message as Dramatiq puts it into the queue of its threads."""
    message = SimpleNamespace(actor_name=actor, options={"broker_priority": option})
    return SimpleNamespace(priority=priority, message=message)


def test_whoever_waits_is_woken_once_and_for_all() -> None:
    queue, ended = WorkQueue(), []

    def wait() -> None:
        with pytest.raises(Empty):
            queue.get(timeout=0.001)
        ended.append(1)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.wake()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3
    with pytest.raises(Empty):
        queue.get()


def test_what_is_left_at_the_end_is_given_to_nobody_who_waits() -> None:
    queue, (one, two, three) = WorkQueue(), (item("alliance") for _ in range(3))
    for each in (one, two, three):
        queue.put(each)
    assert queue.get() is one
    queue.wake()
    with pytest.raises(Empty):
        queue.get()
    assert (queue.get_nowait(), queue.get_nowait()) == (two, three)


def test_kinds_are_dealt_out_in_turn_behind_lists_and_what_a_person_asks() -> None:
    # Given a queue full of alliances, of which some have been worked on
    queue = WorkQueue()
    for _ in range(8):
        queue.put(item("alliance"))
    assert [queue.get().message.actor_name for _ in range(3)] == ["alliance"] * 3

    # When corporations, a list and a person's character come
    for each in [*(item("corporation") for _ in range(3)), item("alliances", priority=0), item("character", option=PERSON)]:
        queue.put(each)

    # Then nobody waits behind all of another kind, nor may catch up what it has not asked for before
    got = [queue.get().message.actor_name for _ in range(10)]
    assert got[:2] == ["character", "alliances"]
    assert got[2:8] in (["alliance", "corporation"] * 3, ["corporation", "alliance"] * 3)
    assert got[8:] == ["alliance", "alliance"]


def test_messages_are_worked_on_and_idle_threads_end_at_once(broker: DatabaseBroker) -> None:
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def note(number: int) -> None:
        done.append(number)

    worker = Worker(broker, {"work"}, threads=8, prefetch=4)
    worker.start()
    for number in range(50):
        note.send(number)
    wait_until(lambda: len(done) == 50, 10, "all messages")
    started = time.monotonic()
    worker.stop(10_000)
    assert sorted(done) == list(range(50))
    assert time.monotonic() - started < 5
    assert not any(thread.is_alive() for thread in worker.workers)


def test_no_message_is_begun_after_a_stop(broker: DatabaseBroker) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def hold(number: int) -> None:
        begun.set()
        may_end.wait(10)
        done.append(number)

    worker = Worker(broker, {"work"}, threads=1, prefetch=10)
    worker.start()
    for number in range(5):
        hold.send(number)
    assert begun.wait(10)
    stopping = threading.Thread(target=worker.stop, args=(10_000,))
    stopping.start()
    wait_until(lambda: not worker.workers[0].running, 10, "the stop")
    may_end.set()
    stopping.join(10)
    assert done == [0]
