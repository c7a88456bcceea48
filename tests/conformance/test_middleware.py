"""What becomes of messages whose work fails in ways that no entity knows: it is counted, kept, and says why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, SkipMessage

from esid import clock
from esid.clock import Stop
from esid.entities import BY_NAME
from esid.entities.base import Failed
from esid.entities.corporation import CORPORATION
from esid.errors import DatabaseUnavailable, Held, NotFound, Stopping
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.queue.attempts import LONGEST_WAIT_S, wait_s
from esid.queue.broker import FOLLOW_UP, open_broker, queue_name
from esid.queue.dispatch import dispatch
from esid.queue.middleware import crashes, hold
from esid.queue.middleware.crashes import Crashes
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.middleware.hold import Hold
from esid.queue.publish import Publisher
from esid.queue.work import BadMessage, Work
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Done, Job, Seen, utc_time
from tests.tools.waiting import wait_until

QUEUE = queue_name("t", "corporation")
DAY = dt.timedelta(days=1)


@pytest.fixture
def broker(store: Store, tmp_path: Path) -> Iterator[Any]:
    """A broker with all of our middleware and no actor yet."""
    budget = Budget(tmp_path / "budget", Limits())
    client, stop = Client("http://127.0.0.1:1", budget), Stop()
    middleware = [CurrentMessage(), Hold(store, client, stop), Crashes(store), DeadLetters(store)]
    made: Any = open_broker(store, "", "t", middleware)
    made.budget, made.stop, made.client = budget, stop, client
    yield made
    stop.set()
    budget.close()


def pause(broker: Any, seconds: float) -> None:
    """ESI has said 420."""
    with broker.budget.shared.locked():
        broker.budget.pause(seconds, clock.monotonic())


def work(store: Store, broker: Any, error: BaseException, *ids: int, until: Any) -> None:
    """Ask for ids and let a worker run an actor that raises `error`."""

    def actor(_: list[int]) -> None:
        raise error

    run(store, broker, actor, *ids, until=until)


def answer(
    store: Store, broker: Any, sync: Callable[[Sequence[Job]], Iterator[Done | Failed]], *ids: int, until: Any
) -> None:
    """Ask for ids and let a worker do its work, for which ESI answers as `sync` says."""
    unit = Work(store, broker.client, Publisher(store, broker, "t"), ["corporation"], broker.stop)
    entity = replace(CORPORATION, sync=lambda _, jobs, __: sync(jobs))

    def actor(part: list[int]) -> None:
        message: Any = CurrentMessage.get_current_message()
        message.outcome = unit.perform(entity, part)

    run(store, broker, actor, *ids, until=until)


def run(store: Store, broker: Any, actor: Callable[[list[int]], None], *ids: int, until: Any) -> None:
    """Ask for ids and let a worker run an actor."""
    broker.actors.pop("corporation", None)
    dramatiq.actor(actor, broker=broker, actor_name="corporation", queue_name=QUEUE)
    accepted = ledger.request(store, [Seen("corporation", key) for key in ids])
    Publisher(store, broker, "t").publish(BY_NAME["corporation"], accepted.queued, FOLLOW_UP)
    worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_until(until, 15, "the outcome")
    finally:
        worker.stop()


def job(store: Store, key: int) -> dict[str, Any]:
    """One job."""
    found = ledger.job(store, "corporation", key)
    assert found
    return found


@pytest.mark.parametrize(
    "crash", [RuntimeError("boom"), MemoryError(), RecursionError(), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_an_error_of_our_own_is_an_attempt_and_the_worker_lives(store: Store, broker: Any, crash: BaseException) -> None:
    work(store, broker, crash, 1, until=lambda: job(store, 1)["retry_count"] == 1)
    assert job(store, 1)["status"] == "pending"
    assert str(job(store, 1)["error"]).startswith("crash: ")
    assert job(store, 1)["due_at"] is not None
    assert broker.depths()[QUEUE] == 0


def test_of_a_message_that_crashes_the_guilty_id_alone_is_given_up(
    store: Store, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given 300 ids in one message, and one among them that crashes whatever message it is in
    character, guilty, sizes = BY_NAME["character"], 2_112_000_137, list[int]()
    ids = list(range(2_112_000_001, 2_112_000_301))
    monkeypatch.setattr(crashes, "wait_s", lambda _: 0.0)

    def actor(part: list[int]) -> None:
        jobs = ledger.take(store, "character", part)
        sizes.append(len(jobs))
        if any(job.id == guilty for job in jobs):
            raise RuntimeError("boom")
        ledger.finish(store, "character", [Done(job.id) for job in jobs])

    queue = queue_name("t", "character")
    dramatiq.actor(actor, broker=broker, actor_name="character", queue_name=queue)
    publisher = Publisher(store, broker, "t")
    publisher.publish(character, ledger.request(store, [Seen("character", key) for key in ids]).queued, FOLLOW_UP)
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=1, worker_timeout=50)
    worker.start()

    def is_over() -> bool:
        dispatch(store, publisher, ["character"])
        return ledger.counts(store)["character"] == {"completed": 299, "failed": 1}

    try:
        wait_until(is_over, 60, lambda: str(ledger.counts(store)))
    finally:
        worker.stop()

    # Then it alone is a dead letter, after three attempts of its own, and the halves without it went whole
    assert [(one.entity_id, one.reason, one.attempts) for one in dead_letters.find(store, Filter())] == [
        (guilty, "crash", 3)
    ]
    assert sizes[0] == 300
    assert len(sizes) <= 50


def test_the_third_crash_is_a_dead_letter_with_its_traceback(store: Store, broker: Any) -> None:
    for attempt in (1, 2, 3):
        work(store, broker, RuntimeError("boom"), 1, until=lambda attempt=attempt: job(store, 1)["retry_count"] == attempt)
        ledger.defer(store, "corporation", [1], 0.0) if attempt < 3 else None
    (letter,) = dead_letters.find(store, Filter())
    assert (letter.entity_id, letter.reason, letter.attempts) == (1, "crash", 3)
    assert "RuntimeError: boom" in str(letter.traceback)


def test_what_the_budget_holds_waits_uncounted(store: Store, broker: Any) -> None:
    def held(_: Sequence[Job]) -> Iterator[Done | Failed]:
        raise Held(30.0, "bucket")
        yield

    answer(store, broker, held, 1, 2, until=lambda: job(store, 2)["status"] == "pending" and _waits_s(store, 2) > 20)
    assert job(store, 1)["retry_count"] == 0
    assert broker.depths()[QUEUE] == 0
    assert dead_letters.find(store, Filter()) == []


def test_a_message_is_not_begun_while_esi_lets_nothing_leave(store: Store, broker: Any) -> None:
    begun: list[int] = []
    dramatiq.actor(begun.extend, broker=broker, actor_name="corporation", queue_name=QUEUE)
    pause(broker, 1.0)
    ends_at = clock.monotonic() + 1.0
    Publisher(store, broker, "t").publish(BY_NAME["corporation"], [1], FOLLOW_UP)
    worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_until(lambda: begun, 15, "the end of the pause")
        assert clock.monotonic() >= ends_at
    finally:
        worker.stop()


def test_the_time_in_a_workers_memory_counts_as_held(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # What was delivered long ago and waited behind others goes back at its turn, and not a whole hold later.
    pause(broker, 60.0)
    holding = next(one for one in broker.middleware if isinstance(one, Hold))
    message = SimpleNamespace(actor_name="corporation", received_at=clock.monotonic() - hold.LONGEST_HOLD_S, requeue=False)
    begun = clock.monotonic()
    with pytest.raises(SkipMessage):
        holding.before_process_message(broker, message)
    assert message.requeue
    assert clock.monotonic() - begun < 5


def test_a_message_that_is_held_for_too_long_goes_back_uncounted(
    store: Store, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "LONGEST_HOLD_S", 0.2)
    dramatiq.actor(print, broker=broker, actor_name="corporation", queue_name=QUEUE)
    pause(broker, 60.0)
    accepted = ledger.request(store, [Seen("corporation", 1)])
    Publisher(store, broker, "t").publish(BY_NAME["corporation"], accepted.queued, FOLLOW_UP)
    worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_until(lambda: _deliveries(store) > 2, 15, "some deliveries")
    finally:
        broker.stop.set()
        worker.stop()
    assert (job(store, 1)["status"], job(store, 1)["retry_count"]) == ("pending", 0)
    assert dead_letters.find(store, Filter()) == []


def not_found(jobs: Sequence[Job]) -> Iterator[Done | Failed]:
    """ESI knows none of them."""
    for one in jobs:
        yield Failed(one, NotFound("HTTP 404", status=404))


def _waits_s(store: Store, key: int) -> float:
    due_at = utc_time(job(store, key)["due_at"])
    return (due_at - clock.now()).total_seconds() if due_at else 0.0


def _deliveries(store: Store) -> int:
    with store.connection():
        rows = store.rows("SELECT deliveries FROM messages")
    return int(rows[0][0]) if rows else 0


def test_one_404_of_what_was_there_is_no_death(store: Store, broker: Any) -> None:
    now = clock.now()
    ledger.request(store, [Seen("corporation", 1)])
    ledger.take(store, "corporation", [1])
    ledger.finish(store, "corporation", [Done(1, checked_at=now - DAY, expires_at=now - DAY)])
    answer(store, broker, not_found, 1, until=lambda: job(store, 1)["retry_count"] == 1)
    assert 270 < _waits_s(store, 1) <= 300
    assert dead_letters.find(store, Filter()) == []
    ledger.defer(store, "corporation", [1], -1.0)
    answer(store, broker, not_found, 1, until=lambda: job(store, 1)["retry_count"] == 2)
    ledger.defer(store, "corporation", [1], -1.0)
    answer(store, broker, not_found, 1, until=lambda: job(store, 1)["status"] == "failed")
    assert [letter.reason for letter in dead_letters.find(store, Filter())] == ["not_found"]


def test_a_database_that_was_away_gives_the_message_back_uncounted(store: Store, broker: Any) -> None:
    ran: list[int] = []

    def actor(ids: list[int]) -> None:
        ran.extend(ids)
        if len(ran) == 1:
            raise DatabaseUnavailable("away")

    dramatiq.actor(actor, broker=broker, actor_name="corporation", queue_name=QUEUE)
    Publisher(store, broker, "t").publish(BY_NAME["corporation"], [1], FOLLOW_UP)
    worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_until(lambda: ran == [1, 1], 15, "the second delivery")
    finally:
        worker.stop()
    assert dead_letters.find(store, Filter()) == []


@pytest.mark.parametrize("arguments", [BadMessage("no list"), BadMessage("'x'")], ids=str)
def test_arguments_that_are_no_ids_are_a_dead_letter(store: Store, broker: Any, arguments: BadMessage) -> None:
    work(store, broker, arguments, 1, until=lambda: dead_letters.find(store, Filter()))
    (letter,) = dead_letters.find(store, Filter())
    assert (letter.reason, letter.message) == ("bad_message", str(arguments))
    assert '"corporation"' in str(letter.body)


def test_one_failed_id_leaves_the_others_of_its_message_alone(store: Store, broker: Any) -> None:
    def first_fails(jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        yield from not_found(jobs[:1])
        yield Done(jobs[1].id)

    answer(store, broker, first_fails, 1, 2, until=lambda: job(store, 1)["status"] == "failed")
    assert job(store, 2)["status"] == "completed"
    assert job(store, 2)["error"] is None


def test_a_stop_gives_the_message_back_with_what_was_not_asked(store: Store, broker: Any) -> None:
    # Given a stop that comes after the first of three ids was answered
    def stopped(jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        yield from (Done(one.id) for one in jobs if one.id == 1)
        raise Stopping("a stop")

    answer(store, broker, stopped, 1, 2, 3, until=lambda: ledger.states(store, "corporation", [1]) == [(1, "completed")])

    # Then the others are as they were, and their message is there for the next start
    assert [(key, job(store, key)["status"], job(store, key)["due_at"]) for key in (2, 3)] == [
        (2, "pending", None),
        (3, "pending", None),
    ]
    assert broker.depths()[QUEUE] == 1


def test_waits_double_from_two_seconds_to_five_minutes_with_full_jitter() -> None:
    for attempt, most in ((1, 2), (2, 4), (3, 8), (8, 256), (9, LONGEST_WAIT_S), (50, LONGEST_WAIT_S)):
        waits = [wait_s(attempt) for _ in range(500)]
        assert 0 <= min(waits) < most * 0.1
        assert most * 0.9 < max(waits) <= most
