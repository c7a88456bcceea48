"""The HTTP edge of what is not ESI: killmail feeds and archives. One request in, one body or one file out.

No retries in here, no redirects, certificates always checked, no proxies from the environment. Every request keeps the
pace of its source, and what a 429 asks for holds all processes with its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from esid.errors import EsiUnavailable, Held, NotFound, Refused, TooLarge
from esid.esi.client import LARGEST_BODY, user_agent
from esid.esi.deadline import DeadlineAdapter, Exchange, Watch
from esid.esi.headers import retry_after_s
from esid.feeds.pace import Pace

#: Seconds: to connect, between two reads, for a whole body, for a whole file.
CONNECT_S, READ_S, BODY_S, FILE_S = 5.0, 10.0, 30.0, 900.0
#: Bytes of a file, decompressed. The largest day has 42,399 killmails: 93 MB as JSON.
LARGEST_FILE = 1024 * 1024 * 1024
_CHUNK = 64 * 1024


class Source:
    """One host that is asked for killmails. Not shared by threads.

    Args:
        base_url: scheme, host and, where it has one, the first part of every path.
        contact: mail or URL for the User-Agent.
        pace: shared by all that ask this host.
    """

    def __init__(self, base_url: str, contact: str, pace: Pace) -> None:
        self._base_url = base_url.rstrip("/")
        self.host = urlsplit(base_url).hostname or base_url
        self._pace = pace
        self._watch = Watch()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": user_agent(contact), "Accept-Encoding": "gzip"})
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, DeadlineAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))

    def get(self, path: str) -> bytes:
        """The body of a path, decompressed, 16 MiB at most.

        Raises:
            NotFound, Refused, TooLarge, EsiUnavailable: as from ESI.
            Held: HTTP 429, with the seconds that the source asks for.
            Stopping: the process stops.
        """
        parts: list[bytes] = []
        with self._asked(path, BODY_S) as (response, exchange):
            self._receive(response, exchange, parts.append, LARGEST_BODY)
        return b"".join(parts)

    def download(self, path: str, file: BinaryIO) -> str:
        """Write the body of a path into an open file; returns its ETag, or what else tells one version of it from another.

        Raises as `get`.
        """
        with self._asked(path, FILE_S) as (response, exchange):
            self._receive(response, exchange, file.write, LARGEST_FILE)
            headers = response.headers
        return headers.get("ETag") or f"{file.tell()} bytes of {headers.get('Last-Modified', 'an unknown time')}"

    def hold(self, seconds: float) -> None:
        """Ask this host for nothing for so long, whichever process wants to, also after a restart."""
        self._pace.hold(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    @contextmanager
    def _asked(self, path: str, seconds: float) -> Iterator[tuple[requests.Response, Exchange]]:
        self._pace.wait()
        with self._watch.exchange(seconds) as exchange:
            try:
                with self._session.get(
                    self._base_url + path, timeout=(CONNECT_S, READ_S), allow_redirects=False, stream=True
                ) as response:
                    self._check_status(response, path)
                    yield response, exchange
            except (requests.RequestException, HTTPError, OSError) as error:
                words = f"no whole answer within {seconds:.0f} s" if exchange.expired else f"{type(error).__name__}: {error}"
                raise EsiUnavailable(f"{self.host}{path}: {words}"[:300]) from error

    def _receive(
        self, response: requests.Response, exchange: Exchange, write: Callable[[bytes], object], largest: int
    ) -> None:
        size = 0
        while chunk := response.raw.read(_CHUNK, decode_content=True):
            size += len(chunk)
            self._pace.check()
            if size > largest:
                raise TooLarge(f"{self.host}: the body is larger than {largest >> 20} MiB", status=200, sample=chunk)
            write(chunk)
        if exchange.expired:
            raise EsiUnavailable(f"{self.host}: no whole answer in time", status=200)

    def _check_status(self, response: requests.Response, path: str) -> None:
        status, words = response.status_code, f"{self.host}{path}: HTTP {response.status_code}"
        if status == 200:
            return
        if status == 429:
            wait_s = retry_after_s(response.headers)
            self._pace.hold(wait_s)
            raise Held(wait_s, f"{self.host} answers 429")
        if status == 404:
            raise NotFound(words, status=404)
        if 300 <= status < 400:
            raise Refused(f"{words}: redirects are not followed", status=status, reason="redirect")
        if status >= 500 or status < 400:
            raise EsiUnavailable(words, status=status)
        raise Refused(words, status=status)
