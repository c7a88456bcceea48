"""The budget: what may leave for ESI, for all threads and processes of a host, and its share of what hosts divide.

A request is admitted before it leaves (even if everything on its way came back at the worst cost, every limit less its
reserve would hold) and settled when its answer is in. What an answer's headers say beats our own count: somebody else
behind the same address may spend the budget too. How a host's share comes about: `esi.shares`.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

from esid import clock, log
from esid.clock import Stop
from esid.errors import Held, Stopping
from esid.esi import headers as read
from esid.esi.breaker import Breaker
from esid.esi.buckets import Buckets
from esid.esi.error_limit import ErrorLimit
from esid.esi.pace import Pace
from esid.esi.places import Places
from esid.esi.routes import STATUS, Route
from esid.esi.shared import GUARDED, SECONDS, Shared
from esid.esi.shares import EXCHANGE_S, HEARD, LEAST

#: Seconds that a thread waits for the budget before it puts its work back.
PATIENCE_S = 10.0
#: Seconds between two looks of a waiting thread, where somebody else's answer may end the wait, and elsewhere.
_SOON_S, _LOOK_S = 0.02, 0.5
#: Seconds that a 429 closes for at least, whatever it says.
SHORTEST_CLOSE_S = 1.0
_log = log.get("esi")


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of the budget: requests a second (0 = no pace), requests in flight, errors, percent of a bucket."""

    max_rps: float = 50.0
    max_in_flight: int = 64
    error_reserve: int = 10
    bucket_reserve: int = 2


class Outcome:
    """What an exchange ended in; the client fills it in.

    Attributes:
        status: None = no answer came.
        is_sent: False = it did not leave (no connection, or held while it connected): ESI has heard of nothing.
        failed: what was wrong where ESI itself is the cause (5xx, no answer, no JSON): the breaker counts it.
        is_outage: set by the budget: ESI is away, so this failure is not an id's own.

    Args:
        look: what it is held by now, though it had leave; None = nothing.
    """

    def __init__(self, look: Callable[[], Held | None] = lambda: None) -> None:
        self.status: int | None = None
        self.is_sent = True
        self.headers: Mapping[str, str] = {}
        self.failed = ""
        self.is_outage = False
        self._look = look

    @property
    def was_held(self) -> bool:
        """True where it had leave and did not use it: that tells nothing of ESI."""
        return not (self.is_sent or self.failed)

    def check(self) -> None:
        """Where time has gone by since it had leave, and before it leaves. Raises Held; it does not leave then."""
        if held := self._look():
            self.is_sent = False
            raise held


@dataclass(frozen=True, slots=True)
class Ticket:
    """What an admitted request holds: its circuit, its buckets (`GUARDED` = the error limit), its URL.

    Attributes:
        leaves_at: when its place in the pace is; it does not leave sooner.
        is_probe: it leaves although ESI is away.
    """

    circuit: int
    buckets: tuple[int, ...]
    url: int
    leaves_at: float
    is_probe: bool = False


