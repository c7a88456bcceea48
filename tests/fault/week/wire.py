"""The fake ESI and the fake feed without sockets, and with the clocks that a simulation gives them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import requests

from esid.errors import NotFound
from tests.fake_esi.answering import Answering
from tests.fake_esi.clock import Clock
from tests.fake_esi.faults import Faults
from tests.fake_esi.limits import Limits
from tests.fake_esi.log import Request
from tests.fake_esi.wire import Incoming
from tests.fake_esi.world import World
from tests.fake_feed import Publisher
from tests.tools.simulation import Time, made_response

#: Seconds of one exchange.
LATENCY_S = 0.1
_DATES = ("Date", "Expires", "Last-Modified")


class _Clock(Clock):
    """ESI's own, by which it keeps its caches and limits: right, whatever its answers say."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def now(self) -> float:
        return self._time.now.timestamp()


class EsiWire(requests.adapters.BaseAdapter):
    """Answers in the place of ESI.

    Args:
        wait: lets time go by.
        point: called where whoever asks may die.

    Attributes:
        ahead_s: seconds by which the `Date` of its answers is ahead.
        is_all_ahead: its other dates, too.
        least_left: errors that were ever left in a window, at least.
        asked: called with each request that comes, before anything is done with it.
    """

    def __init__(self, world: World, time: Time, wait: Callable[[float], None], point: Callable[[], None]) -> None:
        super().__init__()
        self.faults, self._clock = Faults(), _Clock(time)
        self.limits = Limits(100, 60, {"killmail": (3600, 900), "status": (600, 900)})
        self._answering = Answering(world, self._clock, self.limits, self.faults)
        self._wait, self._point = wait, point
        self.asked: Callable[[], None] = lambda: None
        self.log: list[Request] = []
        self.ahead_s, self.is_all_ahead, self.least_left = 0.0, False, 100

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        """One exchange."""
        self.asked()
        for connected in request.hooks["connected"]:
            connected()
        self._point()
        self._wait(LATENCY_S / 2)
        target: str = request.path_url
        headers = {name.lower(): value for name, value in request.headers.items()}
        incoming = Incoming(request.method, target, target.partition("?")[0], headers, request.body or b"")
        exchange = self._answering.exchange(incoming, self._clock.now())
        self.log.append(exchange.request)
        self.least_left = min(self.least_left, self.limits.errors.remaining(self._clock.now()))
        self._wait(LATENCY_S / 2)
        self._point()
        fault, answer = exchange.fault, exchange.answer
        if fault and fault.is_silent:
            raise requests.exceptions.ConnectionError("the other side closed the connection without a whole answer")
        if fault and fault.truncate:
            early = requests.exceptions.ChunkedEncodingError("the answer ended too early")
            return made_response(request, answer.status, self._dated(answer.headers), answer.body[:9], early)
        self._answering.given(exchange)
        return made_response(request, answer.status, self._dated(answer.headers), answer.body)

    def close(self) -> None:
        """Nothing is open."""

    def _dated(self, headers: dict[str, str]) -> dict[str, str]:
        moved = dict(headers)
        for name in _DATES if self.is_all_ahead else _DATES[:1]:
            if self.ahead_s and name in moved:
                time = parsedate_to_datetime(moved[name]) + dt.timedelta(seconds=self.ahead_s)
                moved[name] = format_datetime(time, usegmt=True)
        return moved


class FeedSource:
    """The files of a feed as `feeds.http.Source` brings them."""

    host = "feed"

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def get(self, path: str) -> bytes:
        """The body of a path. Raises NotFound."""
        body = self._publisher.answer(path)
        if body is None:
            raise NotFound(f"{path}: HTTP 404", status=404)
        return body

    def hold(self, seconds: float) -> None:
        """It has all the time that there is."""
