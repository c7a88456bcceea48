"""Whether one more request may leave."""

from __future__ import annotations

from esid.errors import Doubted, HeldAlone
from esid.esi.budget.books import NO_SHARE, PATIENCE_S, SOON_S, Books
from esid.esi.budget.layout import GUARDED
from esid.esi.budget.shares import EXCHANGE_S, HEARD, LEAST
from esid.esi.budget.values import NOBODY, Subject, Ticket, Wait
from esid.esi.routes import Route

#: What one id waits for though others may go: the answer to the same question, that another id is the probe.
_TWICE = Wait(3.0, "the same is being asked", HeldAlone)
_NO_PROBE = Wait(PATIENCE_S + 1.0, "an id that failed is no probe", HeldAlone)


class Admission(Books):
    """What has to have room before a request leaves. Called under the lock."""

    def admit(self, route: Route, url: int, now: float, subject: Subject = NOBODY) -> Ticket | Wait:
        """What one more request holds from now on, or what it waits for."""
        if lost := self.in_flight.look_for_dead(now):
            self._charge_dead(lost, now)
        if closed := self._closed(now):
            return closed
        if self.is_divided and not self._has_share():
            return NO_SHARE
        circuit = self.breaker.number(route.path)
        if (hold_s := self.breaker.route_hold_s(circuit, now)) > 0:
            # No thread waits for one route: others have work.
            return Wait(max(hold_s, PATIENCE_S + 1.0), f"{route.path} is away")
        if (away_s := self.breaker.wait_s(circuit, now)) > 0:
            return Wait(away_s, "ESI is away")
        if self.breaker.is_open(circuit) and self.breaker.is_no_probe(circuit, subject.number, subject.standing, now):
            return _NO_PROBE
        if url and self.in_flight.holds(url):
            return _TWICE
        if (doubted_s := self.doubts.wait_s(subject.source, now)) > 0:
            return Wait(doubted_s, "what was named with it is refused", Doubted)
        most = self.limits.max_in_flight
        if self.is_divided:
            most = min(most, max(1, int(self.shared.state.in_flight_allowed)))
        if self.in_flight.total("in_flight") >= most:
            return Wait(SOON_S, "in flight")
        wanted = self._wanted(route, circuit)
        if full := self._full(wanted, now):
            return full
        self.doubts.take(subject.source, now)
        return self._take(circuit, wanted, url, now)

    def _charge_dead(self, lost: list[int], now: float) -> None:
        """What a killed process had on its way was answered, and nobody has read at what cost."""
        for bucket, count in enumerate(lost[:GUARDED]):
            self.buckets.spend(bucket, count * self.buckets.worst(bucket), now)
        if lost[GUARDED]:
            self.errors.doubt(lost[GUARDED], now)

    def _take(self, circuit: int, wanted: tuple[int, ...], url: int, now: float) -> Ticket:
        leaves_at = self.pace.take(now)
        for bucket in wanted:
            if bucket != GUARDED:
                self.buckets.take(bucket, now)
        self.breaker.take(circuit, now)
        self.in_flight.take(wanted, url)
        self._count_sent(now)
        return Ticket(circuit, wanted, url, leaves_at, self.shared.state.file, is_probe=bool(self.breaker.open_since()))

    def _full(self, wanted: tuple[int, ...], now: float) -> Wait | None:
        """The first limit of these that has no room for one more request; None = all have."""
        for bucket in wanted:
            if (wait_s := self._room_s(bucket, now)) > 0:
                return Wait(wait_s, "error limit" if bucket == GUARDED else f"bucket {self.buckets.name(bucket)}")
        return None

    def _room_s(self, bucket: int, now: float) -> float:
        """Seconds until one more request has room in the error limit or in a bucket; 0 = now."""
        reserved = self.in_flight.reserved(bucket)
        if bucket != GUARDED:
            return self.buckets.wait_s(bucket, now, reserved)
        room = self.errors.room(now)
        if reserved + 1 <= room:
            return 0.0
        # A request in flight may succeed and free its reservation; a share grows when others have heard that we want more.
        if reserved and room >= 1:
            return SOON_S
        is_heard = not self.is_divided or self.shared.state.errors_asked >= HEARD
        if not is_heard and reserved + 1 <= self.errors.room(now, of_all=True):
            return EXCHANGE_S
        return max(0.05, self.errors.wait_s(now))

    def _has_share(self) -> bool:
        """Whether others have given up something for us already: a part of one limit alone lets nothing leave."""
        state = self.shared.state
        return state.in_flight_allowed >= LEAST and (not self.limits.max_rps or state.rps_allowed >= LEAST)

    def _wanted(self, route: Route, circuit: int) -> tuple[int, ...]:
        """Where a request of this route needs room."""
        hidden = self.buckets.hidden_number(route.hidden) if route.hidden else None
        kind = self._kind(route, circuit)
        return (kind,) if hidden is None else (kind, hidden)

    def _bucket_s(self, route: Route, now: float) -> float:
        """Seconds until an empty or closed bucket has room again; what is only a matter of pace is no wait."""
        bucket = self._kind(route)
        if bucket == GUARDED:
            return 0.0
        wait_s = self.buckets.wait_s(bucket, now, self.in_flight.reserved(bucket))
        return wait_s if wait_s > PATIENCE_S / 2 else 0.0