class Budget:
    """One budget of one host. Make one object a process, after any fork.

    Args:
        path: the shared file.
        stop: ends every wait at once.
        is_divided: other hosts use the budget too; nothing leaves without a share (see `esi.sharing`).
    """

    def __init__(self, path: Path, limits: Limits, stop: Stop | None = None, *, is_divided: bool = False) -> None:
        self.shared = Shared(path)
        self.limits, self.is_divided = limits, is_divided
        self._stop = stop or Stop()
        state = self.shared.state
        self.errors = ErrorLimit(state, limits.error_reserve)
        self.buckets = Buckets(state, limits.bucket_reserve)
        self.breaker = Breaker(state)
        self.pace = Pace(state, limits.max_rps)
        self.places = Places(state)
        self._freed = threading.Condition()

    @contextmanager
    def request(self, route: Route, url: str = "", probe: Callable[[], None] | None = None) -> Iterator[Outcome]:
        """Wait for leave to send one request, and settle it at the end.

        Args:
            url: what is asked; the same is never asked by two at once. "" = not compared.
            probe: asks `/status`, where that is due.

        Raises:
            Held: it would take longer than a thread should wait.
            Stopping: the daemon stops.
        """
        ticket = self._wait(route, crc32(url.encode()) + 1 if url else 0, probe)
        outcome = Outcome(partial(self._look, ticket))
        try:
            yield outcome
        finally:
            with self.shared.locked():
                change = self.settle(ticket, outcome, clock.monotonic())
            with self._freed:
                self._freed.notify()
            self._say(change, route, outcome)

    @contextmanager
    def status_probe(self) -> Iterator[Outcome]:
        """The same for the breaker's own question, which leaves whatever the circuits say. Raises Held, Stopping."""
        with self.shared.locked() as state:
            now = clock.monotonic()
            if self._stop.is_set():
                raise Stopping("stopping")
            if (closed_s := self._closed_s(now)) > 0:
                raise Held(closed_s, "420" if state.paused_until > now else "no share of the budget")
            place = self._kind(STATUS)
            if (wait_s := self._room_s(place, now)) > 0:
                raise Held(wait_s, f"bucket {self.buckets.name(place)}" if place != GUARDED else "error limit")
            ticket = Ticket(0, (place,), 0, now, is_probe=True)
            self.places.take(ticket.buckets, ticket.url)
            self._count_sent(now)
        outcome = Outcome(partial(self._look, ticket))
        try:
            yield outcome
        finally:
            with self.shared.locked():
                self._settle_limits(ticket, outcome, clock.monotonic())

    def note_status(self, *, is_up: bool, is_vip: bool) -> None:
        """What the probe of `/status` has told."""
        with self.shared.locked():
            self.breaker.settle_status_probe(is_up=is_up, is_vip=is_vip)

    def hold_s(self, route: Route, probe: Callable[[], None] | None = None) -> float:
        """Seconds that no work of this route need be begun (0 = now): a 420, an outage, an empty bucket."""
        while True:
            with self.shared.locked() as state:
                now = clock.monotonic()
                is_due = bool(probe) and state.paused_until <= now and self.breaker.claim_status_probe(now)
                if not is_due:
                    paused_s = float(state.paused_until) - now
                    return max(0.0, paused_s, self.breaker.away_s(now), self._bucket_s(route, now))
            if probe:
                probe()

    def is_away(self) -> bool:
        """True while the breaker holds back ESI as a whole."""
        with self.shared.locked():
            return bool(self.breaker.open_since())

    def close(self) -> None:
        """Give this process's place back and close the file."""
        with self.shared.locked():
            self.places.forget(os.getpid())
        self.shared.close()

    # -- admission

    def _wait(self, route: Route, url: int, probe: Callable[[], None] | None) -> Ticket:
        ends_at = clock.monotonic() + PATIENCE_S
        waits_for: int | None = None
        try:
            while True:
                with self.shared.locked():
                    now = clock.monotonic()
                    is_due = bool(probe) and not self._stop.is_set() and self.breaker.claim_status_probe(now)
                    ticket, wait_s, reason = (None, 0.0, "") if is_due else self.admit(route, url, now)
                    if reason and waits_for is None:
                        waits_for = self._kind(route)
                        self.places.add_waiting(waits_for, 1)
                if is_due and probe:
                    probe()
                elif ticket:
                    if self._keep_place(ticket, wait_s):
                        return ticket
                else:
                    self._wait_a_little(wait_s, reason, ends_at)
        finally:
            if waits_for is not None:
                with self.shared.locked():
                    self.places.add_waiting(waits_for, -1)

    def _wait_a_little(self, wait_s: float, reason: str, ends_at: float) -> None:
        """Raises Held where the whole wait is too long, Stopping where the daemon stops."""
        if clock.monotonic() + wait_s > ends_at:
            raise Held(wait_s, reason)
        if wait_s <= _SOON_S and not self._stop.is_set():
            with self._freed:
                self._freed.wait(wait_s)
        elif self._stop.wait(min(wait_s, _LOOK_S)):
            raise Stopping("stopping")

    def _keep_place(self, ticket: Ticket, wait_s: float) -> bool:
        """Wait for our place in the pace; False when the budget was closed meanwhile and everything is given back.

        Raises:
            Stopping: the daemon stops; everything is given back too.
        """
        stopped = self._stop.wait(wait_s) if wait_s > 0 else self._stop.is_set()
        if not stopped and wait_s <= 0:
            return True
        with self.shared.locked():
            if not stopped and not self._held(ticket, clock.monotonic()):
                return True
            self.places.give_back(ticket.buckets, ticket.url)
        if stopped:
            raise Stopping("stopping")
        return False

    def _look(self, ticket: Ticket) -> Held | None:
        """For a request that had leave and has not left: while it connects, which may take seconds, others are answered."""
        with self.shared.locked():
            return self._held(ticket, clock.monotonic())

    def _held(self, ticket: Ticket, now: float) -> Held | None:
        """What holds a request although it had leave. Under lock."""
        if (closed_s := self._closed_s(now)) > 0:
            return Held(closed_s, "420" if self.shared.state.paused_until > now else "no share of the budget")
        if self.breaker.open_since() and not ticket.is_probe:
            return Held(max(_LOOK_S, self.breaker.away_s(now)), "ESI is away")
        return None

    def admit(self, route: Route, url: int, now: float) -> tuple[Ticket | None, float, str]:
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
        if url and self.places.holds(url):
            return None, PATIENCE_S + 1.0, "the same is being asked"
        in_flight, most = self.places.total("in_flight"), self.limits.max_in_flight
        if self.is_divided:
            most = min(most, max(1, int(self.shared.state.in_flight_allowed)))
        if in_flight >= most:
            return None, _SOON_S, "in flight"
        wanted = self._wanted(route)
        for place in wanted:
            wait_s = self._room_s(place, now)
            if wait_s > 0:
                return None, wait_s, "error limit" if place == GUARDED else f"bucket {self.buckets.name(place)}"
        wait_s = self.pace.take(now, shared=self.is_divided)
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
        return Ticket(circuit, wanted, url, leaves_at, is_probe=bool(self.breaker.open_since()))

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
            return _SOON_S
        is_heard = not self.is_divided or self.shared.state.errors_asked >= HEARD
        if not is_heard and reserved + 1 <= self.errors.room(now, shared=False):
            return EXCHANGE_S
        return max(0.05, self.errors.wait_s(now))

    def _closed_s(self, now: float) -> float:
        """Seconds until anything may leave at all."""
        state = self.shared.state
        if self.is_divided and state.share_until <= now:
            return max(_LOOK_S / 2, float(state.paused_until) - now)
        return max(0.0, float(state.paused_until) - now)

    def _has_share(self) -> bool:
        """Whether others have given up something for us already: a part of one limit alone lets nothing leave."""
        state = self.shared.state
        return state.in_flight_allowed >= LEAST and (not self.limits.max_rps or state.rps_allowed >= LEAST)

    def _wanted(self, route: Route) -> tuple[int, ...]:
        """Where a request of this route needs room."""
        hidden = self.buckets.hidden_place(route.hidden) if route.hidden else None
        kind = self._kind(route)
        return (kind,) if hidden is None else (kind, hidden)

    def _kind(self, route: Route) -> int:
        """The bucket of a route, or `GUARDED`: as its answers said, else as the table says."""
        told = int(self.shared.state.circuits[self.breaker.place(route.path)].group)
        if told:
            return told - 1 if told > 0 else GUARDED
        place = self.buckets.place(route.group) if route.group else None
        return GUARDED if place is None else place

    def _bucket_s(self, route: Route, now: float) -> float:
        """Seconds until an empty or closed bucket has room again; what is only a matter of pace is no wait."""
        place = self._kind(route)
        if place == GUARDED:
            return 0.0
        wait_s = self.buckets.wait_s(place, now, self.places.reserved(place), shared=self.is_divided)
        return wait_s if wait_s > PATIENCE_S / 2 else 0.0

    def _count_sent(self, now: float) -> None:
        state = self.shared.state
        for second in range(max(int(state.second) + 1, int(now) - SECONDS + 1), int(now) + 1):
            state.sent[second % SECONDS] = 0.0
        state.second = int(now)
        state.sent[int(now) % SECONDS] += 1
        state.requests += 1

    # -- settlement

    def settle(self, ticket: Ticket, outcome: Outcome, now: float) -> str:
        """Book one answer; what the breaker made of it. Under lock."""
        self._settle_limits(ticket, outcome, now)
        if outcome.status in (420, 429) or outcome.was_held:
            return ""
        outcome.is_outage = bool(outcome.failed) and self.breaker.is_outage(ticket.circuit, now)
        change = self.breaker.settle(ticket.circuit, failed=bool(outcome.failed), now=now, sent_at=ticket.leaves_at)
        if change == "esi.back":
            self.pace.resume(now)
        return change

    def _settle_limits(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        state, status, headers = self.shared.state, outcome.status, outcome.headers
        self.places.give_back(ticket.buckets, ticket.url)
        state.not_modified += status == 304
        state.errors += not outcome.was_held if status is None else status >= 400
        if not outcome.is_sent:
            return
        told = headers.get("X-Ratelimit-Group")
        place = self.buckets.learn(told, headers) if told else None
        if place is not None:
            self._learn_kind(ticket.circuit, place + 1)
        elif read.error_limit(headers) and status != 420:
            self._learn_kind(ticket.circuit, -1)
        for held in ticket.buckets:
            # An answer that says nothing of limits is charged where it was reserved.
            if held != GUARDED and (self.buckets.is_hidden(held) or (place is None and not read.error_limit(headers))):
                self.buckets.settle(held, status, headers, now, 0, shared=self.is_divided)
        if place is not None:
            in_flight = self.places.reserved(place)
            self.buckets.settle(place, status, headers, now, in_flight, shared=self.is_divided)
        elif GUARDED in ticket.buckets or read.error_limit(headers):
            self.errors.settle(status, headers, now, ticket.leaves_at)
        if status == 420:
            self.pause(read.error_reset_s(headers), now)
        elif status == 429:
            wait_s = max(SHORTEST_CLOSE_S, read.retry_after_s(headers)) * random.uniform(1, 1.1)  # noqa: S311
            self._close(ticket, place, wait_s, now)

    def _learn_kind(self, circuit: int, kind: int) -> None:
        if circuit:
            self.shared.state.circuits[circuit].group = kind

    def _close(self, ticket: Ticket, place: int | None, seconds: float, now: float) -> None:
        """A 429 closes the group that it names, else that of its route, else the route itself."""
        own = next((held for held in ticket.buckets if held != GUARDED), None)
        closed = place if place is not None else own
        if closed is not None:
            self.buckets.close(closed, seconds, now)
        else:
            self.breaker.close_route(ticket.circuit, now + seconds)

    def pause(self, seconds: float, now: float) -> None:
        """Nothing leaves on any route for so long and a little more; what leaves after that begins slowly. Under lock."""
        state = self.shared.state
        until = now + seconds + random.uniform(0.5, 1 + 0.05 * seconds)  # noqa: S311
        state.exchanged_at = 0.0  # other hosts are told at once
        if until > state.paused_until:
            state.paused_until = until
            state.paused_until_wall = clock.now().timestamp() + until - now
            self.pace.resume(until)

    def _say(self, change: str, route: Route, outcome: Outcome) -> None:
        if change.endswith(".away"):
            is_downtime = (11, 0) <= (clock.now().hour, clock.now().minute) < (11, 30)
            what = "ESI" if change == "esi.away" else route.path
            words = f"{what} does not answer ({outcome.failed}){' in its daily downtime' if is_downtime else ''}"
            every = "one probe every 5 s" if change == "esi.away" else "one is tried every 10 to 60 s"
            log.event(_log, change, f"{words}; work waits, {every}", level=logging.WARNING)
        elif change:
            what = "ESI" if change == "esi.back" else route.path
            slowly = " slowly at first" if change == "esi.back" else ""
            log.event(_log, change, f"{what} answers again, work goes on{slowly}")
