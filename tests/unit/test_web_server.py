"""The status server over a view of the test's: who is let in, who is turned away, and what a slow database does to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from esid.web import server
from esid.web.view import View

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
