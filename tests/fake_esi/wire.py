"""HTTP/1.1 on a socket: read requests, send answers, and spoil the sending where a fault says so."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tests.fake_esi.faults import Fault

_MAX_HEAD = 65536
_REASONS = {each.value: each.phrase for each in HTTPStatus} | {420: "Enhance Your Calm", 520: "Unknown Error"}
_CONSTANT_HEADERS = (
    "Connection: keep-alive\r\n"
    "Access-Control-Allow-Credentials: true\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Expose-Headers: Etag, Retry-After, X-Compatibility-Date, X-Esi-Error-Limit-Remain, "
    "X-Esi-Error-Limit-Reset, X-Pages, X-Ratelimit-Group, X-Ratelimit-Limit, X-Ratelimit-Remaining, "
    "X-Ratelimit-Used\r\n"
    "Strict-Transport-Security: max-age=31536000\r\n"
    "Vary: Accept-Language, X-Compatibility-Date\r\n"
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came; header names are in lower case, `path` is without the query of `target`."""

    method: str
    target: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer ready to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    def head(self) -> bytes:
        """Status line and header block; Content-Length is added unless given or meaningless."""
        length = "" if self.status in (204, 304) or "Content-Length" in self.headers else self._length()
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        reason = _REASONS.get(self.status, "Unknown")
        return f"HTTP/1.1 {self.status} {reason}\r\n{lines}{length}{_CONSTANT_HEADERS}\r\n".encode("latin-1")

    def _length(self) -> str:
        return f"Content-Length: {len(self.body)}\r\n"


class RequestReader:
    """The requests that arrive on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = b""

    def next(self) -> Incoming | None:
        """The next request, None when the peer is done; ValueError for what is not HTTP."""
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > _MAX_HEAD:
                raise ValueError("header block too large")
            if not self._receive():
                return None
        lines = self._pending[:end].decode("latin-1").split("\r\n")
        self._pending = self._pending[end + 4 :]
        method, target, _version = lines[0].split(" ")
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = self._read_body(int(headers.get("content-length", 0)))
        return None if body is None else Incoming(method, target, target.partition("?")[0], headers, body)

    def _read_body(self, length: int) -> bytes | None:
        while len(self._pending) < length:
            if not self._receive():
                return None
        body, self._pending = self._pending[:length], self._pending[length:]
        return body

    def _receive(self) -> bool:
        chunk = self._connection.recv(65536)
        self._pending += chunk
        return bool(chunk)


def deliver(connection: socket.socket, answer: Answer, fault: Fault | None, pause: Callable[[float], object]) -> bool:
    """Send the answer and tell whether it went out whole; `pause(seconds)` is called between drips."""
    if fault is None or not fault.spoils_sending:
        connection.sendall(answer.head() + answer.body)
        return True
    if fault.hang_s and _peer_leaves_within(connection, fault.hang_s):
        return False
    if fault.reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if fault.is_silent:
        return False
    if fault.truncate:
        connection.sendall(answer.head() + answer.body[: len(answer.body) // 2])
        return False
    _drip(connection, answer.head(), fault.headers_drip_s, pause)
    _drip(connection, answer.body, fault.drip_s, pause)
    return True


def _peer_leaves_within(connection: socket.socket, seconds: float) -> bool:
    """Wait so many seconds; True as soon as the peer closes the connection (or this side is stopped)."""
    connection.settimeout(seconds)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    finally:
        connection.settimeout(None)
    return True


def _drip(connection: socket.socket, data: bytes, every_s: float, pause: Callable[[float], object]) -> None:
    """Send the data byte by byte with pauses, or at once when `every_s` is 0."""
    if not every_s:
        connection.sendall(data)
        return
    for position in range(len(data)):
        connection.sendall(data[position : position + 1])
        pause(every_s)
