"""What one source has named and is refused in rows spends a tenth of the error limit, and keeps nobody else waiting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from esid import clock
from esid.errors import Fault
from esid.esi.budget import Budget, Limits, Outcome, Subject, Wait
from esid.esi.budget.doubts import EVERY_S, IN_A_ROW
from esid.esi.routes import Route

CORPORATION, ALLIANCE = Route("/corporations/{id}"), Route("/alliances/{id}")
FLOOD, OTHER = 7, 8


@pytest.fixture
def budget(tmp_path: Path, times: list[float]) -> Iterator[Budget]:
    """One without a pace, whose error window is known."""
    one = Budget(tmp_path / "budget", Limits(max_rps=0))
    one.shared.state.window_known = 1
    yield one
    one.close()


def ask(budget: Budget, source: int, fault: Fault | None, route: Route = CORPORATION) -> str:
    """Ask for one id: "left", or why it did not leave."""
    with budget.shared.locked():
        subject = Subject("id", source=source)
        ticket = budget.admit(route, 0, clock.monotonic(), subject)
        if isinstance(ticket, Wait):
            assert 10.0 < ticket.seconds <= 3000.0
            return ticket.why
        outcome = Outcome()
        outcome.status = 200 if fault is None else 404
        outcome.failed, outcome.fault = ("HTTP 404" if fault else ""), fault or Fault.ESI
        budget.settle(ticket, outcome, clock.monotonic(), subject)
    return "left"


def refuse(budget: Budget, count: int, source: int = FLOOD) -> None:
    for _ in range(count):
        assert ask(budget, source, Fault.ID) == "left"


def test_what_is_refused_in_rows_waits_in_line_and_nobody_else_does(budget: Budget, times: list[float]) -> None:
    refuse(budget, IN_A_ROW + 1)
    # Nothing of that source leaves any more
    assert {ask(budget, FLOOD, Fault.ID) for _ in range(100)} == {"what was named with it is refused"}
    # But that of others, the same source on another route (another number), and what has no source
    assert ask(budget, OTHER, None) == ask(budget, 0, Fault.ID) == ask(budget, 9, Fault.ID, ALLIANCE) == "left"
    # And one of it now and then, of however many sources
    refuse(budget, IN_A_ROW, OTHER)
    left = 0
    for _ in range(600):
        times[0] += 1.0
        left += [ask(budget, source, Fault.ID) for source in (FLOOD, OTHER)].count("left")
    assert 0.9 * 600 / EVERY_S <= left <= 600 / EVERY_S + 1


def test_a_good_answer_ends_it(budget: Budget, times: list[float]) -> None:
    refuse(budget, IN_A_ROW)
    assert ask(budget, FLOOD, None) == "left"
    refuse(budget, IN_A_ROW)
    # And where good ones come between, it does not begin
    for _ in range(5):
        assert ask(budget, OTHER, None) == "left"
        refuse(budget, IN_A_ROW - 1, OTHER)


@pytest.mark.parametrize("fault", [Fault.ROUTE, Fault.ESI, Fault.WAY])
def test_what_is_not_the_ids_fault_says_nothing_of_their_source(budget: Budget, fault: Fault) -> None:
    with budget.shared.locked():
        for _ in range(3 * IN_A_ROW):
            assert not budget.doubts.settle(FLOOD, fault, clock.monotonic())
    assert not budget.is_doubted(FLOOD)


def test_places_in_the_line_are_told_apart(budget: Budget) -> None:
    refuse(budget, IN_A_ROW + 1)
    with budget.shared.locked():
        waits = [budget.doubts.wait_s(FLOOD, clock.monotonic()) for _ in range(1000)]
    assert all(after - before == pytest.approx(EVERY_S) for before, after in pairwise(waits[:400]))
    assert max(waits) <= 3000.0


def test_a_source_too_many_is_forgotten_and_no_doubted_one_before_its_time(budget: Budget, times: list[float]) -> None:
    refuse(budget, IN_A_ROW)
    for source in range(100, 110):
        times[0] += 1.0
        refuse(budget, 1, source)
    assert budget.is_doubted(FLOOD)
