"""Both brokers promise the same: accepted is kept, a crash gives back, priorities count, only our queues are touched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dramatiq
import pika
import pytest

from esid.entities.corporation import CORPORATION
from esid.errors import BrokerRefused, BrokerUnavailable, DataRefused, NotPermitted, QueueMismatch
from esid.queue import consumer as rabbitmq_consumer
from esid.queue import database
from esid.queue.broker import open_broker, queue_name
from esid.queue.database import DatabaseConsumer
from esid.queue.middleware import dead_letters as middleware
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.publish import Publisher
from esid.queue.rabbitmq import RabbitBroker
from esid.queue.worker import Worker
from esid.store import dead_letters, ledger, messages, migrate
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Seen
from tests.tools.messages import message, receive
from tests.tools.ports import free_ports
from tests.tools.servers import PrivateRabbitmq, Rabbitmq
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.wire import Wire

Open = Callable[[], Any]


@pytest.fixture
def stack_store(stack: Stack) -> Iterator[Store]:
    """The database of a stack, with its schema."""
    store = Store(stack.database_url, pool_size=12)
    migrate.migrate(store)
    yield store
    store.close()


@pytest.fixture
def open_queue(stack: Stack, stack_store: Store) -> Iterator[Open]:
    """Opens a broker as one process would; all of them are closed at the end."""
    opened: list[Any] = []

    def open_one() -> Any:
        broker = open_broker(stack_store, stack.rabbitmq_url, stack.queue_prefix, [DeadLetters(stack_store)])
        broker.check()
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        for name in broker.queues:
            broker.purge(name)
        broker.close()


@pytest.fixture
def queue(stack: Stack) -> str:
    """The name of one queue."""
    return queue_name(stack.queue_prefix, "corporation")


def settle(broker: Any, queue: str, consumer: Any, left: int = 0) -> None:
    """Let the consumer write its acks."""
    wait_until(lambda: [next(consumer)] and broker.depths()[queue] == left, 10, f"{left} messages left")


def test_what_was_accepted_is_delivered_whole_and_in_order(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    sent = [message(queue, n) for n in range(50)]
    for one in sent[:5]:
        broker.enqueue(one)
    broker.enqueue_many(sent[5:])
    assert broker.depths()[queue] == 50

    consumer = broker.consume(queue, prefetch=100, timeout=200)
    got = receive(consumer, 50)
    assert [one.args[0] for one in got] == [[n] for n in range(50)]
    assert {one.actor_name for one in got} == {"corporation"}
    for one in got:
        consumer.ack(one)
    settle(broker, queue, consumer)
    consumer.close()


def test_an_unacknowledged_message_comes_back_when_its_consumer_ends(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    broker.enqueue_many([message(queue, 1), message(queue, 2)])
    first = broker.consume(queue, prefetch=2, timeout=200)
    held = receive(first, 2)
    first.ack(held[0])
    first.close()

    second = open_queue().consume(queue, prefetch=2, timeout=200)
    (again,) = receive(second, 1)
    assert again.args[0] == held[1].args[0]
    second.ack(again)
    settle(broker, queue, second)
    second.close()


def test_a_message_that_is_given_back_is_delivered_again(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    broker.enqueue(message(queue, 1))
    consumer = broker.consume(queue, prefetch=1, timeout=200)
    (one,) = receive(consumer, 1)
    one.requeue = True
    consumer.ack(one)
    (again,) = receive(consumer, 1)
    assert again.args[0] == [1]
    consumer.ack(again)
    settle(broker, queue, consumer)
    consumer.close()


def test_what_a_person_asked_for_comes_first(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    broker.enqueue_many([message(queue, n, priority=priority) for n, priority in enumerate([0, 1, 2, 0, 2])])
    consumer = broker.consume(queue, prefetch=1, timeout=200)
    order = []
    for _ in range(5):
        (one,) = receive(consumer, 1)
        order += one.args[0]
        consumer.ack(one)
    assert order == [2, 4, 1, 0, 3]
    consumer.close()


def test_prefetch_is_kept(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    broker.enqueue_many([message(queue, n) for n in range(10)])
    consumer = broker.consume(queue, prefetch=3, timeout=200)
    held = receive(consumer, 3)
    assert next(consumer) is None
    consumer.ack(held[0])
    assert len(receive(consumer, 1)) == 1
    consumer.close()


def test_of_a_queue_that_waits_for_tokens_one_message_at_a_time_is_taken(open_queue: Open, stack: Stack) -> None:
    broker, name = open_queue(), queue_name(stack.queue_prefix, "killmail")
    assert broker.slow_queues == {name}
    broker.enqueue_many([message(name, n, actor="killmail") for n in range(5)])
    consumer = broker.consume(name, prefetch=32, timeout=200)
    (held,) = receive(consumer, 1)
    assert next(consumer) is None
    consumer.ack(held)
    assert len(receive(consumer, 1)) == 1
    consumer.close()


def test_two_consumers_share_without_doubling(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    broker.enqueue_many([message(queue, n) for n in range(200)])
    got: list[int] = []
    lock = threading.Lock()

    def consume(mine: Any) -> None:
        consumer = mine.consume(queue, prefetch=5, timeout=200)
        while len(got) < 200:
            one = next(consumer)
            if one is not None:
                with lock:
                    got.extend(one.args[0])
                consumer.ack(one)
        next(consumer)
        consumer.close()

    threads = [threading.Thread(target=consume, args=(open_queue(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(200))


def test_purging_empties_our_queue_and_no_other(open_queue: Open, stack: Stack, queue: str) -> None:
    broker = open_queue()
    other = queue_name(stack.queue_prefix, "alliance")
    broker.enqueue_many([message(queue, 1), message(queue, 2), message(other, 3, actor="alliance")])
    assert broker.purge(queue) == 2
    assert (broker.depths()[queue], broker.depths()[other]) == (0, 1)


def test_publishing_from_many_threads_loses_nothing(open_queue: Open, queue: str) -> None:
    broker = open_queue()

    def publish(start: int) -> None:
        for n in range(start, start + 10):
            broker.enqueue(message(queue, n))

    threads = [threading.Thread(target=publish, args=(10 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert broker.depths()[queue] == 80


def put_bytes(broker: Any, queue: str, body: str) -> None:
    """Something on the queue that no publisher of ours made."""
    if isinstance(broker, RabbitBroker):
        broker.channel.basic_publish("", queue, body.encode())
    else:
        messages.put(broker.store, [(queue, 0, body, 0.0)])


def shaped(**changes: Any) -> Callable[[str], str]:
    """A message that is right but for some fields; of the queue that it is asked for."""

    def body(queue: str) -> str:
        right = {
            "queue_name": queue, "actor_name": "corporation", "args": [[1]], "kwargs": {}, "options": {},
            "message_id": "m", "message_timestamp": 1,
        }  # fmt: skip
        return json.dumps({**right, **changes})

    return body


@pytest.mark.parametrize(
    "body",
    [
        "no JSON at all", '{"a": 1}', "[]", "null", "gASVCgAAAAAAAACMBm9zLnN5c3RlbZQu", "[" * 200_000, "7" * 5_000,
        shaped(options=None), shaped(args=None), shaped(actor_name=["x"]), shaped(queue_name="elsewhere"),
        shaped(options={"eta": 4_000_000_000_000}), shaped(kwargs=7), shaped(message_timestamp="now"), "x" * 5_000_000,
        shaped(options={"throws": "x"}), shaped(options={"broker_priority": "x"}), shaped(options={"\ud800": 1}),
    ],
    ids=[
        "text", "object", "list", "null", "pickle", "nested", "digits", "no options", "no args", "actor is a list",
        "other queue", "delay", "kwargs", "timestamp", "5 MB",
        "option of Dramatiq", "option of another kind", "option without a name",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_a_dead_letter_and_the_rest_flows(
    open_queue: Open, stack_store: Store, queue: str, body: str | Callable[[str], str]
) -> None:
    broker = open_queue()
    body = body if isinstance(body, str) else body(queue)
    put_bytes(broker, queue, body)
    broker.enqueue(message(queue, 7))
    consumer = broker.consume(queue, prefetch=5, timeout=200)
    (good,) = receive(consumer, 1)
    assert good.args[0] == [7]
    consumer.ack(good)
    settle(broker, queue, consumer)
    consumer.close()
    (letter,) = dead_letters.find(stack_store, Filter())
    assert (letter.reason, letter.body) == ("bad_message", body[:65_536])


def test_bytes_that_cannot_be_recorded_yet_keep_no_message_waiting_and_are_not_lost(
    open_queue: Open, stack_store: Store, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a table of dead letters that takes nothing
    def refused(*_: Any) -> None:
        raise DataRefused("no such words")

    broker = open_queue()
    monkeypatch.setattr(database, "PARKED_S", 0.2)
    monkeypatch.setattr(rabbitmq_consumer, "PARKED_S", 0.2)
    put_bytes(broker, queue, "no message")
    for key in range(3):
        broker.enqueue(message(queue, key + 1))
    consumer = broker.consume(queue, prefetch=5, timeout=200)
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "add_message", refused)
        # Then the others come all the same
        for one in receive(consumer, 3):
            consumer.ack(one)
    # And when it takes something again, the bytes are recorded
    wait_until(lambda: [next(consumer), dead_letters.find(stack_store, Filter())][1], 20, "the dead letter")
    settle(broker, queue, consumer)
    consumer.close()
    (letter,) = dead_letters.find(stack_store, Filter())
    assert letter.body == "no message"


def work_through(broker: Any, queue: str, done: Callable[[], bool]) -> None:
    """Run a real worker until `done`."""
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        wait_until(done, 20, "the worker")
    finally:
        worker.stop()


def test_messages_of_ours_are_taken_whatever_release_made_them(open_queue: Open, stack: Stack, queue: str) -> None:
    broker = open_queue()
    publisher = Publisher(broker.store, broker, stack.queue_prefix)
    sent = [publisher._message(CORPORATION, [n], n, quarantined) for n, quarantined in enumerate([False, True, False])]
    broker.enqueue_many(sent)
    for options in ({}, {"broker_priority": None}):
        put_bytes(broker, queue, shaped(options=options)(queue))
    consumer = broker.consume(queue, prefetch=8, timeout=200)
    got = receive(consumer, 5)
    assert [one.options for one in got[:3]] == [one.options for one in reversed(sent)]

    # One that goes back is one of ours, too
    for one in got:
        one.requeue = True
        consumer.ack(one)
    again = receive(consumer, 5)
    assert {one.message_id for one in again} == {one.message_id for one in got}
    for one in again:
        consumer.ack(one)
    settle(broker, queue, consumer)
    consumer.close()


def test_an_unknown_actor_is_a_dead_letter_and_the_rest_flows(
    open_queue: Open, stack_store: Store, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given that nobody else learns of it within the time
    monkeypatch.setattr(middleware, "UNKNOWN_S", 0.0)
    broker = open_queue()
    got: list[list[int]] = []
    dramatiq.actor(got.append, broker=broker, actor_name="corporation", queue_name=queue)
    broker.enqueue(message(queue, 1, actor="from_the_future"))
    broker.enqueue(message(queue, 2))
    work_through(broker, queue, lambda: got == [[2]] and bool(dead_letters.find(stack_store, Filter())))
    (letter,) = dead_letters.find(stack_store, Filter())
    assert letter.reason == "unknown_actor"
    assert "from_the_future" in str(letter.body)


def test_an_unknown_actor_is_left_to_a_newer_worker_and_never_acked_away(
    open_queue: Open, stack_store: Store, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an old worker that does not know the actor of a message
    monkeypatch.setattr(middleware, "PARKED_S", 0.2)
    old = open_queue()
    got: list[list[int]] = []
    dramatiq.actor(got.append, broker=old, actor_name="corporation", queue_name=queue)
    old.enqueue(message(queue, 1, actor="from_the_future"))
    old.enqueue(message(queue, 2))
    work_through(old, queue, lambda: got == [[2]])

    # Then it is in the queue still, and a worker that knows it does it
    wait_until(lambda: old.depths()[queue] == 1, 10, "the message back in the queue")
    assert dead_letters.find(stack_store, Filter()) == []
    new = open_queue()
    dramatiq.actor(got.append, broker=new, actor_name="from_the_future", queue_name=queue)
    work_through(new, queue, lambda: got == [[2], [1]])
    wait_until(lambda: new.depths()[queue] == 0, 10, "an empty queue")


def test_an_ack_of_a_connection_that_is_gone_acks_nothing_of_the_next(open_queue: Open, queue: str, stack: Stack) -> None:
    # Given a message in hand whose consumer has lost its connection, and the same delivery tag in the next one's hands
    broker = open_queue()
    broker.enqueue_many([message(queue, 1), message(queue, 2)])
    first = broker.consume(queue, prefetch=1, timeout=200)
    (held,) = receive(first, 1)
    first.close()
    second = broker.consume(queue, prefetch=2, timeout=200)
    again = receive(second, 2)

    # When the first hand acks through the new consumer, as Dramatiq does
    second.ack(held)
    second.close()

    # Then both messages are still there
    third = broker.consume(queue, prefetch=2, timeout=200)
    assert sorted(one.args[0] for one in receive(third, 2)) == sorted(one.args[0] for one in again)
    third.close()


def test_a_clean_stop_loses_nothing_that_was_fetched_ahead(open_queue: Open, queue: str) -> None:
    broker = open_queue()
    started, go, done = threading.Event(), threading.Event(), []

    def slow(ids: list[int]) -> None:
        started.set()
        go.wait(20)
        done.extend(ids)

    dramatiq.actor(slow, broker=broker, actor_name="corporation", queue_name=queue)
    broker.enqueue_many([message(queue, n) for n in range(40)])
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=4, worker_timeout=100)
    worker.start()
    assert started.wait(10)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    go.set()
    stopper.join(30)
    wait_until(lambda: broker.depths()[queue] + len(done) == 40, 10, "every message done or back in the queue")
    assert len(done) < 40


def test_consumers_that_wait_for_long_end_at_once_and_write_what_was_done(open_queue: Open, queue: str) -> None:
    # Given a worker whose consumers look up rarely, and a message that it has in hand when it is to end
    broker, started, go, done = open_queue(), threading.Event(), threading.Event(), list[int]()

    def slow(ids: list[int]) -> None:
        started.set()
        go.wait(20)
        done.extend(ids)

    dramatiq.actor(slow, broker=broker, actor_name="corporation", queue_name=queue)
    worker = Worker(broker, {queue}, threads=2, prefetch=10)
    worker.start()
    broker.enqueue(message(queue, 1))
    assert started.wait(10)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    wait_until(lambda: not any(thread.running for thread in worker.workers), 10, "the stop")
    go.set()
    ended_at = time.monotonic()
    stopper.join(30)

    # Then it does not sleep on, and nothing of the message is left
    assert time.monotonic() - ended_at < 5
    assert not any(thread.is_alive() for thread in worker.consumers.values())
    assert done == [1]
    with closing(broker.consume(queue, prefetch=1, timeout=300)) as another:
        assert next(another) is None


def test_a_stop_that_comes_while_consumers_connect_is_a_short_one(open_queue: Open) -> None:
    broker = open_queue()
    worker = Worker(broker, set(broker.queues), threads=2, prefetch=10)
    worker.start()
    began_at = time.monotonic()
    worker.stop(20_000)
    assert time.monotonic() - began_at < 5
    assert not any(thread.is_alive() for thread in worker.consumers.values())


# -- what only one of them can do


def test_no_more_is_claimed_than_is_wanted_while_the_statistics_are_old(store: Store) -> None:
    # Given a database that knows of one message and has many
    messages.put(store, [("q", 0, "body", 0.0)])
    store.run(lambda: store.rows("ANALYZE messages"))
    messages.put(store, [("q", 0, "body", 0.0)] * 24)
    for wanted in (1, 4):
        assert len(messages.turn(store, {"q": wanted}, "owner", acked=[], returned=[], lease_s=30.0)) == wanted


def test_a_lease_that_ends_gives_the_message_to_somebody_else(store: Store) -> None:
    messages.put(store, [("q", 0, "body", 0.0)])
    (first,) = messages.turn(store, {"q": 1}, "frozen", acked=[], returned=[], lease_s=0.0)
    (second,) = messages.turn(store, {"q": 1}, "other", acked=[], returned=[], lease_s=30.0)
    assert (first.id, second.deliveries) == (second.id, 2)
    # The frozen one wakes up: its ack changes nothing.
    messages.turn(store, {}, "frozen", acked=[first.id], returned=[], lease_s=30.0)
    assert messages.counts(store) == {"q": (0, 1)}
    assert messages.release(store, "other") == 1
    assert messages.counts(store) == {"q": (1, 0)}


def test_a_message_that_is_parked_stands_in_nobodys_way(store: Store) -> None:
    # Given a queue of which a process takes one message at a time, and one of an actor that it does not know
    broker: Any = open_broker(store, "", "x", [DeadLetters(store)])
    name, got = queue_name("x", "killmail"), list[list[int]]()
    dramatiq.actor(got.append, broker=broker, actor_name="killmail", queue_name=name)
    broker.enqueue(message(name, 1, actor="from_the_future", priority=1))
    broker.enqueue_many([message(name, n, actor="killmail") for n in (2, 3)])

    # Then the rest is done, and that one is there for whoever asks a little later
    work_through(broker, name, lambda: got == [[2], [3]])
    with store.connection():
        assert store.rows("SELECT owner, deliveries FROM messages") == [(None, 1)]
    assert (broker.depths()[name], broker.busy()) == (1, set())


def test_a_lease_is_renewed_while_its_owner_lives(store: Store) -> None:
    messages.put(store, [("q", 0, "body", 0.0)])
    (one,) = messages.turn(store, {"q": 1}, "owner", acked=[], returned=[], lease_s=0.0)
    messages.renew(store, "owner", [one.id], 30.0)
    assert not messages.ready(store, ["q"])


def test_idle_queues_cost_one_statement_a_look_however_many_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = database.DatabaseBroker(store, [])
    rows, statements = store.rows, list[str]()
    monkeypatch.setattr(store, "rows", lambda sql, *more: [statements.append(sql), rows(sql, *more)][1])
    looks = {}
    for count in (1, 12):
        statements.clear()
        with closing(broker.consume(tuple(f"x.{n}" for n in range(count)), timeout=0)) as consumer:
            assert [next(consumer) for _ in range(5)] == [None] * 5
            looks[count] = len(statements)
    assert looks == {1: 5, 12: 5}

    # And a worker has one consumer for all of them
    for n in range(12):
        broker.declare_queue(f"x.{n}")
    worker = Worker(broker, set(broker.queues), threads=1, prefetch=1)
    worker.start()
    assert worker.consumers.keys() == broker.queues.keys()
    assert len(set(worker.consumers.values())) == 1
    worker.stop()


def test_one_claim_takes_of_each_queue_what_may_be_held_of_it(store: Store) -> None:
    # Given a queue with many messages, one with a few, and one of which a message at a time is taken
    long, short, slow = (queue_name("x", name) for name in ("alliance", "corporation", "killmail"))
    broker: Any = open_broker(store, "", "x")
    broker.enqueue_many([message(long, n) for n in range(10)])
    broker.enqueue_many([message(slow, n) for n in range(10, 13)])
    broker.enqueue_many([message(short, 13), message(short, 14, priority=2)])
    consumer = broker.consume((long, short, slow), prefetch=3, timeout=50)

    # Then none waits for another, and what is more urgent comes first
    got = receive(consumer, 6)
    assert [one.args[0][0] for one in got] == [14, 0, 1, 2, 10, 13]
    assert next(consumer) is None
    assert consumer.held == {long: 3, short: 2, slow: 1}

    # And each makes room for its own queue
    for one in got:
        if one.queue_name != short:
            consumer.ack(one)
    assert sorted(one.args[0][0] for one in receive(consumer, 4)) == [3, 4, 5, 11]
    consumer.close()
    assert messages.counts(store) == {long: (7, 0), short: (2, 0), slow: (2, 0)}


def test_what_was_claimed_while_the_answer_was_lost_comes_back(
    store: Store, lose_an_answer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a consumer on a busy queue that has claimed a message without learning of it, and another one that it holds
    monkeypatch.setattr(database, "LEASE_S", 0.5)
    monkeypatch.setattr(database, "RENEW_S", 0.05)
    broker: Any = open_broker(store, "", "x")
    name = queue_name("x", "alliance")
    broker.enqueue_many([message(name, n, actor="alliance") for n in range(2)])
    consumer = broker.consume(name, prefetch=1, timeout=50)
    lose_an_answer()
    (held,) = receive(consumer, 1)
    assert held.args[0] == [1]

    # When it lives on, the lease of the one that it holds is renewed, that of the other ends
    def is_there() -> bool:
        next(consumer)
        return messages.ready(store, [name])

    wait_until(is_there, 10, "the message that nobody holds")
    consumer.ack(held)
    (other,) = receive(consumer, 1)
    assert (other.args[0], other.redelivered) == ([0], True)
    consumer.close()


def test_a_delayed_message_waits_in_the_table(store: Store) -> None:
    messages.put(store, [("q", 0, "later", 30.0), ("q", 0, "now", 0.0)])
    claimed = messages.turn(store, {"q": 5}, "owner", acked=[], returned=[], lease_s=30.0)
    assert [one.body for one in claimed] == ["now"]


def test_a_clock_that_is_set_back_hides_no_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given messages of a database whose clock is three hours ahead, one of them in somebody's hands
    now_s = messages.now_s
    monkeypatch.setattr(messages, "now_s", lambda store: f"({now_s(store)} + 10800)")
    messages.put(store, [("q", 1, "held", 0.0), ("q", 0, "waits", 0.0)])
    messages.turn(store, {"q": 1}, "gone", acked=[], returned=[], lease_s=30.0)

    # When it is set back, they are to be had as before
    monkeypatch.setattr(messages, "now_s", now_s)
    assert messages.ready(store, ["q"])
    claimed = messages.turn(store, {"q": 5}, "owner", acked=[], returned=[], lease_s=30.0)
    assert [one.body for one in claimed] == ["held", "waits"]
    assert not messages.ready(store, ["q"])


def test_a_database_that_goes_away_stops_no_consumer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    broker: Any = open_broker(store, "", "x")
    name = queue_name("x", "alliance")
    broker.enqueue(message(name, 1, actor="alliance"))
    consumer: DatabaseConsumer = broker.consume(name, prefetch=1, timeout=50)
    (one,) = receive(consumer, 1)
    database = store.database
    store.database = Store("postgresql://nobody@127.0.0.1:1/none", pool_size=1).database
    consumer.ack(one)
    assert next(consumer) is None
    store.database = database
    wait_until(lambda: [next(consumer)] and messages.counts(store) == {}, 10, "the ack")
    consumer.close()


def test_a_consumer_outlives_whatever_the_database_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that may be read and not be written: Dramatiq's threads end with an error of a consumer's end
    broker: Any = open_broker(store, "", "x")
    name = queue_name("x", "alliance")
    broker.enqueue(message(name, 1, actor="alliance"))
    consumer = broker.consume(name, prefetch=1, timeout=50)
    with monkeypatch.context() as patch:
        for verb in ("turn", "release"):
            patch.setattr(messages, verb, _denied)
        assert next(consumer) is None
        consumer.close()
    assert len(receive(consumer, 1)) == 1
    consumer.close()


def _denied(*_: Any, **__: Any) -> Any:
    raise NotPermitted("permission denied")


def test_a_queue_with_other_arguments_is_named_with_the_cure(rabbitmq: Rabbitmq, store: Store) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    connection.channel().queue_declare("clash.alliance", durable=True)
    with pytest.raises(QueueMismatch, match=r"clash\.alliance .* delete_queue"):
        RabbitBroker.check(open_broker(store, rabbitmq.url, "clash"))  # type: ignore[arg-type]
    connection.channel().queue_delete("clash.alliance")
    connection.close()


def test_a_rabbitmq_that_is_away_is_said_in_one_line(store: Store) -> None:
    (port,) = free_ports(1)
    broker = open_broker(store, f"amqp://guest:s3cret@127.0.0.1:{port}/%2F", "x")
    for call in (broker.check, broker.depths, lambda: broker.enqueue(message("x.alliance", 1))):
        with pytest.raises(BrokerUnavailable, match="is it running") as caught:
            call()
        assert "s3cret" not in str(caught.value)


def test_a_rabbitmq_that_refuses_us_is_not_called_away(rabbitmq: Rabbitmq, store: Store) -> None:
    broker = open_broker(store, rabbitmq.url.replace("guest:guest", "guest:wrong"), "x")
    with pytest.raises(BrokerRefused, match="check user, password"):
        broker.check()


def test_a_connection_that_rabbitmq_closed_while_it_was_idle_is_no_outage(rabbitmq: Rabbitmq, store: Store) -> None:
    with Wire(rabbitmq.port) as wire:
        broker: Any = open_broker(store, rabbitmq.url.replace(str(rabbitmq.port), str(wire.port)), "idle")
        name = queue_name("idle", "alliance")
        for call in (lambda: broker.depths()[name], lambda: broker.purge(name)):
            broker.check()
            # What the server does to a client whose heartbeats it misses
            wire.reset_peers()
            assert call() == 0
        broker.close()


def test_a_message_knows_whether_it_comes_back(rabbitmq: Rabbitmq, store: Store) -> None:
    with Wire(rabbitmq.port) as wire:
        broker: Any = open_broker(store, rabbitmq.url.replace(str(rabbitmq.port), str(wire.port)), "back")
        broker.check()
        name = queue_name("back", "alliance")
        broker.enqueue(message(name, 1, actor="alliance"))
        consumer = broker.consume(name, prefetch=1, timeout=50)
        (one,) = receive(consumer, 1)
        assert one.comes_back
        wire.reset_peers()
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            wait_until(lambda: next(consumer), 10, "the end of the connection")
        assert not one.comes_back
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            consumer.close()
        wait_until(lambda: broker.purge(name) == 1, 10, "the message, which RabbitMQ has taken back")
        broker.close()


def test_rabbitmq_is_back_for_who_asked_it_not_for_who_has_messages_of_before(
    rabbitmq: Rabbitmq, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Wire(rabbitmq.port) as wire:
        broker: Any = open_broker(store, rabbitmq.url.replace(str(rabbitmq.port), str(wire.port)), "said")
        broker.check()
        name = queue_name("said", "alliance")
        for number in range(3):
            broker.enqueue(message(name, number, actor="alliance"))
        consumer = broker.consume(name, prefetch=3, timeout=50)
        # Given three messages that came at once, and an outage that another consumer has told of
        receive(consumer, 1)
        looked = consumer.connection.process_data_events
        wait_until(lambda: len(consumer._received) == 2 or looked(0.05), 10, "the others")
        wire.reset_peers()
        broker.outage.down("reset")
        assert len(receive(consumer, 2)) == 2
        assert "rabbitmq.back" not in caplog.text
        # When something is asked of RabbitMQ, or a new consumer begins
        wait_until(lambda: broker.depths()[name] == 3, 10, "the messages, which RabbitMQ has taken back")
        assert caplog.text.count("rabbitmq.back") == 1
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            consumer.close()
        broker.purge(name)
        broker.outage.down("reset")
        consumer = broker.consume(name, timeout=20_000)
        thread = threading.Thread(target=lambda: next(consumer))
        thread.start()
        wait_until(lambda: caplog.text.count("rabbitmq.back") == 2, 10, lambda: caplog.text)
        consumer.wake()
        thread.join(10)
        assert not thread.is_alive()
        consumer.close()
        broker.close()


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_what_is_parked_comes_back_in_time_however_long_its_consumer_sleeps(
    open_queue: Open, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, sleeps = open_queue(), threading.Event()
    broker.enqueue(message(queue, 1))
    consumer = broker.consume(queue, prefetch=1, timeout=20_000)
    (one,) = receive(consumer, 1)
    one.requeue, one.parked_s = True, 0.3

    # Given a consumer that sleeps when the message is parked
    sleep = consumer.connection.process_data_events
    monkeypatch.setattr(consumer.connection, "process_data_events", lambda wait_s: [sleeps.set(), sleep(wait_s)])
    parking = threading.Thread(target=lambda: sleeps.wait(10) and consumer.ack(one))
    parking.start()
    began_at = time.monotonic()

    (again,) = receive(consumer, 1, deadline_s=60)
    assert again.message_id == one.message_id
    assert time.monotonic() - began_at < 10
    parking.join(10)
    assert not parking.is_alive()
    consumer.close()


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_a_queue_that_is_deleted_under_its_consumer_is_declared_anew(open_queue: Open, queue: str, stack: Stack) -> None:
    broker = open_queue()
    consumer = broker.consume(queue, prefetch=1, timeout=50)
    assert next(consumer) is None
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        connection.channel().queue_delete(queue)
    with pytest.raises(dramatiq.errors.ConnectionClosed):
        wait_until(lambda: next(consumer), 10, "the end of the consumer")
    consumer.close()
    again = broker.consume(queue, prefetch=1, timeout=50)
    broker.enqueue(message(queue, 1))
    assert [one.args for one in receive(again, 1)] == [([1],)]
    again.close()


def test_a_rabbitmq_that_goes_while_a_channel_is_opened_is_away(
    rabbitmq: Rabbitmq, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise pika.exceptions.AMQPHeartbeatTimeout("no activity")

    broker: Any = open_broker(store, rabbitmq.url, "opening")
    name = queue_name("opening", "alliance")
    monkeypatch.setattr(pika.BlockingConnection, "channel", lost)
    for call in (broker.check, broker.depths, lambda: broker.enqueue(message(name, 1, actor="alliance"))):
        with pytest.raises(BrokerUnavailable, match="no activity"):
            call()
    monkeypatch.undo()
    assert broker.depths()[name] == broker.purge(name) == 0
    broker.close()


def test_rabbitmq_may_be_killed_between_two_messages(tmp_path: Path) -> None:
    # A server of its own: it is killed
    store = Store(f"sqlite:///{tmp_path / 'esid.db'}")
    with PrivateRabbitmq() as server:
        broker: Any = open_broker(store, server.url, "kill")
        broker.check()
        name = queue_name("kill", "alliance")
        broker.enqueue_many([message(name, n, actor="alliance") for n in range(100)])
        server.kill()
        server.start()

        # Everything that was accepted is there, and publishing goes on
        broker.enqueue(message(name, 100, actor="alliance"))
        assert broker.depths()[name] == 101
        broker.close()
    store.close()


def test_a_worker_has_three_connections_to_rabbitmq_however_many_its_queues_are(tmp_path: Path) -> None:
    # A server of its own: it is asked who is there
    store = Store(f"sqlite:///{tmp_path / 'esid.db'}")
    migrate.migrate(store)
    with PrivateRabbitmq() as server:
        broker: Any = open_broker(store, server.url, "many", [DeadLetters(store)])
        names, got = [f"many.lane_{number}" for number in range(12)], list[int]()
        for name in names:
            broker.declare_queue(name)
            dramatiq.actor(got.extend, broker=broker, actor_name=name, queue_name=name)
        broker.check()
        worker = Worker(broker, set(names), threads=4, prefetch=4)
        worker.start()
        broker.enqueue_many([message(name, number, actor=name) for number, name in enumerate(names)])
        wait_until(lambda: sorted(got) == list(range(12)), 30, lambda: f"a message of each queue: {got}")

        connections = server.ctl("-q", "list_connections", "pid", "--no-table-headers").split("\n")
        assert 1 < len(list(filter(None, connections))) <= 3
        consumed = server.ctl("-q", "list_consumers", "queue_name", "--no-table-headers").split()
        assert set(names) <= set(consumed)
        worker.stop()
        assert broker.depths() == dict.fromkeys(sorted(broker.queues), 0)
        broker.close()
    store.close()


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_a_queue_that_cannot_be_consumed_keeps_no_other_from_it(
    open_queue: Open, queue: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a consumer of two queues, with a message of the one in its hands
    monkeypatch.setattr(rabbitmq_consumer, "_AGAIN_S", 0.3)
    broker, other = open_queue(), queue_name(stack.queue_prefix, "alliance")
    broker.enqueue(message(queue, 1))
    consumer = broker.consume((queue, other), prefetch=1, timeout=50)
    (held,) = receive(consumer, 1)

    # When its queue is deleted
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        connection.channel().queue_delete(queue)
    wait_until(lambda: [next(consumer)] and not held.comes_back, 10, "the end of the queue")

    # Then the other one is consumed as before, an ack of what is gone hurts nobody, and it comes back by itself
    consumer.ack(held)
    broker.enqueue(message(other, 2, actor="alliance"))
    (one,) = receive(consumer, 1)
    assert one.args[0] == [2]
    consumer.ack(one)
    broker.enqueue(message(queue, 3))
    (again,) = receive(consumer, 1)
    assert (again.args[0], again.comes_back) == ([3], True)
    consumer.ack(again)
    settle(broker, queue, consumer)
    consumer.close()


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
@pytest.mark.parametrize("count", [1, 30])
def test_a_queue_that_is_deleted_under_an_idle_publisher_is_declared_anew(
    open_queue: Open, queue: str, stack: Stack, count: int
) -> None:
    broker = open_queue()
    broker.enqueue_many([message(queue, n) for n in range(count)])
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        connection.channel().queue_delete(queue)
    broker.enqueue_many([message(queue, n) for n in range(count)])
    assert broker.depths()[queue] == count


def pending(store: Store, entity: str) -> tuple[set[int], set[int]]:
    """Ids of which the ledger believes that they are in the queue, and those that are still to be published."""
    with store.connection():
        rows = store.rows("SELECT entity_id, due_at FROM sync_jobs WHERE entity_type = %s", (entity,))
    return {key for key, due_at in rows if due_at is None}, {key for key, due_at in rows if due_at is not None}


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_what_a_queue_does_not_take_is_not_booked_as_queued(
    open_queue: Open, queue: str, stack: Stack, stack_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a queue that takes some messages and refuses the rest
    build = RabbitBroker._build_queue_arguments
    limits = {"x-max-length": 3, "x-overflow": "reject-publish"}
    monkeypatch.setattr(RabbitBroker, "_build_queue_arguments", lambda self, name: build(self, name) | limits)
    broker = open_queue()
    ids = list(range(98_000_000, 98_000_010))
    ledger.request(stack_store, [Seen("corporation", key) for key in ids])
    with pytest.raises(BrokerUnavailable, match=r"corporation.* full"):
        Publisher(stack_store, broker, stack.queue_prefix).publish(CORPORATION, ids, 0, most=1)

    # Then the ledger knows of each id whether it is in the queue
    consumer = broker.consume(queue, prefetch=10, timeout=200)
    got = receive(consumer, 3)
    booked, open_ids = pending(stack_store, "corporation")
    assert booked >= {key for one in got for key in one.args[0]}
    assert len(open_ids) >= 6
    assert booked | open_ids == set(ids)
    for one in got:
        consumer.ack(one)
    settle(broker, queue, consumer)
    consumer.close()
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        connection.channel().queue_delete(queue)


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_what_is_published_to_a_queue_that_is_away_stays_pending(
    open_queue: Open, queue: str, stack: Stack, stack_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a queue that is neither there nor can be declared: the node that holds it is down
    broker, ids = open_queue(), [98_000_000, 98_000_001]
    publisher = Publisher(stack_store, broker, stack.queue_prefix)
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        connection.channel().queue_delete(queue)
    with monkeypatch.context() as patch:
        patch.setattr(RabbitBroker, "_declare_queue", lambda *_: None)
        ledger.request(stack_store, [Seen("corporation", key) for key in ids])
        with pytest.raises(BrokerUnavailable, match="corporation"):
            publisher.publish(CORPORATION, ids, 0, most=1)
    assert pending(stack_store, "corporation") == (set(), set(ids))

    # When it is there again, the next attempt reaches it
    publisher.publish(CORPORATION, ids, 0, most=1)
    assert pending(stack_store, "corporation") == (set(ids), set())
    assert broker.depths()[queue] == 2


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
@pytest.mark.parametrize("parked_s", [0.0, 0.05])
def test_what_is_given_back_again_and_again_outlives_a_limit_of_deliveries(
    open_queue: Open, queue: str, stack: Stack, monkeypatch: pytest.MonkeyPatch, parked_s: float
) -> None:
    # Given a replicated queue that drops what was delivered twice, as RabbitMQ 4 does after 20 times
    build = RabbitBroker._build_queue_arguments

    def limited(self: RabbitBroker, name: str) -> dict[str, Any]:
        arguments = build(self, name) | {"x-queue-type": "quorum", "x-delivery-limit": 1}
        return {key: value for key, value in arguments.items() if key != "x-max-priority"}

    monkeypatch.setattr(RabbitBroker, "_build_queue_arguments", limited)
    broker = open_queue()
    broker.enqueue_many([message(queue, n) for n in range(2)])
    consumer = broker.consume(queue, prefetch=5, timeout=50)
    for _ in range(5):
        got = receive(consumer, 2)
        assert sorted(one.args[0] for one in got) == [[0], [1]]
        for one in got:
            one.requeue, one.parked_s = True, parked_s
            consumer.ack(one)
    for one in receive(consumer, 2):
        consumer.ack(one)
    settle(broker, queue, consumer)
    assert next(consumer) is None
    consumer.close()
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        for name in broker.queues:
            connection.channel().queue_delete(name)


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_messages_of_another_installation_go_back_and_are_said_once(
    open_queue: Open, queue: str, stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Given two databases with the same queues, and messages of both
    monkeypatch.setattr(rabbitmq_consumer, "PARKED_S", 0.3)
    other_store = Store(f"sqlite:///{tmp_path / 'other.db'}")
    migrate.migrate(other_store)
    ours, theirs = open_queue(), open_broker(other_store, stack.rabbitmq_url, stack.queue_prefix)
    theirs.enqueue_many([message(queue, n, priority=1) for n in range(3)])
    ours.enqueue_many([message(queue, n) for n in range(10, 13)])

    # Then each gets its own, from whatever place in the queue
    for broker, keys in ((ours, {10, 11, 12}), (theirs, {0, 1, 2})):
        consumer = broker.consume(queue, prefetch=1, timeout=50)
        got = set[int]()
        while got != keys:
            (one,) = receive(consumer, 1)
            got |= set(one.args[0])
            consumer.ack(one)
        assert got == keys
        consumer.close()
    assert caplog.text.count("rabbitmq.foreign") == 1
    theirs.close()
    other_store.close()
