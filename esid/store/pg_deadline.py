"""A deadline for PostgreSQL's answers. libpq waits for ever where packets vanish behind a proxy that still answers TCP.

Installed once a process, for all connections: psycopg2 calls it whenever it has to wait for the socket.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2 import extensions

from esid import clock

#: Seconds that the server has to accept a connection, and to say anything to a statement: longer than its own
#: statement_timeout, which answers first.
CONNECT_S = 5.0
_deadline_s = 35.0
#: The same for who has to say within half a minute that it lives, and is behind one silent connection at a time.
SOON_S = 15.0
_thread = threading.local()
#: How the error of a silent server begins, and ends where it has not even let us in.
SILENT, AT_FIRST = "no answer within", "to a new connection"


def install(deadline_s: float | None) -> None:
    """From now on a connection that is silent for `deadline_s` seconds while we wait for it is broken.

    None = it is waited for without an end, and COPY can be used, which psycopg2 refuses to do otherwise.
    """
    global _deadline_s
    _deadline_s = deadline_s or 0.0
    extensions.set_wait_callback(_wait if deadline_s else None)


def is_installed() -> bool:
    """True where COPY cannot be used."""
    return extensions.get_wait_callback() is not None


@contextmanager
def at_most(deadline_s: float) -> Iterator[None]:
    """Meanwhile the calling thread waits for no answer any longer than that."""
    before_s = getattr(_thread, "deadline_s", math.inf)
    _thread.deadline_s = min(before_s, deadline_s)
    try:
        yield
    finally:
        _thread.deadline_s = before_s


def patience_s() -> float:
    """Seconds for which the calling thread waits for an answer."""
    return min(_deadline_s, getattr(_thread, "deadline_s", math.inf))


def _wait(connection: Any) -> None:
    # Before the first poll: that one changes the status.
    is_connecting = connection.status == extensions.STATUS_SETUP
    deadline_s = min(CONNECT_S, patience_s()) if is_connecting else patience_s()
    poller, sock, ends_at = None, 0, 0.0
    while (state := connection.poll()) != extensions.POLL_OK:
        number = connection.fileno()
        if poller is None or (is_connecting and sock != os.fstat(number).st_ino):
            # libpq goes on to the next address of the name, which has as long.
            poller, sock, ends_at = select.poll(), os.fstat(number).st_ino, clock.monotonic() + deadline_s
            poller.register(number)
        poller.modify(number, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left_s = ends_at - clock.monotonic()
        if left_s <= 0 or not poller.poll(left_s * 1000):
            _shut_down(number)
            raise psycopg2.OperationalError(f"{SILENT} {deadline_s:.0f} s{f' {AT_FIRST}' if is_connecting else ''}")


def patient(connection: Any, milliseconds: int) -> None:
    """Let what was sent on a connection be without an acknowledgement for so long, from now on."""
    with socket.socket(fileno=os.dup(connection.fileno())) as sock, suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _shut_down(number: int) -> None:
    """End a connection under its owner, who holds its lock just now: `close()` would wait for itself."""
    with socket.socket(fileno=os.dup(number)) as sock, suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
