"""What the budget costs and what it lets through: `python -m bench.budget`.

Prints the median times of granting and of settling a request (1 process, and 4 at once), and the requests a second against
the fake ESI at 60 ms, without an error and at 1 % errors, over two error windows each.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

from esid.esi.budget import Budget, Limits
from esid.esi.headers import ERROR_LIMIT
from esid.esi.routes import Route
from tests.fake_esi import FakeEsi, World
from tests.tools import hammer

GRANTS, WINDOW_S, PROCESSES, THREADS = 5_000, 60.0, 4, 16
ROUTE = Route("/corporations/{id}")


#: Seconds that a request spends in the budget: until it may leave, and for its settlement.
Spent = tuple[float, float]


def granting(path: str, results: multiprocessing.Queue[list[Spent]]) -> None:
    """Many requests, one after the other."""
    budget, seconds = Budget(Path(path), Limits(max_rps=0, max_in_flight=500)), []
    headers = {"X-Esi-Error-Limit-Remain": "100", "X-Esi-Error-Limit-Reset": "30"}
    for number in range(GRANTS):
        begun = time.perf_counter()
        with budget.request(ROUTE, f"GET /corporations/{os.getpid()}-{number}") as outcome:
            outcome.status, outcome.headers = 200, headers
            granted = time.perf_counter()
        seconds.append((granted - begun, time.perf_counter() - granted))
    results.put(seconds)


def measure_granting(processes: int) -> str:
    """The medians over so many processes at once."""
    results: multiprocessing.Queue[list[Spent]] = multiprocessing.Queue()
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "budget")
        started = [multiprocessing.Process(target=granting, args=(path, results)) for _ in range(processes)]
        for process in started:
            process.start()
        seconds = [one for _ in started for one in results.get()]
        for process in started:
            process.join()
    grant_us, settle_us = (1e6 * statistics.median(part) for part in zip(*seconds, strict=True))
    return f"granting {grant_us:.0f} us, settling {settle_us:.0f} us in {processes} at once"


def measure_rate(error_share: float) -> float:
    """Requests a second of 4 processes with 16 threads each over two error windows."""
    world = World.generate(alliances=1, corporations=2000, characters=2)
    with tempfile.TemporaryDirectory() as directory, FakeEsi(world, error_window_s=int(WINDOW_S)) as esi:
        esi.latency_s = 0.06
        if error_share:
            esi.faults.add("/corporations", status=404, probability=error_share)
        path, firsts = Path(directory) / "budget", range(min(world.corporations), 10**9, 10**7)
        started = [
            hammer.start(esi.base_url, path, 2 * WINDOW_S, threads=THREADS, first=first) for first in firsts[:PROCESSES]
        ]
        for process in started:
            hammer.outcome(process, 2 * WINDOW_S + 60)
        banned, errors = esi.count(status=420), esi.count(status=404)
        rate = len(esi.log) / (2 * WINDOW_S)
    print(f"  {100 * error_share:g} % errors: {rate:.0f} requests/s, {errors} errors in two windows, {banned} x 420")
    return rate


def main() -> None:
    """Measure and print."""
    print(f"{measure_granting(1)}; {measure_granting(4)}")
    world_rate = measure_rate(0.0)
    permitted = (ERROR_LIMIT - Limits().error_reserve) / 0.01 / WINDOW_S
    rate = measure_rate(0.01)
    print(f"  of the error-free rate or of what {permitted:.0f}/s permits: {100 * rate / min(world_rate, permitted):.0f} %")


if __name__ == "__main__":
    main()
