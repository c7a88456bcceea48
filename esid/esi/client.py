"""The HTTP edge: one request in, one checked answer out. The only module that sends anything to ESI.

No retries in here (one layer retries, the queue); no redirects; certificates are always checked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests

from esid import __version__, clock
from esid.errors import (
    BadBody,
    BadField,
    EsiError,
    Held,
    Stopping,
    TooLarge,
    Unreachable,
    let_go,
)
from esid.esi import cache
from esid.esi.answers import Answer, check_encoding, check_held, check_status, value_of
from esid.esi.budget import Budget, Outcome, Subject
from esid.esi.budget.breaker import Standing
from esid.esi.budget.doubts import number_of
from esid.esi.causes import cause
from esid.esi.deadline import Exchange, Watch
from esid.esi.routes import STATUS, Route
from esid.esi.transport import Reply, Transport

#: Seconds: to connect, between two reads, for a whole exchange.
CONNECT_S, READ_S, TOTAL_S = 5.0, 10.0, 30.0
_CHUNK = 64 * 1024
#: Bytes of a body above which a process reads one at a time, and of the body of an error, of which more says nothing.
LARGE, LARGEST_ERROR = 64 * 1024, 64 * 1024
#: Seconds that work is put back for when its answer was lost in an outage: about one probe.
OUTAGE_S = 6.0


@dataclass(frozen=True, slots=True)
class _Question:
    """One request: what is asked of a route, and (`path`) where. `etag` goes along where an answer is known."""

    method: str
    route: Route
    path: str
    etag: str | None = None
    body: bytes | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Those that are its own."""
        if self.body is not None:
            return {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        return {"If-None-Match": self.etag} if self.etag else {}

    @property
    def url(self) -> str:
        """What two requests have in common that ask the same."""
        return f"{self.method} {self.path} {self.body.decode() if self.body else ''}"


class Client:
    """Sends requests within the budget. Safe to share by the threads of one process.

    Args:
        base_url: scheme and host.
        contact: mail or URL for the User-Agent; "" only against a local ESI.
        compatibility_date: sent with each request; answers of another date are other answers.
        adapter: another transport, for tests.
        ca_file, proxy: whose certificates are believed, and what stands between (see `Transport`).
    """

    def __init__(
        self,
        base_url: str,
        budget: Budget,
        *,
        contact: str = "",
        compatibility_date: str = "2026-08-18",
        adapter: requests.adapters.BaseAdapter | None = None,
        ca_file: str = "",
        proxy: str = "",
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).netloc.rpartition("@")[2]
        self._budget = budget
        self._watch = Watch()
        # Held while a body is taken apart, and never while anybody waits for ESI or the database: no stop waits for it.
        self._one_large = threading.Lock()
        self._adapter = adapter or Transport(self._base_url, ca_file, proxy)
        self.end_within = self._watch.end_within
        self._headers = {
            "User-Agent": user_agent(contact),
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Accept-Language": "en",
            "X-Compatibility-Date": compatibility_date,
            "X-Tenant": "tranquility",
        }

    def get(
        self,
        route: Route,
        *,
        id: int = 0,  # noqa: A002
        argument: str | None = None,
        etag: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        standing: Standing = Standing.NEW,
        source: str = "",
        read: Callable[[Answer], Any] | None = None,
    ) -> Any:
        """GET one resource (of a list in pages: one page), conditionally where an ETag is known.

        Args:
            query: names and values beside those of the route, like the page.
            standing: what is known of the id.
            source: who has named it, where it never had an answer (see `esi.budget.doubts`).
            read: what the answer means; one that it refuses counts as none.

        Returns:
            What `read` makes of the answer; without it the answer.

        Raises:
            EsiError: in the kinds of `esid.errors`.
            Held, Stopping: the budget let nothing leave.
        """
        path = route.path.format(id=id, argument=argument)
        pairs = (*route.query, *query)
        question = _Question("GET", route, f"{path}?{urlencode(pairs)}" if pairs else path, etag)
        return self._exchange(question, Subject(path, standing, number_of(route.path, source)), read)

    def post(
        self,
        route: Route,
        ids: Sequence[int],
        read: Callable[[Answer], Any] | None = None,
        standing: Standing = Standing.NEW,
        *,
        source: str = "",
    ) -> Any:
        """POST a list of ids (1 to 1000, each once). Raises as `get`.

        It is about the first of its ids: a batch that failed and its first half count as one.
        """
        question = _Question("POST", route, route.path, body=json.dumps(list(ids)).encode())
        subject = Subject(f"{route.path} {ids[0]}", standing, number_of(route.path, source))
        return self._exchange(question, subject, read)

    def is_doubted(self, route: Route, source: str) -> bool:
        """Whether what this source has named is refused in rows on this route."""
        return bool(source) and self._budget.is_doubted(number_of(route.path, source))

    def hold_s(self, route: Route) -> float:
        """Seconds that no work of this route need be begun; asks `/status` itself where the breaker wants it."""
        return self._budget.hold_s(route, self._probe)

    def is_away(self) -> bool:
        """True while the breaker holds back ESI as a whole."""
        return self._budget.is_away()

    def was_outage(self, path: str, at: float) -> bool:
        """See `Breaker.was_outage`."""
        return self._budget.was_outage(path, at)

    def has_answered(self, path: str) -> bool:
        """See `Breaker.has_answered`."""
        return self._budget.has_answered(path)

    def outages_over(self) -> dict[str, float]:
        """See `Breaker.over`."""
        return self._budget.outages_over()

    def forget_outage(self, path: str, since: float) -> None:
        """See `Breaker.forget`."""
        self._budget.forget_outage(path, since)

    def retry_wait_s(self, route: Route, wait_s: float) -> float:
        """See `Budget.retry_wait_s`."""
        return self._budget.retry_wait_s(route, wait_s)

    def takes_s(self, requests: int) -> float:
        """Seconds in which so many requests leave, where nobody else sends any."""
        pace = self._budget.limits.max_rps
        return requests / pace if pace else 0.0

    def _exchange(self, question: _Question, subject: Subject, read: Callable[[Answer], Any] | None) -> Any:
        route = question.route
        try:
            with (
                self._budget.request(route, question.url, self._probe, subject) as outcome,
                self._watch.exchange(TOTAL_S) as exchange,
            ):
                return self._ask(question, outcome, exchange, read)
        except EsiError as error:
            error.path, error.at = route.path, clock.monotonic()
            if outcome.is_outage:
                raise Held(OUTAGE_S, "ESI is away") from error
            raise

    def _ask(self, question: _Question, outcome: Outcome, exchange: Exchange, read: Callable[[Answer], Any] | None) -> Any:
        """One exchange; what is wrong with the answer is told to the breaker."""
        try:
            status, headers, data = self._send(question, outcome, exchange)
            check_status(status, data)
            check_encoding(status, headers)
            if status == 304 and question.etag is None:
                raise BadBody("HTTP 304 to a request without If-None-Match", status=304)
            with self._one_large if len(data) > LARGE else nullcontext():
                try:
                    return _understood(question, status, headers, data, read)
                except EsiError as error:
                    let_go(error)
                    raise
        except EsiError as error:
            outcome.fail(error)
            raise

    def _probe(self) -> None:
        """Ask `/status` for the breaker."""
        is_up = is_vip = False
        outcome = None
        try:
            with self._budget.status_probe() as outcome, self._watch.exchange(TOTAL_S) as exchange:
                is_vip = self._ask(_Question("GET", STATUS, STATUS.path), outcome, exchange, _is_vip)
            is_up = True
        except (Held, Stopping):
            return  # nobody was asked
        except EsiError:
            pass
        self._budget.note_status(is_up=is_up, is_vip=is_vip, outcome=outcome)

    def _send(self, question: _Question, outcome: Outcome, exchange: Exchange) -> tuple[int, Mapping[str, str], bytes]:
        try:
            prepared = self._prepared(question)
            prepared.hooks = {"connected": [outcome.check]}
            with self._adapter.send(prepared, stream=True, timeout=(CONNECT_S, READ_S)) as response:
                outcome.headers, outcome.status = response.headers, response.status_code
                # What holds us is said in the head, however its body ends.
                check_held(response.status_code, response.headers)
                return response.status_code, response.headers, _read(response, exchange, question.route.largest)
        except (requests.RequestException, OSError) as error:
            outcome.is_sent = getattr(error, "is_sent", True)
            raise Unreachable(_network_words(error, exchange, self._host)) from error

    def _prepared(self, question: _Question) -> requests.PreparedRequest:
        """What a session would make of it. A session also looks for cookies, redirects, proxies and the environment, which
        are not wanted here and took a fifth of the processor time of a corporation."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = question.method, self._base_url + question.path
        prepared.headers = {**self._headers, **question.headers}  # type: ignore[assignment]
        prepared.body = question.body
        return prepared


def user_agent(contact: str) -> str:
    """`esid/1.2.3 (you@example.com)`: the form that CCP asks for."""
    return f"esid/{__version__} ({contact})" if contact else f"esid/{__version__}"


def _read(response: requests.Response | Reply, exchange: Exchange, largest: int) -> bytes:
    """The decompressed body, up to the cap; of an error its beginning.

    Raises:
        TooLarge: it goes on beyond the cap.
        Unreachable: it ends too early.
    """
    parts, size = [], 0
    is_error = response.status_code != 200
    while chunk := response.raw.read(_CHUNK, decode_content=True):
        parts.append(chunk)
        size += len(chunk)
        if is_error and size > LARGEST_ERROR:
            break
        if size > largest:
            raise TooLarge(f"the body is larger than {largest >> 20} MiB", status=response.status_code, sample=parts[0])
    if exchange.expired:
        raise Unreachable(f"no whole answer within {TOTAL_S:.0f} s")
    return b"".join(parts)


def _understood(
    question: _Question, status: int, headers: Mapping[str, str], data: bytes, read: Callable[[Answer], Any] | None
) -> Any:
    """What a 200 or 304 means."""
    body = None if status == 304 else value_of(data)
    checked_at, expires_at = cache.times(headers, question.route.cache_s, clock.now())
    answer = Answer(
        body=body,
        is_new=status != 304,
        etag=headers.get("Etag") or (question.etag if status == 304 else None),
        checked_at=checked_at,
        expires_at=expires_at,
        headers=headers,
    )
    return read(answer) if read else answer


def _is_vip(answer: Answer) -> bool:
    """What `/status` says. Raises BadField where it is no status."""
    if not isinstance(answer.body, dict) or type(answer.body.get("players")) is not int:
        raise BadField("status", "players", answer.body)
    return answer.body.get("vip") is True


def _network_words(error: Exception, exchange: Exchange, host: str) -> str:
    if exchange.expired:
        return f"no whole answer within {TOTAL_S:.0f} s"
    kind = "TLS" if isinstance(error, requests.exceptions.SSLError) else type(error).__name__
    return f"{kind} at {host}: {cause(error)}"[:300]
