"""What an answer has cost, and what it says of ESI."""

from __future__ import annotations

import random

from esid import clock
from esid.esi import headers as read
from esid.esi.budget.books import Books
from esid.esi.budget.layout import GUARDED
from esid.esi.budget.values import NOBODY, Outcome, Subject, Ticket

#: Seconds that a 429 closes for at least, whatever it says.
SHORTEST_CLOSE_S = 1.0


class Settlement(Books):
    """Books answers. Called under the lock."""

    def settle(self, ticket: Ticket, outcome: Outcome, now: float, subject: Subject = NOBODY) -> str:
        """Book one answer. Returns what changed by it, as the breaker says, or "esi.doubted"."""
        self._settle_limits(ticket, outcome, now)
        if outcome.status in (420, 429) or outcome.was_held or ticket.file != self.shared.state.file:
            return ""
        if not outcome.failed:
            change = self.breaker.answered(ticket.circuit, now=now, sent_at=ticket.leaves_at)
            if change == "esi.back":
                self.pace.resume(now)
            self.doubts.settle(subject.source, None, now)
            return change
        is_outage, was_open = self.breaker.is_outage(ticket.circuit, now), self.breaker.is_open(ticket.circuit)
        change = self.breaker.failed(ticket.circuit, subject.number, outcome.fault, subject.standing, now=now)
        outcome.is_outage = is_outage or self.breaker.is_open(ticket.circuit) > was_open
        self._obey(ticket.circuit, outcome, now)
        is_doubted = self.doubts.settle(subject.source, outcome.fault, now)
        return change or ("esi.doubted" if is_doubted else "")

    def _obey(self, circuit: int, outcome: Outcome, now: float) -> None:
        """A 503 may say when ESI is to be asked again."""
        if outcome.status == 503 and "Retry-After" in outcome.headers:
            self.breaker.obey(circuit, read.retry_after_s(outcome.headers), now)

    def _settle_limits(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        state, status, headers = self.shared.state, outcome.status, outcome.headers
        self.in_flight.give_back(ticket.buckets, ticket.url)
        state.not_modified += status == 304
        state.errors += not outcome.was_held if status is None else status >= 400
        if not outcome.is_sent or ticket.file != state.file:
            return
        told = headers.get("X-Ratelimit-Group")
        named, errors = self.buckets.learn(told, headers, now) if told else None, read.error_limit(headers)
        if named is not None:
            self.breaker.learn_group(ticket.circuit, named + 1)
        elif errors and status != 420:
            self.breaker.learn_group(ticket.circuit, -1)
        for bucket in ticket.buckets:
            # An answer that says nothing of limits is charged where it was reserved.
            if bucket != GUARDED and (self.buckets.is_hidden(bucket) or (named is None and not errors)):
                self.buckets.settle(bucket, status, headers, now, 0)
        if named is not None:
            self.buckets.settle(named, status, headers, now, self.in_flight.reserved(named))
        elif GUARDED in ticket.buckets or errors:
            self.errors.settle(status, headers, now, ticket.leaves_at)
        if status == 420:
            self.pause(read.error_reset_s(headers), now)
        elif status == 429:
            wait_s = max(SHORTEST_CLOSE_S, read.retry_after_s(headers)) * random.uniform(1, 1.1)  # noqa: S311
            self._close(ticket, named, wait_s, now)

    def _close(self, ticket: Ticket, named: int | None, seconds: float, now: float) -> None:
        """A 429 closes the group that it names, else that of its route, else the route itself."""
        own = next((bucket for bucket in ticket.buckets if bucket != GUARDED), None)
        closed = own if named is None else named
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
