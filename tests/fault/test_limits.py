"""No 420 and no 429 that we provoke ourselves, at any rate of errors: against an ESI that counts strictly.

Windows are scaled down so that a few of them pass in a test; `make limits` runs the real ones, in about an hour.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from esid.esi.budget.breaker import FAILURES
from tests.fake_esi import FakeEsi, World
from tests.tools import hammer
from tests.tools.waiting import wait_until

#: Seconds of an error window, and for how many windows each test goes on: 60 and 5 are the real ones.
WINDOW_S = float(os.environ.get("ESID_TEST_WINDOW_S", "4"))
WINDOWS = int(os.environ.get("ESID_TEST_WINDOWS", "2"))
#: Percents of errors: all that are promised, or those that have found something before.
RATES = (
    {"404s": (100, 20, 1), "gateway errors": (100, 5)}
    if WINDOW_S < 60
    else dict.fromkeys(("404s", "gateway errors"), (100, 50, 20, 5, 1))
)
#: Of the scaled ones those that keep a processor busy.
BUSY = {("404s", 1), ("gateway errors", 5)} if WINDOW_S < 60 else set()
STATUSES = {"404s": (404,), "gateway errors": (502, 503, 504)}
#: A small bucket and the seconds of its floating window.
TOKENS, BUCKET_S = (int(part) for part in os.environ.get("ESID_TEST_BUCKET", "120/30").split("/"))
PROCESSES, THREADS = 4, 16
FIRST = 98_000_001


@pytest.fixture
def esi() -> Iterator[FakeEsi]:
    """An ESI with many corporations and a short error window."""
    world = World.generate(alliances=1, corporations=2, characters=2)
    body = next(iter(world.corporations.values()))
    world.corporations = _Everything(body)
    world.killmails = _Everything(_KILLMAIL)  # type: ignore[assignment]
    with FakeEsi(world, error_window_s=int(WINDOW_S), buckets={"killmail": (TOKENS, BUCKET_S)}) as server:
        yield server


_KILLMAIL: dict[str, object] = {"killmail_id": 1, "killmail_time": "2021-11-29T00:00:00Z", "attackers": []}


class _Everything(dict[int, dict[str, object]]):
    """A world in which every id exists."""

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__()
        self._body = body

    def get(self, key: int, default: object = None) -> dict[str, object]:  # type: ignore[override]
        return self._body

    def __getitem__(self, key: int) -> dict[str, object]:
        return self._body

    def __contains__(self, key: object) -> bool:
        return True


def storm(esi: FakeEsi, path: Path, seconds: float, **options: object) -> Counter[str]:
    """What comes of the requests of 4 processes with 16 threads each."""
    started = [
        hammer.start(esi.base_url, path, seconds, threads=THREADS, first=FIRST + number * 10_000_000, **options)
        for number in range(PROCESSES)
    ]
    return sum((hammer.outcome(process, seconds + 60) for process in started), Counter())


def most_errors_of_a_window(esi: FakeEsi) -> int:
    """The errors of the worst window."""
    windows = Counter(int(one.at) // int(WINDOW_S) for one in esi.log if one.status >= 400)
    return max(windows.values(), default=0)


@pytest.mark.parametrize(
    ("kind", "percent"),
    [
        pytest.param(kind, percent, marks=[pytest.mark.long] if (kind, percent) in BUSY else [])
        for kind, rates in RATES.items()
        for percent in rates
    ],
)
def test_no_420_and_the_reserve_untouched_at_any_rate_of_errors(
    esi: FakeEsi, tmp_path: Path, kind: str, percent: int
) -> None:
    statuses = STATUSES[kind]
    for place, status in enumerate(statuses):
        # Each fault is drawn for itself: what is left after the ones before it.
        share = percent / 100 / len(statuses)
        esi.faults.add("/corporations", status=status, probability=share / (1 - share * place) if percent < 100 else None)
    came = storm(esi, tmp_path / "budget", WINDOWS * WINDOW_S)
    assert esi.count(status=420) == 0
    assert most_errors_of_a_window(esi) <= 90
    # Something was really asked: up to the limit, or until the breaker had enough, whose last is the outage's.
    assert came["not_found"] + came["unavailable"] + came["ok"] >= FAILURES - 1


def test_errors_of_somebody_else_cost_at_most_the_requests_in_flight(esi: FakeEsi, tmp_path: Path) -> None:
    # Given another client that spends all of the window's errors at once, while ours has 64 requests in flight
    esi.latency_s = 0.05
    process = hammer.start(esi.base_url, tmp_path / "budget", 2.5 * WINDOW_S, threads=16)
    wait_until(lambda: esi.count() > 50, 20, "some requests")
    for _ in range(100):
        esi.limits.errors.add_error(esi.clock.now())
    hammer.outcome(process, 3 * WINDOW_S * WINDOWS + 60)
    # Then those on their way meet a 420, and afterwards nothing leaves until the window ends
    banned = esi.answers(420)
    assert len(banned) <= 16
    if banned:
        first = min(one.at for one in banned)
        ends = (int(first) // int(WINDOW_S) + 1) * int(WINDOW_S)
        late = [one for one in esi.log if first + 0.3 < one.at < ends]
        assert late == []


def test_errors_that_somebody_else_makes_all_the_time_are_heeded(esi: FakeEsi, tmp_path: Path) -> None:
    # Given another client that makes 60 errors in each window, evenly, while ours meets nothing but 404s
    esi.latency_s = 0.02
    esi.faults.add("/corporations", status=404)
    process = hammer.start(esi.base_url, tmp_path / "budget", WINDOWS * WINDOW_S, threads=16)
    while process.poll() is None:
        esi.limits.errors.add_error(esi.clock.now())
        with suppress(subprocess.TimeoutExpired):
            process.wait(WINDOW_S / 60)
    hammer.outcome(process, 3 * WINDOW_S * WINDOWS + 60)
    assert esi.count(status=404) > 20
    assert esi.count(status=420) <= 16


def test_a_bucket_is_used_up_and_never_over_and_slows_nobody_else_down(esi: FakeEsi, tmp_path: Path) -> None:
    # Given a bucket with work always waiting, from two processes
    started = [
        hammer.start(esi.base_url, tmp_path / "budget", 3 * BUCKET_S + 10, route="killmail", threads=2, first=number * 1000)
        for number in (1, 2)
    ]
    bucket = esi.limits.buckets["killmail"]
    wait_until(lambda: bucket.remaining(esi.clock.now()) < TOKENS * 0.7, BUCKET_S, "the burst to be over")
    # When a thousand corporations are asked meanwhile
    corporations = hammer.start(esi.base_url, tmp_path / "budget", 60, most=1000)
    came = hammer.outcome(corporations)
    waited = sum((hammer.outcome(process, 3 * BUCKET_S + 70) for process in started), Counter())
    # Then they are not held up by it, and of the tokens nearly all are used in three windows without one 429
    assert came["ok"] >= 1000
    assert came["held"] == 0
    assert esi.count(status=429) == 0
    first = min(one.at for one in esi.requests("/killmails"))
    answers = [one for one in esi.requests("/killmails") if one.at < first + 3 * BUCKET_S]
    costs = {422: 5, 200: 2, 304: 1}
    assert sum(costs[one.status] for one in answers) >= 0.95 * 3 * TOKENS
    assert waited["wrong_pair"] + waited["ok"] == len(esi.requests("/killmails"))
