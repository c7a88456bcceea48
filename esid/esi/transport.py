"""How a request goes out: over a connection that each thread keeps open for itself, answers read by Node's parser (llhttp).

An adapter of `requests` like its own, for one host. Its own one, urllib3 below it and `http.client` below that took several
times the processor time of all the rest of a corporation, for what is not wanted here: a pool, retries, redirects, cookies,
a guess of the encoding, headers as those of a mail.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import ssl
import threading
import weakref
import zlib
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import httptools
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from esid import clock
from esid.esi.deadline import adopt, left_s

#: Window bits that make zlib read gzip.
_GZIP = zlib.MAX_WBITS | 16
#: Bytes of one read, and most of the headers of an answer.
_CHUNK, _LARGEST_HEAD = 64 * 1024, 64 * 1024
_PORTS = {"http": 80, "https": 443}
_TOO_EARLY = "the answer ended too early"
#: What no path holds.
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


class Transport(BaseAdapter):
    """Sends what it is given, once.

    Args:
        base_url: scheme, host and port of everything that it will be asked for.
    """

    def __init__(self, base_url: str) -> None:
        super().__init__()
        host, self._base_url = urlsplit(base_url), base_url
        name, usual = host.hostname or "", _PORTS[host.scheme]
        self._address = (name, host.port or usual)
        name = f"[{name}]" if ":" in name else name.encode("idna").decode()
        self._host = name if self._address[1] == usual else f"{name}:{host.port}"
        self._tls = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH) if host.scheme == "https" else None
        self._kept = threading.local()
        # Closed before anything that hangs together with them is thrown away, in whatever order that happens.
        self._all: list[_Connection] = []
        weakref.finalize(self, _close, self._all)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send it; the body is still to be read, in the same thread.

        Args:
            request: its hook `connected` is called where a connection had to be opened, before anything is sent; what it
                raises keeps the request from leaving.
            timeout: seconds to connect, and between two reads.

        Raises:
            requests.ConnectionError: no answer came whose head could be read. Its `is_sent` is False where there was no
                connection.
        """
        connection, written = self._connection(timeout), self._written(request)
        answer, is_sent = None, False
        try:
            if connection.sock is None:
                connection.connect()
                _tell_connected(request)
            adopt(connection.sock)
            is_sent = True
            connection.sock.sendall(written)
            answer = _Answer(connection)
            answer.read_head()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if answer:
                answer.close()
            kind = requests.exceptions.SSLError if isinstance(error, ssl.SSLError) else requests.ConnectionError
            failed: Any = kind(error)
            failed.is_sent = is_sent
            raise failed from error
        response = requests.Response()
        response.status_code, response.headers, response.request = answer.status, answer.headers, request
        response.raw = _Body(answer)
        return response

    def close(self) -> None:
        """Close the connections of all threads."""
        _close(self._all)

    def _written(self, request: requests.PreparedRequest) -> bytes:
        """The request as it goes over the line. Raises RequestException where something would break a line."""
        target = str(request.url).removeprefix(self._base_url)
        if _UNFIT.search(target):
            raise requests.exceptions.InvalidURL("a blank or a control character in a path")
        lines = [
            f"{request.method} {target} HTTP/1.1",
            f"Host: {self._host}",
            *[f"{name}: {value}" for name, value in request.headers.items()],
        ]
        head = "\r\n".join(lines)
        if head.count("\n") + head.count("\r") != 2 * (len(lines) - 1):
            raise requests.exceptions.InvalidHeader("a line break within a header")
        return f"{head}\r\n\r\n".encode("latin-1") + (request.body or b"")  # type: ignore[operator]

    def _connection(self, timeout: Any) -> _Connection:
        """This thread's own. One that the other side has closed, or says something unasked on, is opened anew."""
        connection: _Connection | None = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = _Connection(self._address, self._tls, *timeout)
            self._all.append(connection)
        elif connection.sock is not None and _is_readable(connection.sock):
            connection.close()
        return connection


