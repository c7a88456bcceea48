"""What a bucket lets through in the long run: as many tokens as come back, whatever the answers cost."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from esid import clock
from esid.esi.budget import Budget, Limits, Outcome
from esid.esi.routes import Route, token_cost

KILLMAIL = Route("/killmails/{id}/{argument}", group="killmail")
TOKENS, WINDOW_S, RESERVE_PERCENT = 3600, 900.0, 2
#: Seconds until an answer is there, and those between two looks of a thread that waits (see `budget._LOOK_S`).
ANSWER_S, LOOK_S = 0.1, 0.5


class Clock:
    """A monotonic clock that a test moves."""

    now = 1000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Every clock of the budget."""
    moved = Clock()
    monkeypatch.setattr(clock, "monotonic", lambda: moved.now)
    return moved


@pytest.fixture
def budget(tmp_path: Path, time: Clock) -> Iterator[Budget]:
    """One without a pace."""
    one = Budget(tmp_path / "budget", Limits(max_rps=0, bucket_reserve=RESERVE_PERCENT))
    yield one
    one.close()


def hammer(budget: Budget, time: Clock, status: int, threads: int, windows: int) -> list[float]:
    """When requests left whose answers all have one status, with threads that always want one more."""
    left, order, ends_at = list[float](), count(), time.now + windows * WINDOW_S
    wakes = [(time.now + 0.01 * number, next(order), None) for number in range(threads)]
    while (wake := heapq.heappop(wakes))[0] < ends_at:
        time.now, _, ticket = wake
        with budget.shared.locked():
            if ticket:
                budget.settle(ticket, answer(status), time.now)
            ticket, wait_s, _ = budget.admit(KILLMAIL, 0, time.now)
        if ticket:
            left.append(time.now)
        next_s = ANSWER_S if ticket else min(max(wait_s, 0.001), LOOK_S)
        heapq.heappush(wakes, (time.now + next_s, next(order), ticket))
    return left


def answer(status: int) -> Outcome:
    """One answer that says what it cost."""
    outcome = Outcome()
    outcome.status = status
    outcome.headers = {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Used": f"{token_cost(status):.0f}"}
    return outcome


@pytest.mark.parametrize("threads", [1, 6])
@pytest.mark.parametrize(("status", "cost"), [(200, 2), (304, 1), (404, 5)])
def test_all_tokens_are_used_and_never_one_more(budget: Budget, time: Clock, status: int, cost: int, threads: int) -> None:
    # When a bucket is asked for two windows by threads that always want one more
    left = hammer(budget, time, status, threads, windows=2)
    # Then no window has cost more than the bucket less its reserve, and nearly all of it was used: twice as many answers of
    # 304 as of 200
    usable = TOKENS * (100 - RESERVE_PERCENT) / 100
    most = max(sum(cost for at in left if start <= at < start + WINDOW_S) for start in left[:: max(1, len(left) // 200)])
    assert most <= usable
    assert cost * len(left) >= 0.95 * 2 * usable


def test_a_cost_that_cannot_be_holds_for_no_longer_than_a_window(budget: Budget, time: Clock) -> None:
    outcome = answer(200)
    outcome.headers = {**outcome.headers, "X-Ratelimit-Used": "1000000"}
    with budget.shared.locked():
        ticket, *_ = budget.admit(KILLMAIL, 0, time.now)
        assert ticket
        budget.settle(ticket, outcome, time.now)
        time.now += 1.01 * WINDOW_S
        assert budget.admit(KILLMAIL, 0, time.now)[0]
