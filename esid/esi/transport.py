"""How a request goes out: over a connection that each thread keeps open for itself, answers read by Node's parser (llhttp).

An adapter of `requests` like its own, for one host. Its own one, urllib3 below it and `http.client` below that took several
times the processor time of all the rest of a corporation, for what is not wanted here: a pool, retries, redirects, cookies,
a guess of the encoding, headers as those of a mail.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import weakref
import zlib
from collections import deque
from typing import Any, Self
from urllib.parse import urlsplit

import httptools
import requests
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from esid import clock
from esid.esi.connection import Connection, is_readable, trusting
from esid.esi.deadline import adopt
from esid.esi.tunnel import Proxy

#: Window bits that make zlib read gzip.
_GZIP = zlib.MAX_WBITS | 16
#: Bytes of one read, and most of the headers of an answer.
_CHUNK, _LARGEST_HEAD = 64 * 1024, 64 * 1024
_PORTS = {"http": 80, "https": 443}
#: Seconds after which a connection that nobody has used is opened anew.
_IDLE_S = 30.0
_TOO_EARLY = "the answer ended too early"
#: What no path holds.
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


class Transport(BaseAdapter):
    """Sends what it is given, once.

    Args:
        base_url: scheme, host and port of everything that it will be asked for.
        ca_file: whose certificates are believed, a file or a folder; "" = those of the usual authorities.
        proxy: `http://user:password@host:port` between us and an https host; "" = none.
    """

    def __init__(self, base_url: str, ca_file: str = "", proxy: str = "") -> None:
        super().__init__()
        host, self._base_url = urlsplit(base_url), base_url
        name, usual = host.hostname or "", _PORTS[host.scheme]
        self._address = (name, host.port or usual)
        name = f"[{name}]" if ":" in name else name.encode("idna").decode()
        self._host = name if self._address[1] == usual else f"{name}:{host.port}"
        self._tls = trusting(ca_file or DEFAULT_CA_BUNDLE_PATH) if host.scheme == "https" else None
        self._proxy = Proxy(proxy) if proxy else None
        self._kept = threading.local()
        # Closed before anything that hangs together with them is thrown away, in whatever order that happens.
        self._all: list[Connection] = []
        weakref.finalize(self, _close, self._all)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        """Send it; the body is still to be read, in the same thread.

        Args:
            request: its hook `connected` is called where a connection had to be opened, before anything is sent; what it
                raises keeps the request from leaving.
            timeout: seconds to connect, and between two reads.

        Returns:
            A Reply: of a Response what is asked for here. Making one of requests took a twentieth of a corporation.

        Raises:
            requests.ConnectionError: no answer came whose head could be read. Its `is_sent` is False where there was no
                connection.
        """
        connection, written = self._connection(timeout), self._written(request)
        answer, is_sent = None, False
        try:
            while not (answer and answer.status):
                is_sent, is_kept = False, connection.sock is not None
                if not is_kept:
                    connection.connect()
                    _tell_connected(request)
                adopt(connection.sock)
                is_sent, answer = True, _Answer(connection)
                try:
                    connection.sock.sendall(written)
                    answer.read_head()
                except OSError as error:
                    if not is_kept or answer.has_begun or _is_slow(error):
                        raise
                    # A kept connection was closed, or nobody acknowledged what was sent: ESI has not heard it.
                    answer.close()
                    connection.close()
                    answer = None
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if answer:
                answer.close()
            raise _failed(error, is_sent=is_sent) from error
        return Reply(answer)

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

    def _connection(self, timeout: Any) -> Connection:
        """This thread's own. One that the other side has closed, or says something unasked on, is opened anew, and so is one
        that nobody has used for a while: a firewall may have forgotten it, and tells nobody."""
        connection: Connection | None = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = Connection(self._address, self._tls, self._proxy, *timeout)
            self._all.append(connection)
        elif connection.sock is not None and (
            clock.monotonic() - connection.used_at > _IDLE_S or is_readable(connection.sock)
        ):
            connection.close()
        connection.used_at = clock.monotonic()
        return connection


class Headers(dict[str, str]):
    """The headers of one answer by their names in lower case, asked for in any case. Those of requests took a twentieth of a
    corporation."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default."""
        return dict.get(self, name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return dict.__getitem__(self, name.lower())

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, str(name).lower())


class Reply:
    """An answer whose head is in. As a context: it is closed at the end.

    Attributes:
        raw: its body, still to be read.
    """

    def __init__(self, answer: _Answer) -> None:
        self.status_code, self.headers, self.raw = answer.status, answer.headers, _Body(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What was not read is not wanted."""
        self.raw.close()


class _Answer:
    """One answer as it comes in; the parser calls what begins with `on_`.

    Attributes:
        is_whole: all of it is in, and the connection may be used for another one or is closed.
        has_begun: some of it came.
    """

    def __init__(self, connection: Any) -> None:
        self._connection, self._sock = connection, connection.sock
        self._parser: Any = httptools.HttpResponseParser(self)
        self._pieces: deque[bytes] = deque()
        self._has_head = self.is_whole = self.has_begun = False
        self._error: http.client.HTTPException | None = None
        self._given = Headers()
        self.status, self.headers = 0, Headers()

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
            key, text, given = name.lower().decode("latin-1"), value.decode("latin-1").rstrip(" \t"), self._given
            given[key] = f"{given[key]}, {text}" if key in given else text

    def on_headers_complete(self) -> None:
        """Of an interim answer (1xx) nothing is kept."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        if self._has_head:
            self.headers = self._given
        self._given = Headers()

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
            self.has_begun = True
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


def _failed(error: Exception, *, is_sent: bool) -> Any:
    """What is raised for it."""
    kind = requests.exceptions.SSLError if isinstance(error, ssl.SSLError) else requests.ConnectionError
    failed: Any = kind(error)
    failed.is_sent = is_sent
    return failed


def _is_slow(error: OSError) -> bool:
    """True where the other side takes its time; a timeout of the kernel's has a number, and says that nobody is there."""
    return isinstance(error, TimeoutError) and error.errno is None


def _tell_connected(request: requests.PreparedRequest) -> None:
    for hook in request.hooks.get("connected", ()):
        hook()


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
