"""The budget: what may leave for ESI, for all threads and processes of a host, and its share of what hosts divide.

A request is admitted before it leaves (even if everything on its way came back at the worst cost, every limit less its
reserve would hold) and settled when its answer is in. What an answer's headers say beats our own count: somebody else
behind the same address may spend the budget too. How a host's share comes about: `esi.budget.shares`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from zlib import crc32

from esid import clock, log
from esid.clock import Stop
from esid.errors import HeldAlone, Stopping
from esid.esi.budget.admission import Admission
from esid.esi.budget.books import LOOK_S, PATIENCE_S, SOON_S
from esid.esi.budget.doubts import EVERY_S, IN_A_ROW
from esid.esi.budget.layout import GUARDED
from esid.esi.budget.settlement import Settlement
from esid.esi.budget.values import NOBODY, Limits, Outcome, Subject, Ticket, Wait
from esid.esi.headers import ERROR_LIMIT, ERROR_WINDOW_S
from esid.esi.routes import STATUS, Route

#: Seconds between two ids that failed and are asked again: they take half of the error limit at most.
RETRY_EVERY_S = ERROR_WINDOW_S / (ERROR_LIMIT / 2)
#: Seconds that they wait for one another at most: an hour's worth of them.
LONGEST_RETRY_LINE_S = 3600.0
#: Seconds that the question to `/status` waits for its own leave.
STATUS_S = 1.5
_log = log.get("esi")


class Budget(Admission, Settlement):
    """One budget of one host. Make one object a process, after any fork.

    Args:
        path: the shared file.
        stop: ends every wait at once.
        routes: all that esid asks. Each has a circuit of its own from the start.
        is_divided: other hosts use the budget too; nothing leaves without a share (see `esi.budget.exchange`).
        is_known: see `Shared`.

    Raises:
        EsidError: the file has no room for so many routes.
        NotPermitted: it cannot be made or opened.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        stop: Stop | None = None,
        *,
        routes: Iterable[Route] = (),
        is_divided: bool = False,
        is_known: bool = False,
    ) -> None:
        super().__init__(path, limits, routes, is_divided=is_divided, is_known=is_known)
        self._stop, self._freed = stop or Stop(), threading.Condition()

    @contextmanager
    def request(
        self, route: Route, url: str = "", probe: Callable[[], None] | None = None, subject: Subject = NOBODY
    ) -> Iterator[Outcome]:
        """Wait for leave to send one request, and settle it at the end.

        Args:
            url: what is asked; the same is never asked by two at once. "" = not compared.
            probe: asks `/status`, where that is due.
            subject: whom it is about.

        Raises:
            Held: it would take longer than a thread should wait.
            Stopping: the daemon stops.
        """
        ticket = self._wait(route, crc32(url.encode()) + 1 if url else 0, probe, subject)
        outcome = Outcome(partial(self._look, ticket))
        try:
            yield outcome
        finally:
            with self.shared.locked():
                change = self.settle(ticket, outcome, clock.monotonic(), subject)
            with self._freed:
                self._freed.notify()
            self._say(change, route, outcome)

    @contextmanager
    def status_probe(self) -> Iterator[Outcome]:
        """The same for the breaker's own question, which leaves whatever the circuits say. Raises Held, Stopping."""
        ends_at, waits_for = clock.monotonic() + STATUS_S, None
        try:
            while True:
                with self.shared.locked() as state:
                    now, bucket = clock.monotonic(), self._kind(STATUS)
                    if self._stop.is_set():
                        raise Stopping("stopping")
                    if not (wait := self._closed(now) or self._full((bucket,), now)):
                        ticket = Ticket(0, (bucket,), 0, now, state.file, is_probe=True)
                        self.in_flight.take(ticket.buckets, ticket.url)
                        self._count_sent(now)
                        break
                    if waits_for is None:
                        # Other hosts hear of it: the probe may have no share of its bucket yet.
                        waits_for = bucket
                        self.in_flight.add_waiting(bucket, 1)
                if now + wait.seconds > ends_at:
                    raise wait.held()
                self._stop.wait(min(wait.seconds, LOOK_S / 5))
        finally:
            if waits_for is not None:
                with self.shared.locked():
                    self.in_flight.add_waiting(waits_for, -1)
        outcome = Outcome(partial(self._look, ticket))
        try:
            yield outcome
        finally:
            with self.shared.locked():
                self._settle_limits(ticket, outcome, clock.monotonic())

    def note_status(self, *, is_up: bool, is_vip: bool, outcome: Outcome | None = None) -> None:
        """What the probe of `/status` has told; `outcome` is how its answer came."""
        with self.shared.locked():
            now = clock.monotonic()
            change = self.breaker.settle_status_probe(is_up=is_up, is_vip=is_vip, now=now)
            if outcome:
                self._obey(0, outcome, now)  # the circuit of all of ESI
            away = self.breaker.tell() if is_up and not is_vip else []
        self._say(change, STATUS, outcome or Outcome())
        for path in away:
            self._say("route.away", Route(path), Outcome())

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

    def away(self) -> list[str]:
        """What is away: paths of routes, or `ESI` alone."""
        with self.shared.locked():
            return ["ESI"] if self.breaker.open_since() else self.breaker.open_routes()

    def retry_wait_s(self, route: Route, wait_s: float) -> float:
        """Seconds until an id that failed had better be asked again, `wait_s` at least: sick ids, however many, leave half
        of the error limit to the others."""
        with self.shared.locked() as state:
            if self._kind(route) != GUARDED:
                return wait_s
            now = clock.monotonic()
            state.retry_at = min(max(now, state.retry_at + RETRY_EVERY_S), now + LONGEST_RETRY_LINE_S)
            return max(wait_s, float(state.retry_at) - now)

    def is_doubted(self, source: int) -> bool:
        """See `Doubts.is_doubted`."""
        with self.shared.locked():
            return self.doubts.is_doubted(source)

    def doubted(self) -> frozenset[int]:
        """See `Doubts.doubted`."""
        with self.shared.locked():
            return self.doubts.doubted()

    def was_outage(self, path: str, at: float) -> bool:
        """See `Breaker.was_outage`."""
        with self.shared.locked():
            return self.breaker.was_outage(path, at, clock.monotonic())

    def has_answered(self, path: str) -> bool:
        """See `Breaker.has_answered`."""
        with self.shared.locked():
            return self.breaker.has_answered(path, clock.monotonic())

    def outages_over(self) -> dict[str, float]:
        """See `Breaker.over`. Each message asks, and almost none has to wait for the lock."""
        if not self.shared.state.over:
            return {}
        with self.shared.locked():
            return self.breaker.over()

    def forget_outage(self, path: str, since: float) -> None:
        """See `Breaker.forget`."""
        with self.shared.locked():
            self.breaker.forget(path, since)

    def close(self) -> None:
        """Give this process's slot back and close the file."""
        with self.shared.locked():
            self.in_flight.leave()
        self.shared.close()

    def _wait(self, route: Route, url: int, probe: Callable[[], None] | None, subject: Subject) -> Ticket:
        ends_at = clock.monotonic() + PATIENCE_S
        waits_for: int | None = None
        try:
            while True:
                with self.shared.locked():
                    now = clock.monotonic()
                    is_due = bool(probe) and not self._stop.is_set() and self.breaker.claim_status_probe(now)
                    leave = None if is_due else self.admit(route, url, now, subject)
                    if isinstance(leave, Wait) and waits_for is None:
                        waits_for = self._kind(route)
                        self.in_flight.add_waiting(waits_for, 1)
                if isinstance(leave, Wait):
                    self._wait_a_little(leave, ends_at)
                elif leave:
                    if self._keep_turn(leave, now):
                        return leave
                elif probe:
                    probe()
        finally:
            if waits_for is not None:
                with self.shared.locked():
                    self.in_flight.add_waiting(waits_for, -1)

    def _wait_a_little(self, wait: Wait, ends_at: float) -> None:
        """Raises Held where the whole wait is too long or no thread is to wait, Stopping where the daemon stops."""
        if issubclass(wait.error, HeldAlone) or clock.monotonic() + wait.seconds > ends_at:
            raise wait.held()
        if wait.seconds <= SOON_S and not self._stop.is_set():
            with self._freed:
                self._freed.wait(wait.seconds)
        elif self._stop.wait(min(wait.seconds, LOOK_S)):
            raise Stopping("stopping")

    def _keep_turn(self, ticket: Ticket, now: float) -> bool:
        """Wait for our turn in the pace; False when the budget was closed meanwhile and everything is given back.

        Raises:
            Stopping: the daemon stops; everything is given back too.
        """
        wait_s = ticket.leaves_at - now
        stopped = self._stop.wait(wait_s) if wait_s > 0 else self._stop.is_set()
        if not stopped and wait_s <= 0:
            return True
        with self.shared.locked():
            if not stopped and not self._held(ticket, clock.monotonic()):
                return True
            self.in_flight.give_back(ticket.buckets, ticket.url)
        if stopped:
            raise Stopping("stopping")
        return False

    def _look(self, ticket: Ticket) -> Wait | None:
        """For a request that had leave and has not left: while it connects, which may take seconds, others are answered."""
        with self.shared.locked():
            return self._held(ticket, clock.monotonic())

    def _say(self, change: str, route: Route, outcome: Outcome) -> None:
        if change.endswith(".away"):
            is_downtime = (11, 0) <= (clock.now().hour, clock.now().minute) < (11, 30)
            what = "ESI" if change == "esi.away" else route.path
            why = outcome.failed or "/status does"
            if route is STATUS:
                why = f"not even /status{f': {outcome.failed}' if outcome.failed else ''}"
            words = f"{what} does not answer as it should ({why}){' in its daily downtime' if is_downtime else ''}"
            every = "one probe every 5 to 10 s" if change == "esi.away" else "one id is tried every 10 to 60 s"
            words = f"{words}; {_advice(outcome.status)}work waits, {every}"
            log.event(_log, change, words, level=logging.WARNING)
        elif change == "esi.doubted":
            words = (
                f"{route.path}: {IN_A_ROW} ids in a row that became known at one time are refused ({outcome.failed}); the "
                f"rest of them are asked one in {EVERY_S:.0f} s, so that they spend nobody else's errors"
            )
            log.event(_log, change, words, level=logging.WARNING)
        elif change:
            what = "ESI" if change == "esi.back" else route.path
            slowly = " slowly at first" if change == "esi.back" else ""
            log.event(_log, change, f"{what} answers again, work goes on{slowly}")


def _advice(status: int | None) -> str:
    """What a person may look at, where the code of the answers tells."""
    if status == 403:
        return "check ESI_CONTACT and ESI_BASE_URL, and whether CCP has banned this address; "
    if status is not None and (300 <= status < 400 or status in {401, 407, 451, 511}):
        return "a gateway or proxy stands between, check ESI_BASE_URL and the way there; "
    return ""
