"""The parts of one budget, and what admission and settlement both ask of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from esid import clock
from esid.esi.budget.breaker import Breaker
from esid.esi.budget.buckets import Buckets
from esid.esi.budget.doubts import Doubts
from esid.esi.budget.error_limit import ErrorLimit
from esid.esi.budget.in_flight import InFlight
from esid.esi.budget.layout import GUARDED, SECONDS
from esid.esi.budget.pace import Pace
from esid.esi.budget.state import Shared
from esid.esi.budget.values import Limits, Ticket, Wait
from esid.esi.routes import Route

#: Seconds that a thread waits for the budget before it puts its work back.
PATIENCE_S = 10.0
#: Seconds between two looks of a waiting thread, where somebody else's answer may end the wait, and elsewhere.
SOON_S, LOOK_S = 0.02, 0.5
#: Seconds for which a host may have been suspended and keep its share: far less than others wait for it.
_SLEPT_S = 1.0
#: Other hosts use the budget, and what they have given up for this one is not known, or not any more.
NO_SHARE = Wait(LOOK_S / 2, "no share of the budget")


class Books:
    """Of one host. Everything is called under the lock.

    Circuits and buckets go by the number that they have in the file; `GUARDED` stands for the error limit among buckets.
    """

    def __init__(self, path: Path, limits: Limits, routes: Iterable[Route], *, is_divided: bool, is_known: bool) -> None:
        self.shared = Shared(path, is_known=is_known)
        self.limits, self.is_divided = limits, is_divided
        state = self.shared.state
        self.errors = ErrorLimit(state, limits.error_reserve, is_divided=is_divided)
        self.buckets = Buckets(state, limits.bucket_reserve, is_divided=is_divided)
        self.breaker = Breaker(state, [route.path for route in routes])
        self.doubts = Doubts(state)
        self.pace = Pace(state, limits.max_rps, is_divided=is_divided)
        self.in_flight = InFlight(self.shared)
        with self.shared.locked():
            self.breaker.declare()

    def _held(self, ticket: Ticket, now: float) -> Wait | None:
        """What a request waits for although it had leave; None = nothing."""
        if closed := self._closed(now):
            return closed
        if self.breaker.open_since() and not ticket.is_probe:
            return Wait(max(LOOK_S, self.breaker.away_s(now)), "ESI is away")
        return None

    def _closed(self, now: float) -> Wait | None:
        """What lets nothing leave at all; None = nothing does."""
        state = self.shared.state
        if (paused_s := float(state.paused_until) - now) > 0:
            return Wait(paused_s, "420")
        if self.is_divided and (state.share_until <= now or clock.slept_s() > state.share_slept_s + _SLEPT_S):
            return NO_SHARE
        return None

    def _kind(self, route: Route, circuit: int | None = None) -> int:
        """The bucket of a route: as its answers said, else as the table says."""
        told = self.breaker.group(self.breaker.number(route.path) if circuit is None else circuit)
        if told:
            return told - 1 if told > 0 else GUARDED
        bucket = self.buckets.number(route.group) if route.group else None
        return GUARDED if bucket is None else bucket

    def _count_sent(self, now: float) -> None:
        state = self.shared.state
        for second in range(max(int(state.second) + 1, int(now) - SECONDS + 1), int(now) + 1):
            state.sent[second % SECONDS] = 0.0
        state.second = int(now)
        state.sent[int(now) % SECONDS] += 1
        state.requests += 1
