"""RabbitMQ that is short of memory, and connections that are idle: on a server of their own, whose limits are changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest

from esid.errors import BrokerUnavailable
from esid.queue import rabbitmq as rabbitmq_broker
from esid.queue.broker import open_broker, queue_name
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Make
from tests.tools.ports import free_ports
from tests.tools.servers import PrivateRabbitmq
from tests.tools.stacks import STACKS
from tests.tools.status_server import ready
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRabbitmq]:
    """A RabbitMQ that nobody shares."""
    with PrivateRabbitmq() as started:
        yield started


@contextmanager
def alarm(server: PrivateRabbitmq) -> Iterator[None]:
    """RabbitMQ has less memory than it wants."""
    server.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        yield
    finally:
        server.ctl("set_vm_memory_high_watermark", "0.4")


def message(queue: str, key: int) -> dramatiq.Message[Any]:
    """A message as the publisher makes it."""
    return dramatiq.Message(queue, "corporation", ([key],), {}, options={})


def seconds_to_refuse(call: Any) -> float:
    """How long it takes until it is said that RabbitMQ takes no messages."""
    began_at = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"takes no messages .*memory"):
        call()
    return time.monotonic() - began_at


def test_an_alarm_is_said_at_once_and_waited_out_for_ten_seconds(
    server: PrivateRabbitmq, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker: Any = open_broker(store, server.url, "alarm")
    broker.check()
    name = queue_name("alarm", "corporation")
    broker.enqueue(message(name, 1))
    with alarm(server):
        # Given a publisher that waits, and another one that is told to stop while it waits
        began_at = time.monotonic()
        waits = threading.Thread(target=lambda: seconds_to_refuse(lambda: broker.enqueue_many([message(name, 2)] * 30)))
        waits.start()
        wait_until(lambda: "rabbitmq.away" in caplog.text, 8, "the line")
        stopping: Any = open_broker(store, server.url, "alarm")
        stops = threading.Thread(target=lambda: seconds_to_refuse(lambda: stopping.enqueue(message(name, 3))))
        stops.start()
        wait_until(lambda: stopping._confirms.is_blocked, 5, "the second alarm")
        stopping.is_stopping = True
        stops.join(5)
        assert not stops.is_alive()
        waits.join(15)
        assert 9 < time.monotonic() - began_at < 16

        # Then those that come later do not wait, questions are answered, and a process ends as at other times
        assert seconds_to_refuse(lambda: broker.enqueue(message(name, 4))) < 4
        assert seconds_to_refuse(broker.ready) < 4
        assert name in broker.depths()
        began_at = time.monotonic()
        stopping.close()
        assert time.monotonic() - began_at < 5
        assert "rabbitmq.back" not in caplog.text

    # When the alarm is over, that is said, though nobody publishes, and all goes on
    wait_until(lambda: "rabbitmq.back" in caplog.text, 10, "the line")
    assert caplog.text.count("rabbitmq.away") == 1
    broker.enqueue(message(name, 5))
    broker.ready()
    broker.purge(name)
    broker.close()


def test_a_daemon_is_not_ready_in_an_alarm_commands_end_and_a_stop_is_short(
    make_daemon: Make, server: PrivateRabbitmq, store: Store, esi: FakeEsi, world: World
) -> None:
    (port,) = free_ports(1)
    daemon = make_daemon(RABBITMQ_URL=server.url, ESID_HTTP_LISTEN=f"127.0.0.1:{port}")
    daemon.start("--no-scheduler")
    wait_until(lambda: ready(port) == 200, 20, "readiness")
    with alarm(server):
        wait_until(lambda: ready(port) == 503, 10, "the alarm")
        began_at = time.monotonic()
        ran = daemon.run("enqueue", "alliance", *map(str, sorted(world.alliances)))
        assert time.monotonic() - began_at < 18
        assert (ran.code, len(ran.err.strip().splitlines())) == (69, 1), ran
        assert "takes no messages" in ran.err
    wait_until(lambda: ready(port) == 200, 20, "readiness")
    checker.wait_for_drain(daemon, store, 40)
    with alarm(server):
        daemon.run("enqueue", "corporation", *map(str, sorted(world.corporations)))
        began_at = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began_at < 10
    assert "daemon.child_killed" not in daemon.log


def test_idle_connections_are_served_and_all_are_closed_as_rabbitmq_wants_it(
    make_daemon: Make, server: PrivateRabbitmq, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that has published, and is idle for longer than heartbeats may be missing
    wait_until(lambda: "Server startup complete" in server.log(), 30, "the end of the server's start in its log")
    logged = len(server.log())
    monkeypatch.setattr(rabbitmq_broker, "HEARTBEAT_S", 2)
    broker: Any = open_broker(store, server.url, "idle")
    broker.check()
    name = queue_name("idle", "corporation")
    broker.enqueue(message(name, 1))
    until = time.monotonic() + 7
    wait_until(lambda: time.monotonic() > until, 10, "idle seconds")
    assert broker.purge(name) == 1
    broker.close()

    # And a command of each kind
    daemon = make_daemon(RABBITMQ_URL=server.url)
    daemon.ok("enqueue", "alliance", "99000001")
    assert json.loads(daemon.ok("status", "--json"))["queues"]["reachable"]
    daemon.ok("purge", "--yes")
    said = server.log()[logged:]
    assert "missed heartbeats" not in said
    assert "unexpectedly closed" not in said
