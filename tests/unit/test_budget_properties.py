"""Whatever grants, answers, deaths and clock steps come in whatever order: the admission rule holds.

An ESI of the strictest kind keeps the books beside the budget: a fixed error window of unknown phase, floating buckets.
Should every request on its way fail at once, and cost the most, its reserve would still be untouched.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from esid import clock
from esid.clock import Stop
from esid.errors import DatabaseUnavailable
from esid.esi.budget import Budget, Limits, Outcome, Ticket, Wait
from esid.esi.budget.exchange import Sharing
from esid.esi.budget.shares import EXCHANGE_S
from esid.esi.routes import Route, token_cost

RESERVE, LIMIT, WINDOW_S = 10, 100, 60.0
TOKENS, BUCKET_S, BUCKET_RESERVE = 120.0, 900.0, 2
GUARDED, KILLMAIL = Route("/corporations/{id}"), Route("/killmails/{id}/{argument}", group="killmail")
#: More of them by `ESID_TEST_EXAMPLES=2000 pytest tests/unit/test_budget_properties.py`.
EXAMPLES = int(os.environ.get("ESID_TEST_EXAMPLES", "60"))
STATUSES = (200, 304, 404, 422, 500, 502, None)


class Books:
    """ESI's own: errors of the fixed windows, and what each bucket has spent within its floating window."""

    def __init__(self, phase: float) -> None:
        self.phase = phase
        self.errors: dict[int, int] = {}
        self.spent: list[tuple[float, float]] = []

    def window(self, now: float) -> int:
        """The number of the fixed window."""
        return int((now + self.phase) // WINDOW_S)

    def answer(self, route: Route, status: int | None, now: float) -> dict[str, str]:
        """Charge one answer; its headers."""
        if route is GUARDED:
            window = self.window(now)
            self.errors[window] = self.errors.get(window, 0) + (status is None or status >= 400)
            reset = WINDOW_S - (now + self.phase) % WINDOW_S
            remain = LIMIT - self.errors[window]
            return {"X-Esi-Error-Limit-Remain": str(remain), "X-Esi-Error-Limit-Reset": str(int(reset))}
        self.spent.append((now, token_cost(status or 500)))
        return {
            "X-Ratelimit-Group": "killmail",
            "X-Ratelimit-Limit": f"{TOKENS:.0f}/15m",
            "X-Ratelimit-Remaining": str(max(0, int(TOKENS - self.used(now)))),
        }

    def used(self, now: float) -> float:
        """Tokens that are not back yet."""
        return sum(cost for at, cost in self.spent if at + BUCKET_S > now)

    def failed(self, now: float) -> int:
        """Errors of this window."""
        return self.errors.get(self.window(now), 0)


@dataclasses.dataclass
class Flight:
    """A request on its way."""

    budget: Budget
    ticket: Ticket
    route: Route


@dataclasses.dataclass
class Coming:
    """An answer that ESI has given and whose end is not in yet."""

    flight: Flight
    status: int | None
    headers: dict[str, str]


class Machine(RuleBasedStateMachine):
    """Two hosts of two processes each, behind one address."""

    hosts = 2

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(clock, "monotonic", lambda: self.now)
        self.directory = Path(tempfile.mkdtemp(prefix="esid-budget-"))
        self.rows: dict[str, Any] = {}
        self.database_is_away = False
        self.flights: list[Flight] = []
        self.coming: list[Coming] = []
        self.hungry: list[tuple[Budget, int]] = []
        self.budgets: list[Budget] = []
        self.sharings: list[Sharing] = []
        for name in (f"host-{number}" for number in range(self.hosts)):
            for _ in range(2):
                self.budgets.append(self.process(name))
                self.sharings.append(Sharing(self.budgets[-1], self.exchanger(), name, Stop()))

    def process(self, name: str) -> Budget:
        """One more process of a host."""
        limits = Limits(max_rps=0, max_in_flight=200, error_reserve=RESERVE, bucket_reserve=BUCKET_RESERVE)
        return Budget(self.directory / name, limits, is_divided=self.hosts > 1)

    def exchanger(self) -> Any:
        """The database's part of an exchange; its clock is an hour ahead of ours."""

        def exchange(meet: Any) -> None:
            name, row = meet(self.now + 3600.0, dict(self.rows))
            if self.database_is_away:
                raise DatabaseUnavailable("gone before the commit")
            self.rows[name] = row

        return exchange

    @initialize(phase=st.floats(0, WINDOW_S))
    def begin(self, phase: float) -> None:
        self.books = Books(phase)
        for _ in range(3):
            for sharing in self.sharings:
                if self.hosts > 1:
                    sharing.once()
        # Every process has had an answer of the bucket, whose size in this world is not the table's.
        for budget in self.budgets[:: max(1, len(self.budgets) // self.hosts)]:
            with budget.shared.locked():
                headers = {"X-Ratelimit-Limit": f"{TOKENS:.0f}/15m"}
                budget.buckets.learn("killmail", headers, clock.monotonic())

    @rule(process=st.integers(0, 3), route=st.sampled_from([GUARDED, KILLMAIL]), most=st.integers(1, 80))
    def grant(self, process: int, route: Route, most: int) -> None:
        """As many as may leave, up to `most`."""
        self.take(self.budgets[process % len(self.budgets)], route, most)

    @rule(process=st.integers(0, 3), route=st.sampled_from([GUARDED, KILLMAIL]), times=st.integers(1, 6))
    def storm(self, process: int, route: Route, times: int) -> None:
        """One process sends what it may, and nothing comes back well."""
        budget = self.budgets[process % len(self.budgets)]
        for _ in range(times):
            self.take(budget, route, 100)
            while self.flights:
                self.land(self.flights.pop(), 404)
            self.pass_by(EXCHANGE_S)

    def take(self, budget: Budget, route: Route, most: int) -> None:
        """What gets no leave waits, until time goes by."""
        with budget.shared.locked():
            for _ in range(most):
                ticket = budget.admit(route, 0, self.now)
                if isinstance(ticket, Wait):
                    kind = budget._kind(route)
                    budget.in_flight.add_waiting(kind, 1)
                    self.hungry.append((budget, kind))
                    return
                self.flights.append(Flight(budget, ticket, route))

    def land(self, flight: Flight, status: int | None) -> None:
        """One answer comes in."""
        self.arrive(Coming(flight, status, self.books.answer(flight.route, status, self.now)))

    def arrive(self, one: Coming) -> None:
        """The end of an answer is in, whenever ESI has given it."""
        outcome = Outcome()
        outcome.status, outcome.headers = one.status, one.headers if one.status is not None else {}
        with one.flight.budget.shared.locked():
            one.flight.budget.settle(one.flight.ticket, outcome, self.now)

    def pass_by(self, seconds: float) -> None:
        """Time goes by; those who live exchange as often as they do."""
        step = max(EXCHANGE_S, seconds / 20)
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.tell()
        for budget, kind in self.hungry:
            with budget.shared.locked():
                budget.in_flight.add_waiting(kind, -1)
        self.hungry.clear()

    def tell(self) -> None:
        """Every host exchanges once."""
        for sharing in self.sharings if self.hosts > 1 else ():
            with suppress(DatabaseUnavailable):
                sharing.once()

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), status=st.sampled_from(STATUSES), most=st.integers(1, 80))
    def answer(self, data: st.DataObject, status: int | None, most: int) -> None:
        """Some answers come in, in any order."""
        for _ in range(min(most, len(self.flights))):
            self.land(self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1))), status)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), status=st.sampled_from(STATUSES), most=st.integers(1, 20))
    def answer_slowly(self, data: st.DataObject, status: int | None, most: int) -> None:
        """ESI answers and counts; the bodies take their time."""
        for _ in range(min(most, len(self.flights))):
            flight = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
            self.coming.append(Coming(flight, status, self.books.answer(flight.route, status, self.now)))

    @precondition(lambda self: self.coming)
    @rule(data=st.data(), most=st.integers(1, 20))
    def come_in(self, data: st.DataObject, most: int) -> None:
        """Some slow answers are in."""
        for _ in range(min(most, len(self.coming))):
            self.arrive(self.coming.pop(data.draw(st.integers(0, len(self.coming) - 1))))

    @rule(process=st.integers(0, 3), seconds=st.floats(0.1, 30.0))
    def storm_around_a_slow_body(self, process: int, seconds: float) -> None:
        """One answer's headers are written, everything fails, and only then its end is in."""
        budget, before = self.budgets[process % len(self.budgets)], len(self.flights)
        self.take(budget, GUARDED, 1)
        for flight in self.flights[before:]:
            self.coming.append(Coming(flight, 200, self.books.answer(GUARDED, 200, self.now)))
        del self.flights[before:]
        self.storm(process, GUARDED, 2)
        self.pass_by(seconds)
        while self.coming:
            self.arrive(self.coming.pop())
        self.storm(process, GUARDED, 2)

    @rule(process=st.integers(0, 3), most=st.integers(0, 80), status=st.sampled_from(STATUSES))
    def kill(self, process: int, most: int, status: int | None) -> None:
        """A process dies; ESI answers what it had on its way, and nobody reads it. Another one takes its place."""
        number = process % len(self.budgets)
        dead = self.budgets[number]
        self.take(dead, GUARDED, most)
        for flight in [one for one in self.flights if one.budget is dead]:
            self.books.answer(flight.route, status, self.now)
        self.flights = [one for one in self.flights if one.budget is not dead]
        self.coming = [one for one in self.coming if one.flight.budget is not dead]
        self.hungry = [one for one in self.hungry if one[0] is not dead]
        dead.shared.close()
        name = f"host-{number // 2}"
        self.budgets[number] = self.process(name)
        self.sharings[number] = Sharing(self.budgets[number], self.exchanger(), name, Stop())

    @rule(seconds=st.floats(0.01, 70.0))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.pass_by(seconds)

    @rule(offset=st.floats(-1.0, 1.2))
    def wait_for_the_edge_of_a_window(self, offset: float) -> None:
        """Until just before or after ESI's window ends."""
        left = WINDOW_S - (self.now + self.books.phase) % WINDOW_S
        self.pass_by(max(0.0, left + offset))

    @rule(seconds=st.floats(0.01, 30.0))
    def freeze(self, seconds: float) -> None:
        """Nobody runs for a while."""
        self.now += seconds

    @rule(process=st.integers(0, 3), other=st.booleans())
    def exchange(self, process: int, other: bool) -> None:
        """One host tells and takes."""
        if self.hosts > 1:
            with suppress(DatabaseUnavailable):
                self.sharings[process % len(self.sharings)].once()

    @rule(is_away=st.booleans())
    def lose_the_database(self, is_away: bool) -> None:
        """It goes, or comes back."""
        self.database_is_away = is_away

    @rule(hours=st.integers(-48, 48))
    def step_the_wall_clock(self, hours: int) -> None:
        """Somebody sets the clock: waits are of another one."""
        self.patch.setattr(clock, "now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours))

    @invariant()
    def the_reserve_of_the_error_limit_holds(self) -> None:
        if hasattr(self, "books"):
            on_their_way = sum(flight.route is GUARDED for flight in self.flights)
            assert self.books.failed(self.now) + on_their_way <= LIMIT - RESERVE

    @invariant()
    def the_reserve_of_the_bucket_holds(self) -> None:
        if hasattr(self, "books"):
            on_their_way = sum(flight.route is KILLMAIL for flight in self.flights)
            assert self.books.used(self.now) + 5 * on_their_way <= TOKENS * (100 - BUCKET_RESERVE) / 100

    def teardown(self) -> None:
        for budget in self.budgets:
            budget.close()
        self.patch.undo()


class OneHost(Machine):
    """Four processes of one host."""

    hosts = 1


TestSeveralHosts = Machine.TestCase
TestOneHost = OneHost.TestCase
pytestmark = [pytest.mark.timeout(900), pytest.mark.heavy]
for _case in (TestSeveralHosts, TestOneHost):
    _case.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=25, suppress_health_check=list(HealthCheck), database=None
    )
del _case  # or it would run once more under its own name
