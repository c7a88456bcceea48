"""A deadline for a whole exchange. Timeouts of single reads never end one that drips a byte now and then."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from esid import clock

_current = threading.local()


class Exchange:
    """One request and its answer. `expired` is True once the deadline has cut it off."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.expired = False
        self.sock: Any = None

    def cut(self) -> None:
        """Shut the socket down under whoever reads from it."""
        self.expired = True
        try:
            if self.sock is not None:
                # The plain socket's method: the one of an SSLSocket takes the TLS state away from under the reader.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass


class Watch:
    """One thread of a process that cuts off exchanges whose deadline has passed."""

    def __init__(self) -> None:
        self._exchanges: set[Exchange] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._last_at = math.inf

    @contextmanager
    def exchange(self, seconds: float) -> Iterator[Exchange]:
        """Everything that the calling thread sends and reads in here ends within `seconds`."""
        with self._changed:
            exchange = Exchange(min(clock.monotonic() + seconds, self._last_at))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="esi-deadline", daemon=True)
                # Where the system makes no thread just now, the next exchange tries again.
                thread.start()
                self._thread = thread
            self._exchanges.add(exchange)
            if len(self._exchanges) == 1:
                self._changed.notify()
        _current.exchange = exchange
        try:
            yield exchange
        finally:
            _current.exchange = None
            with self._changed:
                self._exchanges.discard(exchange)

    def end_within(self, seconds: float) -> None:
        """A stop: whatever is on its way ends within `seconds`, and so does what is begun from now on."""
        with self._changed:
            self._last_at = clock.monotonic() + seconds
            for exchange in self._exchanges:
                exchange.ends_at = min(exchange.ends_at, self._last_at)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._exchanges:
                    self._changed.wait()
                late = [exchange for exchange in self._exchanges if exchange.ends_at <= clock.monotonic()]
                self._exchanges.difference_update(late)
            for exchange in late:
                exchange.cut()
            clock.sleep(0.25)


def left_s() -> float:
    """Seconds that the calling thread's exchange has left."""
    exchange = getattr(_current, "exchange", None)
    return math.inf if exchange is None else float(exchange.ends_at) - clock.monotonic()


def adopt(sock: Any) -> None:
    """The calling thread's exchange goes over this socket, which is open or about to be."""
    exchange = getattr(_current, "exchange", None)
    if exchange is not None:
        exchange.sock = sock
        if exchange.expired:
            exchange.cut()


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        adopt(self.sock)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        adopt(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose connections can be cut off by a `Watch`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager with our connection classes."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The same for one behind a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager
