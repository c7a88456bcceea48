"""What a bucket lets through in the long run: as many tokens as come back, whatever the answers cost."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import chain, count, cycle, repeat
from pathlib import Path

import pytest

from esid.clock import Stop
from esid.esi.budget import Budget, Limits, Outcome, Ticket, Wait
from esid.esi.budget.exchange import Sharing
from esid.esi.budget.shares import EXCHANGE_S
from esid.esi.routes import Route, token_cost

pytestmark = pytest.mark.heavy

KILLMAIL = Route("/killmails/{id}/{argument}", group="killmail")
TOKENS, WINDOW_S, RESERVE_PERCENT = 3600, 900.0, 2
#: Seconds until an answer is there, and those between two looks of a thread that waits (see `budget._LOOK_S`).
ANSWER_S, LOOK_S = 0.1, 0.5


@pytest.fixture(autouse=True)
def booted(times: list[float]) -> None:
    """The host was started a minute ago."""
    times[0] = 60.0


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    """One without a pace."""
    one = Budget(tmp_path / "budget", Limits(max_rps=0, bucket_reserve=RESERVE_PERCENT))
    yield one
    one.close()


class Hammer:
    """Threads that always want one more.

    Attributes:
        sent: when each request left, and what its answer cost.
    """

    def __init__(self, budget: Budget, times: list[float], route: Route, answers: Iterator[Outcome]) -> None:
        self._budget, self._times, self._route, self._answers = budget, times, route, answers
        self.sent: list[tuple[float, float]] = []

    def run(self, threads: int, seconds: float, exchange: Callable[[], object] = lambda: None) -> None:
        """For so long by the moved clock, with an exchange among hosts as often as there are some."""
        order, ends_at, exchange_at = count(), self._times[0] + seconds, 0.0
        wakes = [(self._times[0] + 0.01 * number, next(order), None) for number in range(threads)]
        while (wake := heapq.heappop(wakes))[0] < ends_at:
            self._times[0], _, held = wake
            if self._times[0] >= exchange_at:
                exchange_at = self._times[0] + EXCHANGE_S
                exchange()
            ticket, wait_s = self._go_on(held)
            heapq.heappush(wakes, (self._times[0] + wait_s, next(order), ticket))

    def cost(self, start: float, seconds: float) -> float:
        """Tokens of a time."""
        return sum(cost for at, cost in self.sent if start <= at < start + seconds)

    def longest_gap(self) -> float:
        """Seconds in which nothing left."""
        return max(after - before for (before, _), (after, _) in zip(self.sent, self.sent[1:], strict=False))

    def _go_on(self, held: tuple[Ticket, Outcome] | None) -> tuple[tuple[Ticket, Outcome] | None, float]:
        """One thread: settle what it holds, and ask for the next."""
        with self._budget.shared.locked():
            if held:
                self._budget.settle(*held, self._times[0])
            ticket = self._budget.admit(self._route, 0, self._times[0])
        if isinstance(ticket, Wait):
            return None, min(max(ticket.seconds, 0.001), LOOK_S)
        outcome = next(self._answers)
        self.sent.append((self._times[0], token_cost(outcome.status or 0)))
        return (ticket, outcome), ANSWER_S


def answer(status: int, **headers: str) -> Outcome:
    """One answer that says what it cost."""
    outcome = Outcome()
    outcome.status = status
    told = {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Used": f"{token_cost(status):.0f}"}
    outcome.headers = told | {name.replace("_", "-"): value for name, value in headers.items()}
    return outcome


@pytest.mark.parametrize("threads", [1, 6])
@pytest.mark.parametrize("status", [200, 304, 404])
def test_all_tokens_are_used_and_never_one_more(budget: Budget, times: list[float], status: int, threads: int) -> None:
    # When a bucket is asked for two windows
    hammer = Hammer(budget, times, KILLMAIL, repeat(answer(status)))
    hammer.run(threads, 2 * WINDOW_S)
    # Then no window has cost more than the bucket less its reserve, and nearly all of it was used: twice as many answers of
    # 304 as of 200
    usable = TOKENS * (100 - RESERVE_PERCENT) / 100
    starts = [at for at, _ in hammer.sent[:: max(1, len(hammer.sent) // 100)]]
    assert max(hammer.cost(start, WINDOW_S) for start in starts) <= usable
    assert hammer.cost(0, times[0]) >= 0.95 * 2 * usable


def test_a_bucket_that_answers_tell_of_is_used_from_its_first_answers_on(tmp_path: Path, times: list[float]) -> None:
    # Given a host that might share its budget, alone, and a route whose first answers tell of a bucket and are errors
    budget = Budget(tmp_path / "budget", Limits(max_rps=0, bucket_reserve=RESERVE_PERCENT), is_divided=True)
    rows: dict[str, str] = {}

    def exchange(meet: Callable[[float, dict[str, str]], tuple[str, str]]) -> None:
        name, rows[name] = meet(times[0], dict(rows))

    sharing = Sharing(budget, exchange, "host", Stop())  # type: ignore[arg-type]
    for _ in range(3):
        sharing.once()
    told = {"X_Ratelimit_Group": "corporation", "X_Ratelimit_Limit": "900/15m"}
    answers = chain(repeat(answer(404, **told), 2), repeat(answer(200, **told)))
    hammer = Hammer(budget, times, Route("/corporations/{id}"), answers)
    # When it is asked for two windows
    hammer.run(4, 2 * WINDOW_S, sharing.once)
    # Then it stands still for no longer than after any burst
    assert hammer.longest_gap() < 0.3 * WINDOW_S
    assert hammer.cost(0, times[0]) >= 0.95 * 2 * 900 * (100 - RESERVE_PERCENT) / 100
    budget.close()


@pytest.mark.parametrize("status", [200, 404])
def test_answers_that_say_they_cost_nothing_are_not_believed(budget: Budget, times: list[float], status: int) -> None:
    # Given an ESI that tells truly what is left of 900 tokens, and falsely that it took none
    left: list[float] = []

    def answers() -> Iterator[Outcome]:
        while True:
            left[:] = [at for at in left if at > times[0] - WINDOW_S] + [times[0]]
            remaining = max(0.0, 900 - token_cost(status) * len(left))
            told = {"X_Ratelimit_Limit": "900/15m", "X_Ratelimit_Remaining": f"{remaining:.0f}"}
            yield answer(status, **told, X_Ratelimit_Used="0")

    hammer = Hammer(budget, times, KILLMAIL, answers())
    hammer.run(24, 1.5 * WINDOW_S)
    assert max(hammer.cost(at, WINDOW_S) for at, _ in hammer.sent) <= 900 * (100 - RESERVE_PERCENT) / 100


def test_a_cost_that_cannot_be_holds_for_no_longer_than_a_window(budget: Budget, times: list[float]) -> None:
    with budget.shared.locked():
        ticket = budget.admit(KILLMAIL, 0, times[0])
        assert isinstance(ticket, Ticket)
        budget.settle(ticket, answer(200, X_Ratelimit_Used="1000000"), times[0])
        times[0] += 1.01 * WINDOW_S
        assert isinstance(budget.admit(KILLMAIL, 0, times[0]), Ticket)


@pytest.mark.parametrize("threads", [1, 6])
@pytest.mark.parametrize(
    ("limits", "tokens_per_s"),
    [(("3600/15m", "1800/15m"), 2.0), (("900/15m", "300/5m"), 1.0), (("1800/15m", "900/5m", "600/15m"), 600 / 900)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_limits_that_are_told_in_turns_slow_nothing_below_the_smaller_one(
    budget: Budget, times: list[float], threads: int, limits: tuple[str, ...], tokens_per_s: float
) -> None:
    # Given two nodes of ESI that tell of different limits of one group
    answers = (answer(200, X_Ratelimit_Limit=limit) for limit in cycle(limits))
    hammer = Hammer(budget, times, KILLMAIL, answers)
    # When it is asked for four windows
    hammer.run(threads, 4 * WINDOW_S)
    # Then it goes on as if the smaller one were told alone, from the first window to the last
    for window in range(4):
        assert hammer.cost(60.0 + window * WINDOW_S, WINDOW_S) >= 0.93 * tokens_per_s * WINDOW_S, window


def test_a_limit_that_is_told_anew_gives_back_no_token_too_soon(budget: Budget, times: list[float]) -> None:
    # Given a group whose limit is told with one window, and after a while with a longer one
    answers = chain(repeat(answer(200, X_Ratelimit_Limit="300/5m"), 140), repeat(answer(200, X_Ratelimit_Limit="300/15m")))
    hammer = Hammer(budget, times, KILLMAIL, answers)
    hammer.run(2, 3 * WINDOW_S)
    # Then no window of the longer one that was known to begin with has cost more than the limit
    changed_at = hammer.sent[140][0]
    starts = [at for at, _ in hammer.sent[141::5]]
    assert max(hammer.cost(start, WINDOW_S) for start in starts) <= 300
    assert hammer.cost(changed_at, WINDOW_S) <= 300