class _Answer:
    """One answer as it comes in; the parser calls what begins with `on_`.

    Attributes:
        is_whole: all of it is in, and the connection may be used for another one or is closed.
    """

    def __init__(self, connection: Any) -> None:
        self._connection, self._sock = connection, connection.sock
        self._parser: Any = httptools.HttpResponseParser(self)
        self._pieces: deque[bytes] = deque()
        self._has_head = self.is_whole = False
        self._error: http.client.HTTPException | None = None
        self._given: dict[str, str] = {}
        self.status, self.headers = 0, CaseInsensitiveDict[str]()

    def read_head(self) -> None:
        """Raises OSError, HTTPException."""
        read = 0
        while not self._has_head:
            if read >= _LARGEST_HEAD:
                raise http.client.HTTPException(f"more than {_LARGEST_HEAD >> 10} KiB of headers")
            read += self._feed()

    def read(self) -> bytes:
        """The next piece of the body as it was sent, b"" at its end. Raises OSError, HTTPException."""
        read = 0
        while not self._pieces and not self.is_whole:
            if self._error:
                raise self._error
            if read >= _LARGEST_HEAD:
                raise http.client.HTTPException(f"more than {_LARGEST_HEAD >> 10} KiB of trailers")
            read += self._feed()
        return self._pieces.popleft() if self._pieces else b""

    def close(self) -> None:
        """What has not been read to its end cannot be followed by another answer."""
        if not self.is_whole:
            self._connection.close()
        self._parser = None  # it holds us, too: nobody else would throw the two away soon

    def on_message_begin(self) -> None:
        """The first, one after an interim answer, or one that nobody has asked for and that is not read."""
        if self.is_whole:
            raise http.client.HTTPException("an answer too many")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One that stands there twice is one with both values; trailers are none."""
        if not self._has_head:
            key, text = name.lower().decode("latin-1"), value.decode("latin-1").rstrip(" \t")
            self._given[key] = f"{self._given[key]}, {text}" if key in self._given else text

    def on_headers_complete(self) -> None:
        """Of an interim answer (1xx) nothing is kept."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        if self._has_head:
            self.headers = CaseInsensitiveDict(self._given)
        self._given.clear()

    def on_body(self, data: bytes) -> None:
        """A piece of it."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """All is in."""
        if self._has_head:
            self.is_whole = True
            if not self._parser.should_keep_alive():
                self._connection.close()

    def _feed(self) -> int:
        """Read on. Where no length was told, the end of the connection is that of the body."""
        data = self._sock.recv(_CHUNK)
        if data:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._connection.close()
                if not self.is_whole:
                    self._error = http.client.HTTPException(f"no HTTP answer: {error}")
                    # A head that was read counts, whatever follows it: a 420 is heard.
                    if not self._has_head:
                        raise self._error from error
            return len(data)
        self._connection.close()
        if not self._has_head:
            raise http.client.RemoteDisconnected("the other side closed the connection without a whole answer")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            raise http.client.HTTPException(_TOO_EARLY)
        self.is_whole = True
        return 0


class _Body:
    """The body of one answer, unpacked."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer
        self._is_gzip = answer.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip"}
        self._member: Any = None
        self.close = answer.close

    def read(self, size: int, decode_content: bool = True) -> bytes:
        """Up to so many bytes, decompressed, or a little more that are not packed; b"" at the end.

        Raises:
            requests.RequestException: it ends too early, or is no gzip.
            OSError: of the connection.
        """
        try:
            return self._unpacked(size) if self._is_gzip else self._answer.read()
        except http.client.HTTPException as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(error) from error

    def _unpacked(self, size: int) -> bytes:
        """A gzip file is one member or more; no member at all is an empty body."""
        while True:
            member = self._member
            packed = (member and (member.unconsumed_tail or member.unused_data)) or self._answer.read()
            if member is None or member.eof:
                if not packed:
                    return b""
                member = self._member = zlib.decompressobj(_GZIP)
            if data := member.decompress(packed, size):
                return bytes(data)
            if not (packed or member.eof):
                raise http.client.HTTPException(_TOO_EARLY)


class _Connection:
    """One connection, opened when it is used. Connecting and reading have times of their own.

    Attributes:
        sock: None while it is closed.
    """

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, connect_s: float, read_s: float) -> None:
        self._address, self._tls = address, tls
        self._connect_s, self._read_s = connect_s, read_s
        self.sock: Any = None

    def connect(self) -> None:
        """Open it. Raises OSError."""
        self.sock = _connected(self._address, self._connect_s)
        self.sock.settimeout(self._connect_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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


def _tell_connected(request: requests.PreparedRequest) -> None:
    for hook in request.hooks.get("connected", ()):
        hook()


def _close(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.close()


def _is_readable(sock: Any) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
