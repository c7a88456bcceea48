"""A process that asks as much as the budget lets it, as a worker with many threads would; prints what came of it.

Run by tests as `python -m tests.tools.hammer`: several of them with one budget file are the workers of one daemon.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path

from esid import clock
from esid.clock import Stop
from esid.errors import EsidError, EsiError, Held, Stopping
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.routes import Route
from tests.tools.daemon import ROOT

ROUTES = {
    "corporation": Route("/corporations/{id}"),
    "killmail": Route("/killmails/{id}/{argument}", group="killmail"),
}
HASH = "a" * 40


def start(base_url: str, path: Path, seconds: float, **options: object) -> subprocess.Popen[str]:
    """One more process; `options` are those of the command line."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.tools.hammer", base_url, str(path), str(seconds), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str], timeout_s: float = 120.0) -> Counter[str]:
    """How often what came of a request, by name."""
    text, _ = process.communicate(timeout=timeout_s)
    return Counter(json.loads(text))


def main() -> None:
    """Hammer until the time is over."""
    options = _parse()
    stop = Stop()
    limits = Limits(options.rps, options.in_flight, options.error_reserve, options.bucket_reserve)
    budget = Budget(Path(options.path), limits, stop)
    client = Client(options.base_url, budget)
    found: Counter[str] = Counter()
    ids = count(options.first)
    most = options.most or sys.maxsize

    def work() -> None:
        while not stop.is_set() and sum(found.values()) < most:
            found.update([_ask(client, ROUTES[options.route], next(ids), stop)])

    threads = [threading.Thread(target=work) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    ends_at = clock.monotonic() + options.seconds
    while clock.monotonic() < ends_at and any(thread.is_alive() for thread in threads):
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


def _ask(client: Client, route: Route, key: int, stop: Stop) -> str:
    try:
        client.get(route, id=key, argument=HASH)
    except Held as held:
        stop.wait(min(held.wait_s, 1.0))
        return "held"
    except Stopping:
        return "stopped"
    except EsiError as error:
        return error.reason
    except EsidError as error:
        return type(error).__name__
    return "ok"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_url")
    parser.add_argument("path")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--route", choices=ROUTES, default="corporation")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--first", type=int, default=98_000_001, help="the first id that is asked")
    parser.add_argument("--most", type=int, default=0, help="end after so many")
    parser.add_argument("--rps", type=float, default=0.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--error-reserve", type=int, default=10)
    parser.add_argument("--bucket-reserve", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
