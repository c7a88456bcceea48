"""Rates from samples that several hosts have taken."""

from __future__ import annotations

import datetime as dt
from typing import Any

from esid import clock
from esid.status import history


def sample(host: str, done: int, requests: int) -> dict[str, Any]:
    """The counts of one moment; what was done is told by all daemons, requests are those of the host."""
    return {"host": host, "done": done, "failed": 0, "requests": requests, "errors": 0, "not_modified": 0}


def test_requests_are_compared_with_those_of_the_same_host_alone() -> None:
    # Given samples of two hosts, of which one has sent a thousand times as much as the other
    time = clock.now()
    minutes_ago = {90: ("a", 0, 1_000), 20: ("b", 600, 5), 2: ("a", 1_200, 1_600)}
    taken = [(time - dt.timedelta(minutes=ago), sample(*counts)) for ago, counts in minutes_ago.items()]

    last_1, last_15, last_60 = history.throughput(taken, sample("a", 1_320, 1_660))
    points = history.series(taken)

    # Then what each did by itself is told where one can tell
    assert [row["ids_per_s"] for row in (last_1, last_15, last_60)] == [1.0, 0.6, 0.244]
    assert [row["requests_per_s"] for row in (last_1, last_15, last_60)] == [0.5, None, 0.122]
    assert len(points["done a second"]) == 2
    assert "requests a second" not in points
