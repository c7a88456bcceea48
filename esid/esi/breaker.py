"""The breaker: after a few failures in a row nothing leaves but one probe every few seconds.

There is a circuit for ESI as a whole and one for each route. While ESI as a whole is away the probes are `/status`
and, once that answers, one real request; a success closes the circuit. Called by the budget, under its lock; `now` is
monotonic.
"""

from __future__ import annotations

import random
from typing import Any

from esid.esi.shared import CIRCUITS

#: Failures in a row that open a circuit.
FAILURES = 5
#: Seconds between two probes, of whatever circuit.
PROBE_S = 5.0
#: Seconds: a route that has been away for long is asked for less often, up to this.
LONGEST_HOLD_S = 60.0
#: Seconds after which failures count although the circuit is open, where ESI answers `/status` all the same.
LONGEST_OUTAGE_S = 3600.0
#: Place of ESI as a whole.
_ESI = 0


class Breaker:
    """The circuits of one state."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._known: dict[str, int] = {}

    def place(self, path: str) -> int:
        """The place of a route's circuit; where no room is left, that of ESI as a whole."""
        place = self._known.get(path)
        if place is None:
            place = self._known[path] = self._find(path.encode()[:63])
        return place

    def _find(self, wanted: bytes) -> int:
        """A place, once taken, is never given up."""
        for place in range(1, CIRCUITS):
            held = self._state.circuits[place].name
            if held == wanted:
                return place
            if not held:
                self._state.circuits[place].name = wanted
                return place
        return _ESI

    def wait_s(self, place: int, now: float) -> float:
        """Seconds until a request of this route may leave, as a probe where its circuit is open; 0 = now."""
        esi, route = self._state.circuits[_ESI], self._state.circuits[place]
        if route.closed_until > now:
            return float(route.closed_until - now)
        if esi.open_since and not self._state.status_ok:
            return max(0.05, float(self._state.probe_at) - now)
        if esi.open_since or route.open_since:
            return max(0.0, float(self._state.probe_at) - now)
        return 0.0

    def away_s(self, now: float) -> float:
        """Seconds until anything may be tried while ESI as a whole is away; 0 = now, or it is not away."""
        return self.wait_s(_ESI, now)

    def route_hold_s(self, place: int, now: float) -> float:
        """Seconds that work of a route which alone is away had better wait elsewhere; 0 where it may be tried now.

        The longer it has been away, the longer: whoever comes when a probe is due is the probe.
        """
        route, wait_s = self._state.circuits[place], self.wait_s(place, now)
        if place == _ESI or not wait_s or self._state.circuits[_ESI].open_since:
            return 0.0
        return max(wait_s, min(LONGEST_HOLD_S, max(2 * PROBE_S, (now - route.open_since) / 2 if route.open_since else 0.0)))

    def take(self, place: int, now: float) -> None:
        """A request leaves; where its circuit is open it is the probe."""
        if self._state.circuits[_ESI].open_since or self._state.circuits[place].open_since:
            self._probed(now)

    def claim_status_probe(self, now: float) -> bool:
        """True for the one caller that is to ask `/status` now."""
        if not self._state.circuits[_ESI].open_since or self._state.status_ok or self._state.probe_at > now:
            return False
        self._probed(now)
        return True

    def settle_status_probe(self, *, is_up: bool, is_vip: bool) -> None:
        """What `/status` said. While only CCP's staff may log in, ESI is as good as away."""
        self._state.status_ok = int(is_up and not is_vip)
        self._state.vip = int(is_vip)

    def close_route(self, place: int, until: float) -> None:
        """Nothing leaves on one route until then: a 429 that names no rate group."""
        if place != _ESI:
            route = self._state.circuits[place]
            route.closed_until = max(until, route.closed_until)

    def settle(self, place: int, *, failed: bool, now: float, sent_at: float) -> str:
        """Book one answer; what changed by it: "esi.away", "esi.back", "route.away", "route.back" or "".

        Args:
            sent_at: when it was asked for. An answer to a question from before the outage does not end it.
        """
        return self._failed(place, now) if failed else self._answered(place, sent_at)

    def is_outage(self, place: int, now: float) -> bool:
        """True while a failure is ESI's and not an id's: it or the route is away, and where `/status` answers or other
        routes do, not for an hour yet.
        """
        esi, route = (float(self._state.circuits[one].open_since) for one in (_ESI, place))
        if esi:
            return not (self._state.status_ok and now - esi > LONGEST_OUTAGE_S)
        return bool(route) and now - route <= LONGEST_OUTAGE_S

    def open_since(self, place: int = _ESI) -> float:
        """When a circuit was opened; 0 = it is closed."""
        return float(self._state.circuits[place].open_since)

    def open_routes(self) -> list[str]:
        """Paths of the routes whose circuits are open."""
        return [
            self._state.circuits[place].name.decode("utf-8", "replace")
            for place in range(1, CIRCUITS)
            if self._state.circuits[place].open_since
        ]

    def _answered(self, place: int, sent_at: float) -> str:
        esi, route = self._state.circuits[_ESI], self._state.circuits[place]
        if sent_at < max(esi.open_since, route.open_since):
            return ""
        esi.failures = route.failures = 0
        esi_was_open, route_was_open = esi.open_since, route.open_since
        esi.open_since = route.open_since = 0.0
        self._state.status_ok = self._state.vip = 0
        return "esi.back" if esi_was_open else "route.back" if route_was_open else ""

    def _failed(self, place: int, now: float) -> str:
        esi, route = self._state.circuits[_ESI], self._state.circuits[place]
        # A real request that failed although /status answers: /status is asked again first.
        self._state.status_ok = 0
        if esi.open_since:
            return ""
        esi.failures += 1
        if place != _ESI:
            route.failures += 1
        if esi.failures >= FAILURES:
            esi.open_since, route.failures = now, 0
            self._probed(now)
            return "esi.away"
        if place != _ESI and not route.open_since and route.failures >= FAILURES:
            route.open_since = now
            self._probed(now)
            return "route.away"
        return ""

    def _probed(self, now: float) -> None:
        """The next probe keeps its distance, a little more than it has to."""
        self._state.probe_at = now + PROBE_S * random.uniform(1.0, 1.1)  # noqa: S311
