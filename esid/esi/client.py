"""The HTTP edge: one request in, one checked answer out. The only module that sends anything to ESI.

No retries in here (one layer retries, the queue); no redirects; certificates are always checked; proxies from the
environment are not used.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from esid import __version__, clock
from esid.errors import BadBody, EsiError, EsiUnavailable, Held, NotFound, Refused, Stopping, TooLarge
from esid.esi import cache
from esid.esi.budget import Budget, Outcome
from esid.esi.deadline import Exchange, Watch
from esid.esi.decode import parse_json
from esid.esi.headers import error_reset_s, retry_after_s
from esid.esi.routes import STATUS, Route
from esid.esi.transport import Transport

#: Seconds: to connect, between two reads, for a whole exchange.
CONNECT_S, READ_S, TOTAL_S = 5.0, 10.0, 30.0
#: Bytes of a body, decompressed. The largest public answer is under 3 MB.
LARGEST_BODY = 16 * 1024 * 1024
_CHUNK = 64 * 1024
#: Seconds that work is put back for when its answer was lost in an outage: about one probe.
OUTAGE_S = 6.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 or a 304.

    Attributes:
        body: the decoded JSON; None after a 304.
        etag: to be sent back next time, verbatim.
        checked_at: the time that the answer speaks of, by ESI's clock.
        expires_at: when it may be asked again, by our clock.
        headers: of the answer.
    """

    body: Any
    is_new: bool
    etag: str | None
    checked_at: dt.datetime
    expires_at: dt.datetime
    headers: Mapping[str, str] = field(default_factory=dict)


