"""How a request goes out: over the standard library's connections, one that each thread keeps open for itself.

An adapter of `requests` like its own, for one host. Its own one and urllib3 below it took as much processor time again for
what is not wanted here: a pool, retries, redirects, cookies, a guess of the encoding.
"""

from __future__ import annotations

import http.client
import select
import ssl
import threading
import weakref
import zlib
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from esid.esi.deadline import adopt

#: Window bits that make zlib read gzip.
_GZIP = zlib.MAX_WBITS | 16


class Transport(BaseAdapter):
    """Sends what it is given, once.

    Args:
        base_url: scheme, host and port of everything that it will be asked for.
    """

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._host = urlsplit(base_url)
        self._tls = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH) if self._host.scheme == "https" else None
        self._kept = threading.local()
        # Closed before anything that hangs together with them is thrown away, in whatever order that happens.
        self._all: list[http.client.HTTPConnection] = []
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
            timeout: seconds to connect, and between two reads.

        Raises:
            requests.ConnectionError: no answer came whose head could be read.
        """
        connection = self._connection(timeout)
        target = urlsplit(str(request.url))
        path = target.path + (f"?{target.query}" if target.query else "")
        try:
            connection.request(str(request.method), path, request.body, request.headers)
            adopt(connection)
            answer = connection.getresponse()
        except ssl.SSLError as error:
            connection.close()
            raise requests.exceptions.SSLError(error) from error
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise requests.ConnectionError(error) from error
        response = requests.Response()
        response.status_code, response.headers, response.request = answer.status, _headers(answer), request
        response.raw = _Body(connection, answer, response.headers.get("Content-Encoding", ""))
        return response

    def close(self) -> None:
        """Close the connections of all threads."""
        _close(self._all)

    def _connection(self, timeout: Any) -> http.client.HTTPConnection:
        """This thread's own. One that the other side has closed, or says something unasked on, is opened anew."""
        connection: Any = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = _opened(self._host, self._tls, *timeout)
            self._all.append(connection)
        elif connection.sock is not None and _is_readable(connection.sock):
            connection.close()
        return connection  # type: ignore[no-any-return]


class _Body:
    """The body of one answer."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, encoding: str) -> None:
        self._connection, self._answer = connection, answer
        self._is_gzip = encoding.lower() in {"gzip", "x-gzip"}
        self._member: Any = None

    def read(self, size: int, decode_content: bool = True) -> bytes:
        """Up to so many bytes, decompressed; b"" at the end.

        Raises:
            requests.RequestException: it ends too early, or is no gzip.
            OSError: of the connection.
        """
        try:
            return self._unpacked(size) if self._is_gzip else self._received(size)
        except http.client.HTTPException as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(error) from error

    def close(self) -> None:
        """What has not been read to its end cannot be followed by another answer."""
        if not self._answer.isclosed():
            self._connection.close()
            self._answer.close()

    def _unpacked(self, size: int) -> bytes:
        """A gzip file is one member or more; no member at all is an empty body."""
        while True:
            member = self._member
            packed = (member and (member.unconsumed_tail or member.unused_data)) or self._received(size)
            if member is None or member.eof:
                if not packed:
                    return b""
                member = self._member = zlib.decompressobj(_GZIP)
            if data := member.decompress(packed, size):
                return bytes(data)
            if not (packed or member.eof):
                raise http.client.IncompleteRead(b"")

    def _received(self, size: int) -> bytes:
        data = self._answer.read(size)
        if not data and self._answer.length:
            raise http.client.IncompleteRead(b"", self._answer.length)
        return data


def _opened(host: SplitResult, tls: ssl.SSLContext | None, connect_s: float, read_s: float) -> http.client.HTTPConnection:
    """A connection that opens itself when it is used."""
    name = host.hostname or ""
    connection = (
        _SecureConnection(name, host.port, timeout=connect_s, context=tls)
        if tls
        else _Connection(name, host.port, timeout=connect_s)
    )
    connection.read_s = read_s
    return connection


class _Patient:
    """Connecting and reading have times of their own."""

    sock: Any
    read_s: float

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(self.read_s)


class _Connection(_Patient, http.client.HTTPConnection):
    pass


class _SecureConnection(_Patient, http.client.HTTPSConnection):
    pass


def _close(connections: list[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def _headers(answer: http.client.HTTPResponse) -> CaseInsensitiveDict[str]:
    """One that stands there twice is one with both values."""
    headers = CaseInsensitiveDict[str]()
    for name, value in answer.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _is_readable(sock: Any) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
