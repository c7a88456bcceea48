"""The status server over a view of the test's: who is let in, who is turned away, and what a slow database does to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from esid.errors import DatabaseUnavailable
from esid.web import server
from esid.web import view as module
from esid.web.view import View
from tests.tools.waiting import wait_until

Get = Callable[..., int]


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """On loopback, unless the test says otherwise."""
    with socket.create_server((getattr(request, "param", "127.0.0.1"), 0), backlog=200) as opened:
        yield opened


@pytest.fixture
def view() -> View:
    """Of nothing: `/healthz` asks for none."""
    return View(None, None, None, {}, "", ())  # type: ignore[arg-type]


@pytest.fixture
def get(listener: socket.socket, view: View) -> Iterator[Get]:
    """Asks a running server; the status, 0 where it closes the connection without one."""

    def ask(path: str = "/healthz", host: str | None = None) -> int:
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=10) as client:
            said = "" if host is None else f"Host: {host}\r\n"
            client.sendall(f"GET {path} HTTP/1.0\r\n{said}\r\n".encode())
            try:
                answer = client.recv(100)
            except ConnectionResetError:
                answer = b""
        return int(answer.split()[1]) if answer else 0

    with server.serve(listener, view):
        yield ask


def test_a_client_for_which_no_thread_is_made_leaves_its_place_to_others(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limits:
        limits.setattr(threading.Thread, "start", no_thread)
        assert [get() for _ in range(server.MOST_CLIENTS)] == [0] * server.MOST_CLIENTS
    assert get() == 200


@pytest.fixture
def drip(listener: socket.socket) -> Iterator[Callable[[int], list[socket.socket]]]:
    """Opens connections that send a byte of an endless request now and then; gives those that are still open."""
    clients, stop = list[socket.socket](), threading.Event()

    def send() -> None:
        while not stop.wait(0.1):
            for client in list(clients):
                try:
                    client.send(b"x")
                except OSError:
                    clients.remove(client)
                    client.close()

    def more(count: int) -> list[socket.socket]:
        for _ in range(count):
            client = socket.create_connection(listener.getsockname(), timeout=10)
            client.send(b"GET /")
            clients.append(client)
        return clients

    thread = threading.Thread(target=send)
    thread.start()
    yield more
    stop.set()
    thread.join()
    for client in clients:
        client.close()


def test_connections_that_drip_shut_nobody_out(
    get: Get, drip: Callable[[int], list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given that time alone cuts nobody off: who waited for that would wait longer than `get` does
    monkeypatch.setattr(server, "CLIENT_S", 3600)
    drip(200)
    for _ in range(20):
        assert get() == 200
        drip(5)


def test_who_has_not_said_all_in_time_is_cut_off_however_often_it_says_something(
    get: Get, drip: Callable[[int], list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.CLIENT_S == 10
    monkeypatch.setattr(server, "CLIENT_S", 0.5)
    left = drip(50)
    wait_until(lambda: not left, 10, lambda: f"{len(left)} are still there")
    assert get() == 200


def test_who_is_being_answered_keeps_its_place(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given as many as there are places, all of which wait for a slow database, longer than they had to say what they want
    monkeypatch.setattr(server, "MOST_CLIENTS", 4)
    monkeypatch.setattr(server, "CLIENT_S", 0.1)
    asked, may_fail = list[int](), threading.Event()

    def wait(_: object) -> None:
        asked.append(1)
        assert may_fail.wait(10)
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(server.View, "state", wait)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(get, "/status") for _ in range(4)]
        wait_until(lambda: len(asked) == 4, 10, "all of them")
        assert get() == 0
        may_fail.set()
        assert [one.result() for one in waiting] == [503] * 4
    wait_until(lambda: get() == 200, 10, "a place")


def test_a_request_takes_little_memory(get: Get) -> None:
    assert get(host="x" * 60_000 + "\r\nA: " + "x" * 60_000 + "\r\nB: " + "x" * 60_000) == 431


def test_a_database_that_is_slow_to_fail_fails_once_for_all_who_wait(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that lets the first of them wait
    asked, may_fail = list[int](), threading.Event()

    def fail(_: object) -> None:
        asked.append(1)
        assert may_fail.wait(10)
        raise DatabaseUnavailable("no answer within 18 s")

    monkeypatch.setattr(module, "collect", fail)
    monkeypatch.setattr(module, "KEPT_S", 60.0)
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(get, "/status") for _ in range(6)]
        wait_until(lambda: asked, 10, "somebody who asks the database")
        assert get() == 200
        may_fail.set()
        assert [one.result() for one in waiting] == [503] * 6
    assert len(asked) == 1


def test_a_failure_is_remembered_no_longer_than_a_state(
    view: View, monkeypatch: pytest.MonkeyPatch, times: list[float]
) -> None:
    found = iter([DatabaseUnavailable("away"), None])

    def collect(_: object) -> dict[str, object]:
        if error := next(found):
            raise error
        return {"version": "1"}

    monkeypatch.setattr(module, "collect", collect)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match=r"^away$"):
            view.state()
    times[0] += module.KEPT_S
    assert view.state() == {"version": "1"}


@pytest.mark.parametrize(
    "host",
    [None, "127.0.0.1", "127.0.0.1:8580", "localhost", "LOCALHOST:8580", "[::1]", "[::1]:8580", "192.0.2.7:80"],
)
def test_on_loopback_it_answers_to_addresses_and_localhost(get: Get, host: str | None) -> None:
    assert get(host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8580", "localhost.evil.example", "127.0.0.1.evil.example", "", ":80", "[::1", "[x]"],
)
@pytest.mark.parametrize("path", ["/", "/status", "/healthz", "/nowhere"])
def test_on_loopback_it_answers_to_no_other_name(get: Get, host: str, path: str) -> None:
    assert get(path, host) == 421


def test_of_two_names_neither_may_be_another(get: Get) -> None:
    assert get(host="localhost\r\nHost: evil.example") == 421


@pytest.mark.parametrize("listener", ["0.0.0.0"], indirect=True)
def test_where_it_listens_for_others_it_answers_to_any_name(get: Get) -> None:
    assert get(host="esid.example") == 200
