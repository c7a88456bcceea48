"""A TCP proxy on loopback whose wire a test can spoil: the eight toxics of Toxiproxy in front of any server.

latency, bandwidth, slow_close, timeout (blackhole: nothing passes any more, nobody is told), reset_peer, slicer,
limit_data, down.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from tests.tools.ports import free_ports

_CHUNK = 65_536


@dataclass(frozen=True)
class Toxic:
    """What is wrong with a wire; 0 or False = nothing.

    Attributes:
        latency_s: each part comes so much later.
        bandwidth: bytes a second.
        slow_close_s: a closed end is told to the other end so much later.
        timeout: nothing passes, and no end is told.
        slicer: bytes of a part; each is sent by itself.
        limit_data: the connection ends after so many bytes from the server.
    """

    latency_s: float = 0.0
    bandwidth: float = 0.0
    slow_close_s: float = 0.0
    timeout: bool = False
    slicer: int = 0
    limit_data: int = 0


WELL = Toxic()


class Wire:
    """Passes bytes between whoever connects to `port` and the server behind it.

    Args:
        to_port: where the server listens on 127.0.0.1.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.toxic = WELL
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._listener: socket.socket | None = None
        (self.port,) = free_ports(1)
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.down()

    def up(self) -> None:
        """Accept connections (again), on the same port as before; nothing is spoiled."""
        self.toxic = WELL
        if self._listener is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse new connections and end those that there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._end_all(reset=False)

    def reset_peers(self) -> None:
        """Reset all connections that there are; new ones are welcome."""
        self._end_all(reset=True)

    @property
    def connections(self) -> int:
        """Connections that there are now."""
        return len(self._pairs) // 2

    def _end_all(self, *, reset: bool) -> None:
        with self._lock:
            pairs = list(self._pairs)
            if reset:
                self._pairs.clear()
        for one in pairs:
            with suppress(OSError):
                if reset:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Who waits in recv() holds the connection open beyond close(); SHUT_RD wakes it and sends nothing.
                one.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            if reset:
                one.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        if self.toxic.timeout:
            # The packets of the handshake are lost, too, as far as a proxy can tell: nobody ever answers.
            while self.toxic.timeout and not self._closing.wait(0.05):
                pass
        try:
            server = socket.create_connection(("127.0.0.1", self._to_port), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs[client], self._pairs[server] = server, client
        for source, target, is_answer in ((client, server, False), (server, client, True)):
            threading.Thread(target=self._pass, args=(source, target, is_answer), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        passed = 0
        try:
            while data := source.recv(_CHUNK):
                passed += len(data)
                limit = self.toxic.limit_data
                if is_answer and limit and passed >= limit:
                    target.sendall(data[: max(0, len(data) - (passed - limit))])
                    break
                self._send(target, data)
        except OSError:
            pass
        if self.toxic.slow_close_s:
            self._closing.wait(self.toxic.slow_close_s)
        self._forget(source)

    def _send(self, target: socket.socket, data: bytes) -> None:
        toxic = self.toxic
        while self.toxic.timeout and not self._closing.wait(0.05):
            pass
        if toxic.latency_s:
            self._closing.wait(toxic.latency_s)
        size = toxic.slicer or len(data)
        for start in range(0, len(data), size):
            part = data[start : start + size]
            if toxic.bandwidth:
                self._closing.wait(len(part) / toxic.bandwidth)
            target.sendall(part)

    def _forget(self, one: socket.socket) -> None:
        """End a pair in good order, unless the other thread has, or it was reset."""
        with self._lock:
            other = self._pairs.pop(one, None)
            if other is None:
                return
            del self._pairs[other]
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
