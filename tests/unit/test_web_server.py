"""The status server over a view of the test's: who is let in, who is turned away, and what a slow database does to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from esid import clock
from esid.errors import DatabaseUnavailable
from esid.web import server
from esid.web import view as module
from esid.web.view import View
from tests.waiting import wait_until

Get = Callable[..., int]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """On loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as opened:
        yield opened


@pytest.fixture
def view() -> View:
    """Of nothing: `/healthz` asks for none."""
    return View(None, None, None, {}, "", ())  # type: ignore[arg-type]


@pytest.fixture
def get(listener: socket.socket, view: View) -> Iterator[Get]:
    """Asks a running server; the status, 0 where it closes the connection without one."""

    def ask(path: str = "/healthz", host: str | None = None) -> int:
        with socket.create_connection(listener.getsockname()[:2], timeout=10) as client:
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


def test_a_failure_is_remembered_no_longer_than_a_state(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    times, found = [1000.0], iter([DatabaseUnavailable("away"), None])

    def collect(_: object) -> dict[str, object]:
        if error := next(found):
            raise error
        return {"version": "1"}

    monkeypatch.setattr(clock, "monotonic", lambda: times[0])
    monkeypatch.setattr(module, "collect", collect)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match=r"^away$"):
            view.state()
    times[0] += module.KEPT_S
    assert view.state() == {"version": "1"}
