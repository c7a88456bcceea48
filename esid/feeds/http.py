"""The HTTP edge of what is not ESI: killmail feeds and archives. One request in, one body or one file out.

No retries in here, no redirects, certificates always checked. Every request keeps the pace of its source, and what a 429
asks for holds all processes with its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from esid.entities.killmail_body import LARGEST_KILLMAIL
from esid.errors import EsiUnavailable, Held, NotFound, Refused, TooLarge
from esid.esi.causes import cause
from esid.esi.client import user_agent
from esid.esi.deadline import DeadlineAdapter, Exchange, Watch
from esid.esi.headers import retry_after_s
from esid.feeds.pace import Pace

#: Seconds: to connect, between two reads, for a whole body, for a whole file.
CONNECT_S, READ_S, BODY_S, FILE_S = 5.0, 10.0, 30.0, 900.0
#: Bytes of a file, decompressed. The largest day has 42,399 killmails: 93 MB as JSON.
LARGEST_FILE = 1024 * 1024 * 1024
#: Bytes of the ids and hashes of a day, which are 56 each.
LARGEST_HASHES = 16 * 1024 * 1024
_CHUNK = 64 * 1024


class Source:
    """One host that is asked for killmails. Not shared by threads.

    Args:
        base_url: scheme, host and, where it has one, the first part of every path.
        contact: mail or URL for the User-Agent.
        pace: shared by all that ask this host.
        ca_file: whose certificates are believed, a file or a folder; "" = those of the usual authorities.
        proxy: `http://user:password@host:port` between us and an https host; "" = none.
    """

    def __init__(self, base_url: str, contact: str, pace: Pace, ca_file: str = "", proxy: str = "") -> None:
        self._base_url = base_url.rstrip("/")
        parts = urlsplit(self._base_url)
        self.host = parts.hostname or base_url
        #: As a person reads it: no user and no password in it.
        self.shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._pace = pace
        self._watch = Watch()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = ca_file or True
        self._session.proxies = {"https": proxy} if proxy else {}
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": user_agent(contact), "Accept-Encoding": "gzip"})
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, DeadlineAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))

    def get(self, path: str, largest: int = LARGEST_KILLMAIL) -> bytes:
        """The body of a path, decompressed, of no more bytes than `largest`.

        Raises:
            NotFound, Refused, TooLarge, EsiUnavailable: as from ESI.
            Held: HTTP 429, with the seconds that the source asks for.
            Stopping: the process stops.
        """
        parts: list[bytes] = []
        with self._asked(path, BODY_S) as (response, exchange):
            self._receive(response, exchange, parts.append, largest)
        return b"".join(parts)

    def download(self, path: str, file: BinaryIO) -> str:
        """Write the body of a path into an open file; returns its ETag, or what else tells one version of it from another.

        Raises as `get`.
        """
        with self._asked(path, FILE_S) as (response, exchange):
            self._receive(response, exchange, file.write, LARGEST_FILE)
            headers = response.headers
        return headers.get("ETag") or f"{file.tell()} bytes of {headers.get('Last-Modified', 'an unknown time')}"

    def name(self, path: str) -> str:
        """The whole URL of a path, as a person reads it."""
        return self.shown + path

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
                words = f"no whole answer within {seconds:.0f} s" if exchange.expired else cause(error)
                raise EsiUnavailable(f"{self.name(path)}: {words}"[:400]) from error

    def _receive(
        self, response: requests.Response, exchange: Exchange, write: Callable[[bytes], object], largest: int
    ) -> None:
        size = 0
        while chunk := response.raw.read(_CHUNK, decode_content=True):
            size += len(chunk)
            self._pace.check()
            if size > largest:
                raise TooLarge(f"{self.shown}: the body is larger than {largest >> 20} MiB", status=200, sample=chunk)
            write(chunk)
        if exchange.expired:
            raise EsiUnavailable(f"{self.shown}: no whole answer in time", status=200)

    def _check_status(self, response: requests.Response, path: str) -> None:
        status, words = response.status_code, f"{self.name(path)}: HTTP {response.status_code}"
        if status == 200:
            return
        if status == 429:
            wait_s = retry_after_s(response.headers)
            self._pace.hold(wait_s)
            raise Held(wait_s, f"{self.shown} answers 429")
        if status == 404:
            raise NotFound(words, status=404)
        if 300 <= status < 400:
            raise Refused(f"{words}: redirects are not followed", status=status, reason="redirect")
        if status >= 500 or status < 400:
            raise EsiUnavailable(words, status=status)
        raise Refused(words, status=status)
