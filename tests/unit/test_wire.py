"""The faulty wire itself: each toxic does what its name says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.tools.waiting import wait_until
from tests.tools.wire import Toxic, Wire


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A wire to a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with Wire(listener.getsockname()[1]) as made:
        yield made
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(wire: Wire, timeout_s: float = 5.0) -> socket.socket:
    """A client."""
    client = socket.create_connection(("127.0.0.1", wire.port), timeout=timeout_s)
    wait_until(lambda: wire.connections or wire.toxic.timeout, 5, "the connection")
    return client


def ask(client: socket.socket, data: bytes) -> bytes:
    """What comes back, until all of it has or the connection ends."""
    client.sendall(data)
    got = b""
    while len(got) < len(data) and (part := client.recv(65_536)):
        got += part
    return got


def test_a_well_wire_passes_everything(wire: Wire) -> None:
    with connect(wire) as client:
        assert ask(client, b"x" * 300_000) == b"x" * 300_000
    wait_until(lambda: wire.connections == 0, 5, "the end")


@pytest.mark.parametrize(
    ("toxic", "at_least_s"),
    [(Toxic(latency_s=0.1), 0.2), (Toxic(bandwidth=20_000), 0.09), (Toxic(slicer=7), 0.0)],
    ids=["latency", "bandwidth", "slicer"],
)
def test_slow_toxics_change_the_time_and_not_the_bytes(wire: Wire, toxic: Toxic, at_least_s: float) -> None:
    with connect(wire) as client:
        wire.toxic = toxic
        before = time.monotonic()
        assert ask(client, b"abc" * 400) == b"abc" * 400
        assert time.monotonic() - before >= at_least_s


def test_limit_data_ends_the_connection_in_the_middle_of_an_answer(wire: Wire) -> None:
    with connect(wire) as client:
        wire.toxic = Toxic(limit_data=100)
        assert ask(client, b"y" * 500) == b"y" * 100


def test_slow_close_tells_the_end_later(wire: Wire) -> None:
    with connect(wire) as client:
        wire.toxic = Toxic(limit_data=1, slow_close_s=0.3)
        before = time.monotonic()
        assert ask(client, b"zz") == b"z"
        assert time.monotonic() - before >= 0.3


def test_reset_peer_resets(wire: Wire) -> None:
    with connect(wire) as client:
        ask(client, b"1")
        wire.reset_peers()
        with pytest.raises(ConnectionError):
            wait_until(lambda: not client.send(b"2"), 5, "the reset")
    with connect(wire) as client:
        assert ask(client, b"3") == b"3"


def test_a_reset_reaches_who_waits_for_an_answer(wire: Wire) -> None:
    # Both of the wire's threads wait for data: nothing may be left in their hands that keeps a connection open
    with connect(wire) as client:
        ask(client, b"1")
        wire.reset_peers()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_blackhole_says_nothing_and_heals(wire: Wire) -> None:
    with connect(wire, 0.3) as client:
        wire.toxic = Toxic(timeout=True)
        with pytest.raises(TimeoutError):
            ask(client, b"lost")
        wire.up()
        client.settimeout(5)
        assert client.recv(10) == b"lost"


def test_down_refuses_and_up_is_on_the_same_port(wire: Wire) -> None:
    port = wire.port
    wire.down()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    wire.up()
    with connect(wire) as client:
        assert ask(client, b"again") == b"again"
    assert wire.port == port
