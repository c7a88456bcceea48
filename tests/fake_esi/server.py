"""The fake ESI as a server: a thread for each connection, and the log of what was asked."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from tests.fake_esi.answering import Answering, Exchange
from tests.fake_esi.clock import Clock
from tests.fake_esi.faults import Faults
from tests.fake_esi.limits import Limits
from tests.fake_esi.log import Request
from tests.fake_esi.wire import Incoming, RequestReader, deliver
from tests.fake_esi.world import World
from tests.tools.ports import free_ports

_BUCKETS = {"killmail": (3600, 900), "status": (600, 900)}
_JOIN_S = 2.0


class FakeEsi:
    """A fake ESI on 127.0.0.1 that answers from `world`.

    `error_limit` errors are allowed per `error_window_s` seconds; `buckets` overrides (tokens, seconds) of
    the groups "killmail" and "status". `latency_s` seconds pass before each answer. `log` lists the requests
    in the order they were answered. Stopping keeps everything, and starting again reopens the same port.
    """

    def __init__(
        self,
        world: World,
        *,
        port: int = 0,
        error_limit: int = 100,
        error_window_s: int = 60,
        buckets: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        self.world = world
        self.clock = Clock()
        self.limits = Limits(error_limit, error_window_s, _BUCKETS | (buckets or {}))
        self.faults = Faults()
        self.log: list[Request] = []
        self.latency_s = 0.0
        self._answering = Answering(world, self.clock, self.limits, self.faults)
        self._port = port or free_ports(1)[0]
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """The address of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Listen and answer from now on."""
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=512)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close the port and all connections, whatever they are doing; harmless when not started."""
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        _shut_down(self._listener)
        self._acceptor.join(_JOIN_S)
        self._listener.close()
        self._listener = self._acceptor = None
        with self._lock:
            open_connections = dict(self._connections)
        for connection in open_connections:
            _shut_down(connection)
        for thread in open_connections.values():
            thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self, prefix: str | None = None, status: int | None = None, method: str | None = None) -> list[Request]:
        """The logged requests with this beginning of the path, this status and this method."""
        return [
            each
            for each in list(self.log)
            if (prefix is None or each.path.startswith(prefix))
            and status in (None, each.status)
            and method in (None, each.method)
        ]

    def count(self, prefix: str | None = None, status: int | None = None, method: str | None = None) -> int:
        """How many logged requests fit."""
        return len(self.requests(prefix, status, method))

    def answers(self, status: int) -> list[Request]:
        """The requests that were answered with this status."""
        return self.requests(status=status)

    def early(self) -> list[Request]:
        """The requests that came before their cached answer had expired."""
        return [each for each in list(self.log) if each.early]

    def clear_log(self) -> None:
        """Forget the requests so far; caches, limits and expiries stay."""
        self.log.clear()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until either side ends it."""
        with connection, suppress(OSError, ValueError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = RequestReader(connection)
            while not self._stopping.is_set() and (incoming := reader.next()) is not None:
                if not self._reply(connection, incoming):
                    break
        with self._lock:
            del self._connections[connection]

    def _reply(self, connection: socket.socket, incoming: Incoming) -> bool:
        """Answer one request; whether the connection can be used for another."""
        at = self.clock.now()
        if self.latency_s:
            self._stopping.wait(self.latency_s)
        exchange = self._answering.exchange(incoming, at)
        self.log.append(exchange.request)
        delivered = self._send(connection, exchange)
        return delivered and incoming.headers.get("connection", "").lower() != "close"

    def _send(self, connection: socket.socket, exchange: Exchange) -> bool:
        """Send the answer; a spoiled one counts as given, for its expiry, only once it has gone out."""
        fault = exchange.fault
        spoiled = fault is not None and fault.spoils_sending
        if not spoiled:
            self._answering.given(exchange)
        delivered = deliver(connection, exchange.answer, fault, self._stopping.wait)
        if spoiled and delivered:
            self._answering.given(exchange)
        return delivered


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # the peer may have been quicker
        connection.shutdown(socket.SHUT_RDWR)
