"""The breaker: tells an outage from an id that is sick, and lets nothing leave in an outage but a probe now and then.

There is a circuit for each route and one for ESI as a whole. An outage is several different ids that fail in a row with no
good answer between: of one route, that route is away; of several, ESI is. An id counts once, and one that has failed
before, while others were answered, not at all. Where such failures alone come in a row, `/status` is asked who is right.

While ESI as a whole is away the probes are `/status` and, once that answers, one real request. A probe of an open circuit
is another id than those that failed; a good answer closes it. Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import esid.esi.budget.layout as layout
from esid import clock
from esid.errors import EsidError, Fault
from esid.esi.budget.layout import SICK

#: Different ids that fail in a row and open a circuit, and failures of whatever ids that have `/status` asked.
FAILURES = 5
#: Seconds between two probes of a circuit at first, and of one that has been open for half a minute and more.
PROBE_S, LATER_PROBE_S, LATER_S = 5.0, 10.0, 30.0
#: Seconds: a route that has been away for long is asked for less often, up to this.
LONGEST_HOLD_S = 60.0
#: Seconds without a probe after which any id may be one, also one that failed.
ANYBODY_S = 20.0
#: Seconds after which failures count although the circuit is open, where ESI answers `/status` all the same.
LONGEST_OUTAGE_S = 3600.0
#: Seconds between two questions to `/status` who is right, while nothing is known to be away.
DOUBT_S = 30.0
#: Seconds that everybody waits for that answer.
DOUBTED_S = 2.0
#: Seconds before the last good answer in which failures are an outage's, too: answers do not come in the order of questions.
MIXED_S = 10.0
#: Seconds for which a good answer vouches for the route that gave it.
WITNESS_S = 60.0
#: The number of ESI as a whole.
_ESI = 0
#: Faults that are no id's own, whatever id it is.
_OF_ALL = frozenset({Fault.ESI, Fault.WAY, Fault.ROUTE})


class Standing(StrEnum):
    """What is known of an id before it is asked: nothing, a good answer, or that it failed when it was asked last."""

    NEW = "new"
    KNOWN = "known"
    SICK = "sick"


class Breaker:
    """The circuits of one state, by number.

    Args:
        declared: paths of all routes that this version of esid asks.
    """

    def __init__(self, state: Any, declared: Iterable[str] = ()) -> None:
        # A circuit that is looked up anew for each request costs as much as what is read there.
        self._state, self._circuits = state, list(state.circuits)
        self._declared = {_name(path) for path in declared}
        self._known: dict[str, tuple[int, bytes]] = {}

    def declare(self) -> None:
        """Take a circuit for each declared route. Raises EsidError where there are more routes than circuits."""
        if len(self._declared) >= len(self._circuits):
            raise EsidError(
                f"esid declares {len(self._declared)} routes of ESI, and the budget's file has room for "
                f"{len(self._circuits) - 1}: raise CIRCUITS in esid/esi/budget/layout.py, and the file's format"
            )
        for name in self._declared:
            self._find(name)

    def number(self, path: str) -> int:
        """The number of a route's circuit. Raises LookupError where there is no room for a route that is not declared."""
        number, name = self._known.get(path) or (_ESI, _name(path))
        if number == _ESI or self._circuits[number].name != name:
            number = self._find(name)
            self._known[path] = number, name
        return number

    def _find(self, wanted: bytes) -> int:
        names = [route.name for route in self._routes()]
        if wanted in names:
            return names.index(wanted) + 1
        number = len(names) + 1
        if number == len(self._circuits):
            # A route that only another version of esid asks makes room.
            number = next((old for old, name in enumerate(names, 1) if self._declared and name not in self._declared), _ESI)
        if number == _ESI:
            raise LookupError(f"the budget's file has no room for the route {wanted.decode()}, which esid does not declare")
        layout.take(self._circuits[number], wanted)
        return number

    def _routes(self) -> Iterator[Any]:
        """The circuits of routes."""
        return layout.named(self._circuits[1:])

    # -- what may leave

    def wait_s(self, number: int, now: float) -> float:
        """Seconds until a request of this route may leave, as a probe where its circuit is open; 0 = now."""
        esi, route = self._circuits[_ESI], self._circuits[number]
        if route.closed_until > now:
            return float(route.closed_until) - now
        if esi.open_since and not self._state.status_ok:
            return max(0.05, float(esi.probe_at) - now)
        if esi.doubts >= FAILURES and now - self._state.status_asked_at < DOUBTED_S:
            return 0.05  # /status is being asked
        open_ones = [one for one in (esi, route) if one.open_since]
        waits = [float(one.probe_at) - now for one in open_ones]
        return max([0.0, *waits])

    def away_s(self, now: float) -> float:
        """Seconds until anything may be tried while ESI as a whole is away; 0 = now, or it is not away."""
        return self.wait_s(_ESI, now)

    def route_hold_s(self, number: int, now: float) -> float:
        """Seconds that work of a route which alone is away had better wait elsewhere; 0 where it may be tried now.

        The longer it has been away, the longer: whoever comes when a probe is due is the probe.
        """
        route = self._circuits[number]
        wait_s = float(max(route.closed_until, route.probe_at if route.open_since else 0.0)) - now
        if number == _ESI or wait_s <= 0 or self._circuits[_ESI].open_since:
            return 0.0
        open_s = now - float(route.open_since) if route.open_since else 0.0
        return max(wait_s, min(LONGEST_HOLD_S, max(2 * PROBE_S, open_s / 2)))

    def is_no_probe(self, number: int, subject: int, standing: Standing, now: float) -> bool:
        """True where an open circuit waits for another id than this one: it is one of those that failed."""
        open_ones = [one for one in (self._circuits[_ESI], self._circuits[number]) if one.open_since]
        if not open_ones or all(now - max(one.open_since, one.probe_at) > ANYBODY_S for one in open_ones):
            return False
        return standing is Standing.SICK or any(_holds(one, subject) for one in open_ones)

    def take(self, number: int, now: float) -> None:
        """A request leaves; where its circuit is open it is the probe."""
        for one in (self._circuits[_ESI], self._circuits[number]):
            if one.open_since:
                _probed(one, now)

    def close_route(self, number: int, until: float) -> None:
        """Nothing leaves on one route until then: a 429 that names no rate group."""
        if number != _ESI:
            route = self._circuits[number]
            route.closed_until = max(until, route.closed_until)

    # -- /status

    def claim_status_probe(self, now: float) -> bool:
        """True for the one caller that is to ask `/status` now."""
        esi = self._circuits[_ESI]
        is_wanted = not self._state.status_ok if esi.open_since else esi.doubts >= FAILURES
        if not is_wanted or esi.probe_at > now:
            return False
        _probed(esi, now)
        self._state.status_asked_at = now
        return True

    def settle_status_probe(self, *, is_up: bool, is_vip: bool, now: float) -> str:
        """What `/status` said, and what is changed by it, as by `failed`. While only CCP's staff may log in, ESI is as good
        as away."""
        esi, answers = self._circuits[_ESI], is_up and not is_vip
        self._state.status_asked_at = 0.0
        self._state.status_ok, self._state.vip = int(answers and bool(esi.open_since)), int(is_vip)
        if esi.open_since or esi.doubts < FAILURES:
            return ""
        esi.doubts = 0
        if answers:
            esi.probe_at = now + DOUBT_S
            return ""
        return self._open(_ESI, now)

    def tell(self) -> list[str]:
        """Routes that are away alone, as `/status` has just made clear, each told once."""
        untold = [route for route in self._routes() if route.open_since and not route.is_told]
        for route in untold:
            route.is_told = 1
        return [_path(route) for route in untold]

    # -- what came back

    def answered(self, number: int, *, now: float, sent_at: float) -> str:
        """Book one good answer; what changed by it: "esi.back", "route.back" or "".

        Args:
            sent_at: when it was asked for. An answer to a question from before the outage does not end it.
        """
        esi, route = self._circuits[_ESI], self._circuits[number]
        if sent_at < max(esi.open_since, route.open_since):
            return ""
        change = "esi.back" if esi.open_since else "route.back" if route.open_since and route.is_told else ""
        for one in (esi, route):
            if one.open_since:
                one.bad_from, one.bad_to = (one.good_at or one.open_since) - MIXED_S, now
                one.over_from = one.over_from or clock.now().timestamp() - (now - one.bad_from)
                self._state.over = 1
                one.open_since = 0.0
            one.failures, one.good_at = 0, now
        self._state.status_ok = self._state.vip = esi.doubts = 0
        return change

    def failed(self, number: int, subject: int, fault: Fault, standing: Standing, *, now: float) -> str:
        """Book one answer that cannot be used; what changed by it: "esi.away", "route.away" or "".

        Args:
            subject: a number for the id that was asked.
            fault: whose it is by the look of it.
        """
        esi = self._circuits[_ESI]
        esi.doubts += 1
        # A real request that failed although /status answers: /status is asked again first.
        self._state.status_ok = 0
        is_evidence = standing is not Standing.SICK and (fault in _OF_ALL or standing is Standing.KNOWN)
        return self._failed(number, subject, now) if is_evidence else ""

    def obey(self, number: int, seconds: float, now: float) -> None:
        """ESI has said when to come again (`Retry-After` of a 503): no probe comes sooner."""
        for one in (self._circuits[_ESI], self._circuits[number]):
            if one.open_since:
                one.probe_at = max(one.probe_at, now + seconds)

    def is_outage(self, number: int, now: float) -> bool:
        """True while a failure is ESI's and not an id's: it or the route is away, and where `/status` answers or other
        routes do, not for an hour yet.
        """
        esi, route = (float(self._circuits[one].open_since) for one in (_ESI, number))
        if esi:
            return not (self._state.status_ok and now - esi > LONGEST_OUTAGE_S)
        return bool(route) and now - route <= LONGEST_OUTAGE_S

    def was_outage(self, path: str, at: float, now: float) -> bool:
        """True where what failed then on a route failed in an outage or shortly before one: after the last good answer.

        Args:
            path: "" where no route was asked: it is nobody's outage.
        """
        if not path:
            return False
        circuits = [(number, self._circuits[number]) for number in (_ESI, self.number(path))]
        return any(
            one.good_at - MIXED_S < at and self.is_outage(number, now) if one.open_since else one.bad_from < at <= one.bad_to
            for number, one in circuits
        )

    def has_answered(self, path: str, now: float) -> bool:
        """Whether a route has given anybody a good answer so lately that its refusal of another id can be believed."""
        good_at = float(self._circuits[self.number(path)].good_at)
        return bool(good_at) and now - good_at <= WITNESS_S

    def is_open(self, number: int) -> bool:
        """Whether this route or ESI as a whole is away."""
        return bool(self.open_since(number) or self.open_since())

    def open_since(self, number: int = _ESI) -> float:
        """When a circuit was opened; 0 = it is closed."""
        return float(self._circuits[number].open_since)

    def group(self, number: int) -> int:
        """What the answers of a route said of its limit (see `layout.Circuit`)."""
        return int(self._circuits[number].group)

    def learn_group(self, number: int, group: int) -> None:
        """An answer says it."""
        if number != _ESI:
            self._circuits[number].group = group

    def open_routes(self) -> list[str]:
        """Paths of the routes whose circuits are open."""
        return [_path(route) for route in self._routes() if route.open_since]

    def over(self) -> dict[str, float]:
        """Outages that are over and not settled: path of the route ("" = all of ESI) -> shortly before the last good answer
        before it, seconds since 1970. What failed since then was the outage's."""
        circuits = (self._circuits[_ESI], *self._routes())
        return {_path(one): float(one.over_from) for one in circuits if one.over_from}

    def forget(self, path: str, since: float) -> None:
        """One of `over` is settled."""
        one = self._circuits[self.number(path) if path else _ESI]
        if one.over_from == since:
            one.over_from = 0.0
        self._state.over = int(bool(self.over()))

    def _failed(self, number: int, subject: int, now: float) -> str:
        esi, route = self._circuits[_ESI], self._circuits[number]
        if number != _ESI:
            _note(route, subject)
        if not _note(esi, subject) or esi.open_since or (number != _ESI and route.open_since):
            return ""
        esi.routes = number if esi.failures == 1 or esi.routes == number else -1
        if esi.failures >= FAILURES and (esi.routes == -1 or number == _ESI):
            return self._open(_ESI, now)
        if number == _ESI or route.failures < FAILURES:
            return ""
        if any(other.open_since > esi.good_at for other in self._routes()):
            # A second route, and nobody was answered since the first.
            return self._open(_ESI, now)
        if esi.good_at > route.good_at:
            return self._open(number, now)
        # Nobody else was answered since: all may be away, and /status is asked before anything is said.
        esi.failures, esi.doubts = 0, FAILURES
        self._open(number, now)
        route.is_told = 0
        return ""

    def _open(self, number: int, now: float) -> str:
        if number == _ESI:
            for route in self._routes():
                route.open_since = 0.0
        circuit = self._circuits[number]
        circuit.open_since, circuit.is_told = now, 1
        _probed(circuit, now)
        return "esi.away" if number == _ESI else "route.away"


def _name(path: str) -> bytes:
    return layout.stored(path, 63)


def _path(circuit: Any) -> str:
    name: bytes = circuit.name
    return name.decode("utf-8", "replace")


def _probed(circuit: Any, now: float) -> None:
    """The next probe keeps its distance, a little more than it has to."""
    is_late = circuit.open_since and now - circuit.open_since > LATER_S
    circuit.probe_at = now + (LATER_PROBE_S if is_late else PROBE_S) * random.uniform(1.0, 1.1)  # noqa: S311


def _holds(circuit: Any, subject: int) -> bool:
    return subject in circuit.sick[: min(circuit.failures, SICK)]


def _note(circuit: Any, subject: int) -> bool:
    """One more id has failed; False where it has before. Of very many the newest are remembered."""
    if _holds(circuit, subject):
        return False
    circuit.sick[circuit.failures % SICK] = subject
    circuit.failures += 1
    return True
