"""Through a proxy to another host: HTTP's CONNECT (RFC 9110, 9.3.6), after which the connection is as one to the host."""

from __future__ import annotations

import base64
import http.client
import socket
from urllib.parse import unquote, urlsplit

#: Bytes of the proxy's answer, which has no body, at most.
_LARGEST_HEAD = 16 * 1024


class Proxy:
    """One proxy.

    Args:
        url: `http://user:password@host:port`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self._says = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._says = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"

    def lead_on(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Have the proxy connect us to a host.

        Raises:
            OSError: the connection was lost.
            http.client.HTTPException: it refuses, or is no proxy.
        """
        name, port = address
        target = f"[{name}]:{port}" if ":" in name else f"{name.encode('idna').decode()}:{port}"
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._says}\r\n".encode())
        head = b""
        # Byte by byte at its end: what follows it is the host's.
        while not head.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            if not piece or len(head) >= _LARGEST_HEAD:
                break
            head += piece
        line = head.partition(b"\r\n")[0].decode("latin-1")
        version, _, rest = line.partition(" ")
        if not version.startswith("HTTP/1") or not rest.startswith("2") or not head.endswith(b"\r\n\r\n"):
            where = f"{self.address[0]}:{self.address[1]}"
            raise http.client.HTTPException(f"the proxy {where} does not lead on to {target}: {line[:100] or 'no answer'}")
