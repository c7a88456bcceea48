"""From a request to its answer: limits, faults, caches, conditional requests and headers."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from functools import lru_cache

from tests.fake_esi.clock import Clock, http_date
from tests.fake_esi.content import Content, ContentCache, cacheable, encode, plain, unless_known
from tests.fake_esi.faults import Fault, Faults, error_content
from tests.fake_esi.limits import Limits
from tests.fake_esi.log import CacheKey, Expiries, Request
from tests.fake_esi.routes import EsiError, Question, Route, find_route, parse_ids
from tests.fake_esi.shapes import OLDEST
from tests.fake_esi.wire import Answer, Incoming
from tests.fake_esi.world import World

_LOGGED_HEADERS = ("user-agent", "x-compatibility-date", "if-none-match", "accept-language")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, the answer to send, and the fault that spoils the sending, if any."""

    request: Request
    answer: Answer
    fault: Fault | None
    key: CacheKey


class Answering:
    """Decides what each request is answered, and keeps ESI's books while doing so."""

    def __init__(self, world: World, clock: Clock, limits: Limits, faults: Faults) -> None:
        self._world = world
        self._clock = clock
        self._limits = limits
        self._faults = faults
        self._cache = ContentCache()
        self._expiries = Expiries()

    def exchange(self, incoming: Incoming, at: float) -> Exchange:
        """Answer a request that arrived at the fake's time `at`, now."""
        now = self._clock.now()
        route, params = find_route(incoming.method, incoming.path)
        key = _key(incoming)
        refusal = self._limits.refusal(route.group, now)
        fault = None if refusal else self._faults.pick(incoming.path)
        early = incoming.method == "GET" and self._expiries.is_early(key, at)
        if fault is not None and fault.is_silent:
            return Exchange(_logged(incoming, at, 0, early), Answer(0, {}, b""), fault, key)
        refused = error_content(refusal) if refusal else None
        content = refused or self._content(incoming, route, params, fault, now)
        answer = Answer(content.status, self._headers(incoming, route, content, fault, now), content.body)
        return Exchange(_logged(incoming, at, content.status, early), answer, fault, key)

    def given(self, exchange: Exchange) -> None:
        """The answer was handed to the client: whether and until when it may not be asked again."""
        if exchange.request.method == "GET" and exchange.answer.status in (200, 304):
            self._expiries.remember(exchange.key, _moment(exchange.answer.headers.get("Expires", "")))

    def _content(
        self, incoming: Incoming, route: Route, params: tuple[str, ...], fault: Fault | None, now: float
    ) -> Content:
        content = fault.replacement(route.freshness(now)) if fault is not None else None
        if content is None and self._is_sick(incoming, params):
            content = error_content(500)
        if content is None:
            content = self._ordinary(incoming, route, params, now)
        return unless_known(content, incoming.headers.get("if-none-match", ""))

    def _is_sick(self, incoming: Incoming, params: tuple[str, ...]) -> bool:
        if not (sick := self._world.sick_ids | self._world.sick_at.get(incoming.path, set())):
            return False
        asked = {int(one) for one in params if one.isdecimal()}
        if incoming.method == "POST":
            with suppress(EsiError):
                asked |= set(parse_ids(incoming.body))
        return not sick.isdisjoint(asked)

    def _ordinary(self, incoming: Incoming, route: Route, params: tuple[str, ...], now: float) -> Content:
        """The route's own answer, from ESI's cache where it is still valid."""
        try:
            schema_date = route.schema_date(_compatibility_date(incoming))
            question = Question(params, schema_date, incoming.body)
            freshness = route.freshness(now)
            if freshness is None:
                return cacheable(encode(route.answer(self._world, question)), None)
            key = (incoming.path, _language(incoming), schema_date)
            return self._cache.get(key, now, freshness, lambda: route.answer(self._world, question))
        except EsiError as error:
            return plain(error.status, {"error": error.message})

    def _headers(
        self, incoming: Incoming, route: Route, content: Content, fault: Fault | None, now: float
    ) -> dict[str, str]:
        """The headers of an answer given now, after charging it to the limits."""
        headers = {
            "Date": http_date(int(now)),
            **content.headers,
            "Content-Language": _language(incoming),
            "X-Compatibility-Date": route.schema_date(incoming.headers.get("x-compatibility-date", OLDEST)),
            "X-Esi-Request-Id": str(uuid.uuid4()),
            **self._limits.account(route.group, content.status, now),
        }
        if fault is not None:
            fault.change_headers(headers)
        return headers


def _key(incoming: Incoming) -> CacheKey:
    return incoming.target, _language(incoming), incoming.headers.get("x-compatibility-date", OLDEST)


def _language(incoming: Incoming) -> str:
    return incoming.headers.get("accept-language", "en")


def _compatibility_date(incoming: Incoming) -> str:
    text = incoming.headers.get("x-compatibility-date", OLDEST)
    if not _is_date(text):
        raise EsiError(400, "invalid compatibility date")
    return text


@lru_cache(maxsize=64)
def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _moment(http_text: str) -> float | None:
    """The seconds since 1970 that an HTTP date names, None when it names none."""
    try:
        return parsedate_to_datetime(http_text).timestamp()
    except ValueError:
        return None


def _logged(incoming: Incoming, at: float, status: int, early: bool) -> Request:
    headers = {name: incoming.headers[name] for name in _LOGGED_HEADERS if name in incoming.headers}
    ids: tuple[int, ...] = ()
    if incoming.method == "POST":
        with suppress(EsiError):
            ids = parse_ids(incoming.body)
    return Request(at, incoming.method, incoming.target, status, ids, headers, early)
