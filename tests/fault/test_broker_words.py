"""What is said of a RabbitMQ that is set up in its own way, refuses, or is none: on a server of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pika
import pytest
from dramatiq.errors import ConnectionClosed

from esid import log
from esid.daemon.beats import Beats
from esid.daemon.cell import Cell
from esid.daemon.child_loop import Life
from esid.errors import BrokerRefused, BrokerUnavailable, NotTaken, QueueMismatch
from esid.queue.broker import open_broker, queue_name
from esid.queue.broker_faults import translated
from esid.store.connection import Store
from tests.tools.messages import message, receive
from tests.tools.servers import PrivateRabbitmq
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRabbitmq]:
    """A RabbitMQ that nobody shares."""
    with PrivateRabbitmq() as started:
        yield started


def _declare(url: str, name: str, **arguments: Any) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(name, durable=True, arguments=arguments)
    connection.close()


def _set_default_type(server: PrivateRabbitmq, vhost: str, kind: str) -> None:
    change = f'fun(Vhost) -> vhost:merge_metadata(Vhost, #{{default_queue_type => <<"{kind}">>}}) end'
    server.ctl("eval", f'mnesia:transaction(fun() -> rabbit_vhost:update(<<"{vhost}">>, {change}) end).')


def _works(url: str, prefix: str, store: Store) -> None:
    """A message goes and comes, is rejected, and what is there is counted."""
    broker: Any = open_broker(store, url, prefix)
    broker.check()
    name = queue_name(prefix, "corporation")
    broker.enqueue(message(name, 1))
    wait_until(lambda: broker.depths()[name] == 1, 10, "the message to be counted")
    consumer = broker.consume(name, prefetch=1, timeout=50)
    consumer.nack(receive(consumer, 1)[0])
    next(consumer)
    consumer.close()
    assert broker.purge(name) == 0
    broker.close()


def _check(store: Store, url: str, prefix: str) -> None:
    """Connect and declare every queue, and close what was opened."""
    broker: Any = open_broker(store, url, prefix)
    try:
        broker.check()
    finally:
        broker.close()


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
class TestServer:
    """Faults of a server that runs."""

    def test_a_virtual_host_of_quorum_queues_works_also_with_queues_from_before(
        self, server: PrivateRabbitmq, store: Store
    ) -> None:
        # Given queues of a release that named no type, in a virtual host whose default is another one since
        server.ctl("add_vhost", "quorums")
        server.ctl("set_permissions", "-p", "quorums", "guest", ".*", ".*", ".*")
        url = server.url.replace("%2F", "quorums")
        broker: Any = open_broker(store, url, "before")
        broker.check()
        broker.close()
        _set_default_type(server, "quorums", "quorum")
        _works(url, "before", store)
        _works(url, "after", store)
        _set_default_type(server, "quorums", "classic")
        _works(url, "after", store)

    def test_a_queue_of_another_type_is_named_with_the_cure(self, server: PrivateRabbitmq, store: Store) -> None:
        _declare(server.url, queue_name("taken", "alliance"), **{"x-queue-type": "quorum"})
        with pytest.raises(QueueMismatch, match=r"taken\.alliance .*delete_queue"):
            _check(store, server.url, "taken")

    def test_limits_of_a_virtual_host_are_named(self, server: PrivateRabbitmq, store: Store) -> None:
        server.ctl("add_vhost", "narrow")
        server.ctl("set_permissions", "-p", "narrow", "guest", ".*", ".*", ".*")
        url = server.url.replace("%2F", "narrow")
        for limit, words in (('{"max-queues":1}', "queue limit"), ('{"max-connections":0}', "connection limit")):
            server.ctl("set_vhost_limits", "-p", "narrow", limit)
            with pytest.raises(BrokerUnavailable, match=rf"{words} .*raise this limit"):
                _check(store, url, "narrow")

    def test_a_policy_that_refuses_messages_is_thought_of(self, server: PrivateRabbitmq, store: Store) -> None:
        server.ctl("set_policy", "full", "^full", '{"max-length":0,"overflow":"reject-publish"}', "--apply-to", "queues")
        broker: Any = open_broker(store, server.url, "full")
        with pytest.raises(NotTaken, match=r"full\.corporation full, or does a policy refuse"):
            broker.enqueue(message(queue_name("full", "corporation"), 1))
        broker.close()

    def test_a_consumer_timeout_is_told_as_what_it_is(
        self, server: PrivateRabbitmq, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name, value in (("consumer_timeout", 1000), ("channel_tick_interval", 500)):
            server.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")
        broker: Any = open_broker(store, server.url, "slow")
        name = queue_name("slow", "corporation")
        broker.enqueue(message(name, 1))
        consumer = broker.consume(name, prefetch=2, timeout=50)
        receive(consumer, 1)
        with pytest.raises(Exception, match="timed out"):
            wait_until(lambda: next(consumer) is not None, 20, "the channel to be closed")
        said = [getattr(record, "esid_words", "") for record in caplog.records]
        assert any("its consumer_timeout of 1 s is over" in words for words in said)
        assert not any("cannot reach" in words for words in said)
        # As Dramatiq does with a consumer that fails
        with suppress(ConnectionClosed):
            consumer.close()
        assert not consumer.connection.is_open
        broker.close()

    def test_a_right_that_our_user_lacks_is_told_until_it_is_given(self, server: PrivateRabbitmq, store: Store) -> None:
        # Given a user that has lost the right to read, with which it has declared its queues
        server.ctl("add_user", "half", "half")
        server.ctl("set_permissions", "half", ".*", ".*", ".*")
        broker: Any = open_broker(store, server.url.replace("guest:guest@", "half:half@"), "half")
        broker.check()
        server.ctl("set_permissions", "half", ".*", ".*", "none")
        names = [queue_name("half", entity) for entity in ("alliance", "corporation")]

        # When consumers begin, and all else is answered
        for name in names:
            _fail(broker.consume(name, prefetch=1, timeout=50))
        broker.depths()

        # Then it is known, with its cure, until each of them could begin
        words = log.outage("consumer").words
        assert "access to queue 'half.alliance'" in words
        assert "rabbitmqctl set_permissions -p / half '.*' '.*' '.*'" in words
        assert Beats(store, Life("worker", Cell(0)))._words()["away"] == words
        server.ctl("set_permissions", "half", ".*", ".*", ".*")
        for name in names:
            assert log.outage("consumer").words == words
            consumer = broker.consume(name, prefetch=1, timeout=50)
            next(consumer)
            consumer.close()
        assert not log.outage("consumer").words
        broker.close()


def _fail(consumer: Any) -> None:
    """As Dramatiq does with a consumer that fails."""
    with pytest.raises(ConnectionClosed):
        next(consumer)
    with suppress(ConnectionClosed):
        consumer.close()


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ((404, "NOT_FOUND - home node 'rabbit@b' of durable queue 'x' in vhost '/' is down or inaccessible"),
         BrokerUnavailable, "its node rabbit@b is down; start that node"),
        ((541, "INTERNAL_ERROR"), BrokerUnavailable, "541 INTERNAL_ERROR; see its log"),
        ((403, "ACCESS_REFUSED - access to queue 'x' in vhost '/' refused for user 'u'"), BrokerRefused, "access to queue"),
    ],
)  # fmt: skip
def test_what_a_broker_says_is_passed_on(said: tuple[int, str], kind: type[Exception], words: str) -> None:
    error = translated(pika.exceptions.ChannelClosedByBroker(*said), "amqp://here", "x")
    assert isinstance(error, kind)
    assert words in str(error)
    assert "is it running" not in str(error)


def _http(client: socket.socket) -> None:
    client.recv(100)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@pytest.mark.parametrize("says", [_http, lambda client: None, lambda client: client.recv(100)])
def test_what_is_no_rabbitmq_is_told_as_that(scheme: str, says: Callable[[socket.socket], Any], store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    says(client)

        threading.Thread(target=serve, daemon=True).start()
        url = f"{scheme}://u:p@127.0.0.1:{listening.getsockname()[1]}/%2F"
        with pytest.raises(BrokerUnavailable, match="does not answer as RabbitMQ does") as caught:
            _check(store, url, "other")
        assert "Error" not in str(caught.value)
        listening.shutdown(socket.SHUT_RDWR)
