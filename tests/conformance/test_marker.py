"""The queues of a prefix are consumed by one installation: by whose daemons came first, for as long as they live."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from dramatiq.errors import ConnectionClosed

from esid import log
from esid.errors import QueueTaken
from esid.queue import rabbitmq as rabbitmq_broker
from esid.queue.broker import open_broker, queue_name
from esid.store import migrate, notes
from esid.store.connection import Store
from tests.tools.messages import message, receive
from tests.tools.servers import PrivateRabbitmq, Rabbitmq
from tests.tools.waiting import wait_until

PREFIX = "whose"
QUEUE = queue_name(PREFIX, "corporation")
OTHER = queue_name(PREFIX, "character")
Open = Callable[[str], Any]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    """Databases by name."""
    opened: dict[str, Store] = {}

    def of(name: str) -> Store:
        if name not in opened:
            opened[name] = Store(f"sqlite:///{tmp_path / name}.db")
            migrate.migrate(opened[name])
        return opened[name]

    yield of
    for store in opened.values():
        store.close()


@pytest.fixture
def open_of(rabbitmq: Rabbitmq, stores: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a broker of an installation, as one process would."""
    monkeypatch.setattr(rabbitmq_broker, "TAKEN_S", 0.3)
    monkeypatch.setattr(rabbitmq_broker, "TAKEN_LOOK_S", 0.05)
    opened: list[Any] = []

    def open_one(installation: str) -> Any:
        opened.append(open_broker(stores(installation), rabbitmq.url, PREFIX))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        for name in [*opened[0].queues, queue_name(PREFIX, "installation")]:
            connection.channel().queue_delete(name)
    log.outage("queue").up()


def begin(broker: Any, queue: str = QUEUE) -> Any:
    """A consumer that has begun."""
    consumer = broker.consume(queue, prefetch=1, timeout=20)
    assert next(consumer) is None
    return consumer


def end_of(consumer: Any) -> None:
    """Put away a consumer whose connection is gone."""
    with suppress(ConnectionClosed):
        next(consumer)
    with suppress(ConnectionClosed):
        consumer.close()


def is_free_for(broker: Any) -> bool:
    """Whether a daemon of this installation may start."""
    try:
        broker.check()
    except QueueTaken:
        return False
    return True


def test_a_start_on_queues_that_another_installation_consumes_ends_in_one_line(
    open_of: Open, stores: Callable[[str], Store]
) -> None:
    # Given a daemon of one installation with two queues
    ours, theirs = open_of("ours"), open_of("theirs")
    ours.check()
    consumers = [begin(ours), begin(ours, OTHER)]
    # Then another daemon of it may start and consume, and none of another one: the line names cause and cure
    more = open_of("ours")
    more.check()
    consumers.append(begin(more))
    with pytest.raises(QueueTaken, match=rf"{notes.installation(stores('ours'))}.* whose\.\* .*ESID_QUEUE_PREFIX") as error:
        theirs.check()
    assert "\n" not in str(error.value)
    assert "guest:guest" not in str(error.value)
    assert error.value.exit_code == 78
    # And what commands do is not hindered
    theirs.enqueue(message(QUEUE, 1))
    assert set(theirs.depths()) == theirs.queues
    theirs.busy()
    theirs.purge(QUEUE)
    theirs.ready()
    # As long as one of them consumes
    for consumer in consumers[:-1]:
        consumer.close()
    assert not is_free_for(theirs)
    consumers[-1].close()
    assert is_free_for(theirs)


def test_a_look_at_the_start_takes_nothing(open_of: Open) -> None:
    for name in ("ours", "theirs", "ours"):
        open_of(name).check()


def test_an_installation_that_is_just_ending_is_waited_for(open_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_broker, "TAKEN_S", 20.0)
    ours, theirs = open_of("ours"), open_of("theirs")
    ours.check()
    consumer = begin(ours)
    threading.Timer(0.5, consumer.close).start()
    theirs.check()


def test_who_was_killed_holds_nothing(open_of: Open) -> None:
    ours, theirs = open_of("ours"), open_of("theirs")
    ours.check()
    consumer = begin(ours)
    # As a process that is killed: its connections end without a word
    consumer.connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: is_free_for(theirs), 10, "the place of the dead")
    end_of(consumer)


def test_of_two_that_started_at_once_one_consumes_and_the_other_waits_and_says_so(
    open_of: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "esid")
    ours, theirs = open_of("ours"), open_of("theirs")
    ours.check()
    theirs.check()
    consumer = begin(ours)
    theirs.enqueue(message(QUEUE, 7))
    for _ in range(3):
        waiting = theirs.consume(QUEUE, prefetch=1, timeout=20)
        with pytest.raises(ConnectionClosed):
            next(waiting)
        waiting.close()
    assert caplog.text.count("queue.away") == 1
    assert "another installation" in log.outage("queue").words
    # When the first ends it takes over
    consumer.close()
    taking = theirs.consume(QUEUE, prefetch=1, timeout=20)
    (one,) = receive(taking, 1)
    assert one.args == ([7],)
    taking.ack(one)
    assert caplog.text.count("queue.back") == 1
    assert not log.outage("queue").words
    taking.close()


def test_where_rabbitmq_refuses_the_marker_work_goes_on_and_that_is_said_once(
    open_of: Open, rabbitmq: Rabbitmq, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a queue of that name that is somebody else's
    broker = open_of("ours")
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        connection.channel().queue_declare(queue_name(PREFIX, "installation"), durable=True)
        broker.check()
        consumer = begin(broker)
        consumer.close()
    assert caplog.text.count("rabbitmq.no_marker") == 1


@pytest.mark.long
def test_what_a_restart_of_rabbitmq_leaves_behind_is_ours_and_ends_by_itself(
    stores: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_broker, "TAKEN_S", 0.3)
    with PrivateRabbitmq() as server:
        ours, theirs = (open_broker(stores(name), server.url, PREFIX) for name in ("ours", "theirs"))
        ours.check()
        consumer = begin(ours)
        server.kill()
        server.start()
        end_of(consumer)
        # The place is kept for who had it, and for who has it next
        assert not is_free_for(theirs)
        assert is_free_for(ours)
        assert is_free_for(theirs)
        consumer = begin(ours)
        server.kill()
        server.start()
        end_of(consumer)
        wait_until(lambda: is_free_for(theirs), 90, "what nobody holds ends", every_s=1.0)
        for broker in (ours, theirs):
            broker.close()
