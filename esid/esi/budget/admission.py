"""Whether one more request may leave."""

from __future__ import annotations

from esid.esi.budget.books import PATIENCE_S, SOON_S, Books
from esid.esi.budget.shares import EXCHANGE_S, HEARD, LEAST
from esid.esi.budget.state import GUARDED
from esid.esi.budget.values import NOBODY, Subject, Ticket
from esid.esi.routes import Route

#: Why one id waits though others may go.
TWICE, SICK, DOUBTED = "the same is being asked", "an id that failed is no probe", "what was named with it is refused"


class Admission(Books):
    """What has to have room before a request leaves. Called under the lock."""

    def admit(self, route: Route, url: int, now: float, subject: Subject = NOBODY) -> tuple[Ticket | None, float, str]:
        """(ticket, seconds until it leaves, "") or (None, seconds to wait, why). Under lock."""
        if held := self.places.look_for_dead(now):
            self._charge_dead(held, now)
        circuit = self.breaker.place(route.path)
        if (closed_s := self._closed_s(now)) > 0:
            return None, closed_s, "420" if self.shared.state.paused_until > now else "no share of the budget"
        if self.is_divided and not self._has_share():
            return None, EXCHANGE_S, "no share of the budget"
        if (hold_s := self.breaker.route_hold_s(circuit, now)) > 0:
            # No thread waits for one route: others have work.
            return None, max(hold_s, PATIENCE_S + 1.0), f"{route.path} is away"
        if (away_s := self.breaker.wait_s(circuit, now)) > 0:
            return None, away_s, "ESI is away"
        if self.breaker.is_open(circuit) and self.breaker.is_no_probe(circuit, subject.number, subject.standing, now):
            return None, PATIENCE_S + 1.0, SICK
        if url and self.places.holds(url):
            return None, PATIENCE_S + 1.0, TWICE
        if (doubted_s := self.doubts.wait_s(subject.source, now)) > 0:
            return None, doubted_s, DOUBTED
        in_flight, most = self.places.total("in_flight"), self.limits.max_in_flight
        if self.is_divided:
            most = min(most, max(1, int(self.shared.state.in_flight_allowed)))
        if in_flight >= most:
            return None, SOON_S, "in flight"
        wanted = self._wanted(route, circuit)
        for place in wanted:
            wait_s = self._room_s(place, now)
            if wait_s > 0:
                return None, wait_s, "error limit" if place == GUARDED else f"bucket {self.buckets.name(place)}"
        wait_s = self.pace.take(now, shared=self.is_divided)
        self.doubts.take(subject.source, now)
        return self._take(circuit, wanted, url, now, now + wait_s), wait_s, ""

    def _charge_dead(self, held: list[int], now: float) -> None:
        """What a killed process had on its way was answered, and nobody has read at what cost."""
        for place, count in enumerate(held[:GUARDED]):
            self.buckets.spend(place, count * self.buckets.worst(place), now)
        if held[GUARDED]:
            self.errors.doubt(held[GUARDED], now)

    def _take(self, circuit: int, wanted: tuple[int, ...], url: int, now: float, leaves_at: float) -> Ticket:
        for place in wanted:
            if place != GUARDED:
                self.buckets.take(place, now, shared=self.is_divided)
        self.breaker.take(circuit, now)
        self.places.take(wanted, url)
        self._count_sent(now)
        return Ticket(circuit, wanted, url, leaves_at, self.shared.state.file, is_probe=bool(self.breaker.open_since()))

    def _room_s(self, place: int, now: float) -> float:
        """Seconds until one more request has room in the error limit or in a bucket; 0 = now."""
        reserved = self.places.reserved(place)
        if place != GUARDED:
            return self.buckets.wait_s(place, now, reserved, shared=self.is_divided)
        room = self.errors.room(now, shared=self.is_divided)
        if reserved + 1 <= room:
            return 0.0
        # Somebody on the way may come back well; a share grows when others have heard that we want more.
        if reserved and room >= 1:
            return SOON_S
        is_heard = not self.is_divided or self.shared.state.errors_asked >= HEARD
        if not is_heard and reserved + 1 <= self.errors.room(now, shared=False):
            return EXCHANGE_S
        return max(0.05, self.errors.wait_s(now))

    def _has_share(self) -> bool:
        """Whether others have given up something for us already: a part of one limit alone lets nothing leave."""
        state = self.shared.state
        return state.in_flight_allowed >= LEAST and (not self.limits.max_rps or state.rps_allowed >= LEAST)

    def _wanted(self, route: Route, circuit: int) -> tuple[int, ...]:
        """Where a request of this route needs room."""
        hidden = self.buckets.hidden_place(route.hidden) if route.hidden else None
        kind = self._kind(route, circuit)
        return (kind,) if hidden is None else (kind, hidden)

    def _bucket_s(self, route: Route, now: float) -> float:
        """Seconds until an empty or closed bucket has room again; what is only a matter of pace is no wait."""
        place = self._kind(route)
        if place == GUARDED:
            return 0.0
        wait_s = self.buckets.wait_s(place, now, self.places.reserved(place), shared=self.is_divided)
        return wait_s if wait_s > PATIENCE_S / 2 else 0.0