class Client:
    """Sends requests within the budget. Safe to share by the threads of one process.

    Args:
        base_url: scheme and host.
        contact: mail or URL for the User-Agent; "" only against a local ESI.
        compatibility_date: sent with each request; answers of another date are other answers.
        adapter: another transport, for tests.
    """

    def __init__(
        self,
        base_url: str,
        budget: Budget,
        *,
        contact: str = "",
        compatibility_date: str = "2026-08-18",
        adapter: requests.adapters.BaseAdapter | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).netloc.rpartition("@")[2]
        self._budget = budget
        self._watch = Watch()
        self._adapter = adapter or Transport(self._base_url)
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
        page: int = 1,
    ) -> Answer:
        """GET one resource (of a list in pages: one page), conditionally where an ETag is known.

        Raises:
            EsiError: in the kinds of `esid.errors`.
            Held, Stopping: the budget let nothing leave.
        """
        headers = {"If-None-Match": etag} if etag else {}
        path = route.path.format(id=id, argument=argument) + (f"?page={page}" if page > 1 else "")
        return self._exchange("GET", route, path, headers, None, etag)

    def post(self, route: Route, ids: Sequence[int]) -> Answer:
        """POST a list of ids (1 to 1000, each once). Raises as `get`."""
        body = json.dumps(list(ids)).encode()
        return self._exchange("POST", route, route.path, {"Content-Type": "application/json"}, body, None)

    def hold_s(self, route: Route) -> float:
        """Seconds that no work of this route need be begun; asks `/status` itself where the breaker wants it."""
        return self._budget.hold_s(route, self._probe)

    def is_away(self) -> bool:
        """True while the breaker holds back ESI as a whole."""
        return self._budget.is_away()

    def _exchange(
        self, method: str, route: Route, path: str, headers: dict[str, str], body: bytes | None, etag: str | None
    ) -> Answer:
        url = f"{method} {path} {body.decode() if body else ''}"
        try:
            with self._budget.request(route, url, self._probe) as outcome, self._watch.exchange(TOTAL_S) as exchange:
                return self._ask(method, route, path, headers, body, etag, outcome, exchange)
        except (EsiUnavailable, BadBody) as error:
            if outcome.is_outage:
                raise Held(OUTAGE_S, "ESI is away") from error
            raise

    def _ask(
        self,
        method: str,
        route: Route,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        etag: str | None,
        outcome: Outcome,
        exchange: Exchange,
    ) -> Answer:
        """One exchange; what is wrong with ESI rather than with what was asked is told to the breaker."""
        try:
            status, answer_headers, data = self._send(method, path, headers, body, outcome, exchange)
            _check_status(status, data)
            if status == 304 and etag is None:
                raise BadBody("HTTP 304 to a request without If-None-Match", status=304)
            parsed = None if status == 304 else parse_json(data)
        except (EsiUnavailable, BadBody) as error:
            outcome.failed = str(error)
            raise
        now = clock.now()
        return Answer(
            body=parsed,
            is_new=status != 304,
            etag=answer_headers.get("Etag") or (etag if status == 304 else None),
            checked_at=cache.as_of(answer_headers, route.cache_s, now),
            expires_at=now + dt.timedelta(seconds=cache.fresh_s(answer_headers, route.cache_s)),
            headers=answer_headers,
        )

    def _probe(self) -> None:
        """Ask `/status` for the breaker."""
        is_up = is_vip = False
        try:
            with self._budget.status_probe() as outcome, self._watch.exchange(TOTAL_S) as exchange:
                answer = self._ask("GET", STATUS, STATUS.path, {}, None, None, outcome, exchange)
            is_up, is_vip = True, isinstance(answer.body, dict) and answer.body.get("vip") is True
        except (EsiError, Held, Stopping):
            pass
        self._budget.note_status(is_up=is_up, is_vip=is_vip)

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, outcome: Outcome, exchange: Exchange
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            prepared = self._prepared(method, path, headers, body)
            prepared.hooks = {"connected": [outcome.check]}
            with self._adapter.send(prepared, stream=True, timeout=(CONNECT_S, READ_S)) as response:
                outcome.headers, outcome.status = response.headers, response.status_code
                # What holds us is said in the head, however its body ends.
                _check_held(response.status_code, response.headers)
                return response.status_code, response.headers, _read(response, exchange)
        except (requests.RequestException, OSError) as error:
            outcome.is_sent = getattr(error, "is_sent", True)
            raise EsiUnavailable(_network_words(error, exchange, self._host), status=outcome.status) from error

    def _prepared(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> requests.PreparedRequest:
        """What a session would make of it. A session also looks for cookies, redirects, proxies and the environment, which
        are not wanted here and took a fifth of the processor time of a corporation."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = method, self._base_url + path
        length = {"Content-Length": str(len(body))} if body else {}
        prepared.headers = {**self._headers, **headers, **length}  # type: ignore[assignment]
        prepared.body = body
        return prepared


def user_agent(contact: str) -> str:
    """`esid/1.2.3 (you@example.com)`: the form that CCP asks for."""
    return f"esid/{__version__} ({contact})" if contact else f"esid/{__version__}"


def _read(response: requests.Response, exchange: Exchange) -> bytes:
    """The decompressed body, up to the cap.

    Raises:
        TooLarge: it goes on beyond the cap.
        EsiUnavailable: it ends too early.
    """
    parts, size = [], 0
    while chunk := response.raw.read(_CHUNK, decode_content=True):
        parts.append(chunk)
        size += len(chunk)
        if size > LARGEST_BODY:
            raise TooLarge(f"the body is larger than {LARGEST_BODY >> 20} MiB", status=response.status_code, sample=parts[0])
    if exchange.expired:
        raise EsiUnavailable(f"no whole answer within {TOTAL_S:.0f} s", status=response.status_code)
    return b"".join(parts)


def _check_held(status: int, headers: Mapping[str, str]) -> None:
    """Raises Held for an answer that says when to come again."""
    if status == 420:
        raise Held(error_reset_s(headers), "420")
    if status == 429:
        raise Held(retry_after_s(headers), "429")


def _check_status(status: int, body: bytes) -> None:
    """Turn everything that is neither 200 nor 304 into an error of its kind."""
    if status == 200:
        if not body.strip():
            raise BadBody("the body is empty", status=200)
        return
    if status == 304:
        return
    words = f"HTTP {status}: {_error_text(body)}"
    if status == 404:
        raise NotFound(words, status=404, sample=body)
    if status == 422:
        raise Refused(words, status=422, sample=body, reason="wrong_pair")
    if 300 <= status < 400:
        raise Refused(f"HTTP {status}: redirects are not followed", status=status, reason="redirect")
    if status >= 500 or status < 400:
        raise EsiUnavailable(words, status=status, sample=body)
    raise Refused(words, status=status, sample=body)


def _error_text(body: bytes) -> str:
    """ESI's own words where the body has them, else its first characters."""
    try:
        value = parse_json(body)
        text = value["error"] if isinstance(value, dict) and isinstance(value.get("error"), str) else body.decode()
    except (EsiError, UnicodeDecodeError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:200] or "(empty body)"


def _network_words(error: Exception, exchange: Exchange, host: str) -> str:
    if exchange.expired:
        return f"no whole answer within {TOTAL_S:.0f} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS at {host}: {_cause(error)}"[:300]
    return f"{type(error).__name__} at {host}: {_cause(error)}"[:300]


def _cause(error: BaseException) -> str:
    """The innermost reason, without the objects that requests and urllib3 wrap around it."""
    inner = getattr(error, "reason", None) or next((part for part in error.args if isinstance(part, BaseException)), None)
    if isinstance(inner, BaseException):
        return _cause(inner)
    words = str(error.args[-1] if error.args else error)
    return words.partition(": ")[2] if words.startswith("<") or "Connection(" in words.partition(": ")[0] else words
