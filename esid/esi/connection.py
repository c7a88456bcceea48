"""A TCP or TLS connection to one host, with a deadline for opening it whatever its name resolves to."""

from __future__ import annotations

import select
import socket
import ssl
from pathlib import Path
from typing import Any

from esid import clock
from esid.esi.deadline import adopt, left_s
from esid.esi.tunnel import Proxy

#: Of a socket: seconds of silence before the other side is asked whether it lives, between two questions, and how many;
#: milliseconds that what was sent may stay unacknowledged.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5_000}


class Connection:
    """One connection, opened when it is used. Connecting and reading have times of their own.

    Attributes:
        sock: None while it is closed.
        used_at: when it was wanted last, on the monotonic clock.
    """

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, proxy: Proxy | None, connect_s: float, read_s: float
    ) -> None:
        self._address, self._tls, self._proxy = address, tls, proxy
        self._connect_s, self._read_s = connect_s, read_s
        self.sock: Any = None
        self.used_at = 0.0

    def connect(self) -> None:
        """Open it. Raises OSError."""
        self.sock = _connected(self._proxy.address if self._proxy else self._address, self._connect_s)
        self.sock.settimeout(self._connect_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if self._proxy:
            self._proxy.lead_on(self.sock, self._address)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._address[0], do_handshake_on_connect=False)
            adopt(self.sock)
            self.sock.do_handshake()
        self.sock.settimeout(self._read_s)

    def close(self) -> None:
        """Close it; it is opened anew when it is used again."""
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()


def trusting(path: str) -> ssl.SSLContext:
    """TLS with these authorities and no others. Raises OSError."""
    if Path(path).is_dir():
        return ssl.create_default_context(capath=path)
    return ssl.create_default_context(cafile=path)


def _connected(address: tuple[str, int], connect_s: float) -> socket.socket:
    """A socket to the first address of a name that takes it.

    All addresses together have `connect_s`, in even parts: one that says nothing leaves some of it to the next.

    Raises:
        OSError: of the last address that was tried, or of the name.
    """
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    ends_at, failed = clock.monotonic() + connect_s, OSError("timed out")
    for number, one in enumerate(found):
        seconds = min(ends_at - clock.monotonic(), left_s()) / (len(found) - number)
        if seconds <= 0:
            break
        try:
            return _opened(one, seconds)
        except OSError as error:
            failed = error
    raise failed


def _opened(one: Any, seconds: float) -> socket.socket:
    """A socket to one of the addresses that `getaddrinfo` has found. Raises OSError."""
    family, kind, protocol, _, where = one
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(seconds)
        adopt(sock)
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


def is_readable(sock: Any) -> bool:
    """True where something has come that was not asked for, or the other side has closed."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
