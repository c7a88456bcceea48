"""How fast the daemon is, beside what its parts can do alone in the same run: `python -m bench.engine [WHAT ...]`.

    rates       corporations a second, at 60 ms and at 0 ms of latency
    characters  93,000 characters by the bulk routes
    enqueue     93,000 ids from a file
    again       a second full sync inside the cache time, and one after it, beside requests alone that are answered 304
    pace        everything at ESI_MAX_RPS = 50 and 100
    footprint   first row, memory, connections, idle processor
    growth      the rate with 10 times the ledger

Servers and stand-in are started on free ports, all on this machine. `--rounds` repeats `rates`, the median is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import limits
from bench.limits import Rate
from bench.processes import cpu_s, pss, tree
from bench.servers import IN_FLIGHT, PROCESSES, Servers, drain, standin, told
from bench.standin import CHARACTER, CORPORATION
from esid import clock
from esid.entities import ENTITIES
from esid.store.connection import Store
from tests.daemon import Daemon

#: Threads of a process: for all requests that may be on their way, and, without latency, for as many as keep it busy.
LATENCIES = ((0.06, IN_FLIGHT // PROCESSES), (0.0, 8))
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
STACKS = ("postgresql", "sqlite")


def corporations(servers: Servers, url: str, base_url: str, count: int, threads: int, **settings: str) -> tuple[Rate, float]:
    """The rate of the daemon from its first request to the last commit, and milliseconds of its own processes."""
    daemon = servers.daemon(url, base_url, ESID_THREADS=str(threads), ESID_SCHEDULE_CORPORATIONS="off", **settings)
    daemon.ok("enqueue", "corporation", "-", stdin="\n".join(str(CORPORATION + one) for one in range(count)), timeout_s=600)
    served = cpu_s(servers.all_pids())
    before = told(base_url)["requests"]
    daemon.start("--actors", "corporation")
    try:
        pid = daemon.process.pid  # type: ignore[union-attr]
        while told(base_url)["requests"] == before:
            time.sleep(0.005)
        started, used = time.monotonic(), cpu_s(tree(pid))
        ended = drain(url, ["corporation"])
        own_ms = 1000 * (cpu_s(tree(pid)) - used) / count
        served_ms = 1000 * (cpu_s(servers.all_pids()) - served) / count
        assert told(base_url)["requests"] - before == count, (before, count, told(base_url))
        return Rate(count / (ended - started), own_ms + served_ms), own_ms
    finally:
        daemon.stop()


def rates(servers: Servers, rounds: int) -> None:
    """Corporations a second, beside the three limits."""
    found: dict[float, list[dict[str, float]]] = {latency: [] for latency, _ in LATENCIES}
    threads = LATENCIES[-1][1]
    # Once: it is tens of times as fast as all the rest.
    queue = limits.queue(servers.database(), servers.rabbitmq_url, PROCESSES, threads, SECONDS, servers.pids)
    for _ in range(rounds):
        url = servers.database()
        limits.known(url, "corporation", CORPORATION, 400_000)
        write = limits.write(url, PROCESSES, SECONDS, servers.pids)
        for latency, threads in LATENCIES:
            with standin(latency=latency) as base_url:
                alone = [limits.http(base_url, PROCESSES, threads, SECONDS), queue, write]
                smallest = min(one.per_s for one in alone)
                whole, own_ms = corporations(servers, servers.database(), base_url, int(smallest * SECONDS), threads)
            share, cost = whole.per_s / smallest, whole.cpu_ms / sum(one.cpu_ms for one in alone)
            print(
                f"{servers.stack} {1000 * latency:.0f} ms: requests {alone[0]}, queue {queue}, writes {write}; "
                f"daemon {whole} ({own_ms:.2f} its own): {share:.0%} of the smallest, {cost:.2f} times the processor",
                flush=True,
            )
            found[latency].append({"share": share, "cost": cost, "rate": whole.per_s, "own_ms": own_ms})
    for latency, rows in found.items():
        words = [
            f"{name} {statistics.median(one[name] for one in rows):.2f} "
            f"({min(one[name] for one in rows):.2f} to {max(one[name] for one in rows):.2f})"
            for name in rows[0]
        ]
        print(f"{servers.stack} {1000 * latency:.0f} ms, median of {rounds}: {', '.join(words)}", flush=True)


def characters(servers: Servers) -> None:
    """Characters that are known with their details are fresh again by the bulk routes."""
    url, count = servers.database(), 93_000
    limits.known(url, "character", CHARACTER, count)
    store, past, later = Store(url), clock.now().replace(year=2020), clock.now().replace(year=2030)
    store.run(
        lambda: store.rows(
            "UPDATE sync_jobs SET status = 'completed', due_at = NULL, checked_at = %s, expires_at = %s",
            (past.isoformat(" "), later.isoformat(" ")),
        )
    )
    store.close()
    with standin(latency=0.06) as base_url:
        daemon = servers.daemon(url, base_url, ESI_MAX_RPS="50", ESID_SCHEDULE_CHARACTERS="off")
        daemon.start("--actors", "character")
        daemon.ok("sync", "characters")
        ended = drain(url, ["character"])
        answer = told(base_url)
        print(
            f"{servers.stack}: {count:,} characters fresh after {ended - answer['first_at']:.1f} s and "
            f"{answer['requests']} requests {answer['asked']}"
        )
        daemon.stop()


def enqueue(servers: Servers) -> None:
    """Ids from a file, and memory."""
    daemon = servers.daemon(servers.database(), "http://127.0.0.1:9")
    path = daemon.directory / "ids"
    path.write_text("\n".join(str(CHARACTER + one) for one in range(93_000)))
    for entity in ("corporation", "character"):
        command = [sys.executable, "-m", "esid", "enqueue", entity, "-"]
        started = time.monotonic()
        with path.open("rb") as file:
            process = subprocess.Popen(command, stdin=file, stdout=subprocess.DEVNULL, env=daemon.environment)
        peaks = [0]
        while process.poll() is None:
            peaks.append(pss([process.pid]))
            time.sleep(0.05)
        assert process.returncode == 0
        took_s, early = time.monotonic() - started, peaks[len(peaks) // 3]
        memory = f"{early / 1e6:.0f} MB at a third, {max(peaks) / 1e6:.0f} at most"
        print(f"{servers.stack}: 93,000 {entity} ids in {took_s:.1f} s, {memory}")


def again(servers: Servers) -> None:
    """First full sync, second one inside the cache time, third one after it: every answer is 304 then."""
    for latency, threads in LATENCIES:
        _again(servers, latency, threads)


def _again(servers: Servers, latency: float, threads: int) -> None:
    url, where = servers.database(), f"{servers.stack} {1000 * latency:.0f} ms"
    with standin(latency=latency, fresh=3600) as base_url:
        off = {"ESID_SCHEDULE_ALLIANCES": "off", "ESID_SCHEDULE_CORPORATIONS": "off"}
        daemon = servers.daemon(url, base_url, ESID_THREADS=str(threads), **off)
        took = []
        for is_expired in (False, False, True):
            if is_expired:
                _expire(url)
            daemon.start("--actors", "alliance,corporation")
            before, started = told(base_url), time.monotonic()
            used = _used_s(servers, daemon)
            daemon.ok("sync", "alliances")
            daemon.ok("sync", "corporations")
            ended, after = drain(url, _all_open()), told(base_url)
            used = _used_s(servers, daemon) - used
            count = after["requests"] - before["requests"]
            took.append((count, ended - started))
            cost = f", {1000 * used / count:.2f} ms of processor for each" if count else ""
            print(f"{where}: {count:,} requests in {took[-1][1]:.1f} s{cost}, {after['asked']}", flush=True)
            daemon.stop()
        alone = limits.http(base_url, PROCESSES, threads, SECONDS, conditional=True)
        first, last = (count / took_s for count, took_s in (took[0], took[2]))
        words = f"first {first:.0f}/s, all 304 {last:.0f}/s ({last / first:.2f} times); requests alone, all 304, {alone}"
        print(f"{where}: {words}", flush=True)


def _used_s(servers: Servers, daemon: Daemon) -> float:
    """Seconds of processor of a running daemon and its servers."""
    return cpu_s(tree(daemon.process.pid)) + cpu_s(servers.all_pids())  # type: ignore[union-attr]


def _expire(url: str) -> None:
    store = Store(url)
    store.run(lambda: store.rows("UPDATE sync_jobs SET expires_at = '2020-01-01 00:00:00.000000+00:00'"))
    store.close()


def _all_open() -> list[str]:
    return [entity.name for entity in ENTITIES if entity.queue in {"alliance", "corporation"}]


def pace(servers: Servers) -> None:
    """Everything that is mirrored of alliances and corporations, at a pace."""
    for rps in (50, 100):
        url = servers.database()
        with standin(latency=0.06) as base_url:
            daemon = servers.daemon(url, base_url, ESI_MAX_RPS=str(rps))
            daemon.start("--actors", "alliance,corporation")
            while told(base_url)["requests"] < 100:
                time.sleep(0.1)
            drain(url, _all_open(), 1200)
            answer = told(base_url)
            took_s = answer["last_at"] - answer["first_at"]
            print(
                f"{servers.stack}: {answer['requests']:,} requests at {rps}/s in {took_s:.1f} s, "
                f"{took_s / (answer['requests'] / rps) - 1:+.1%}",
                flush=True,
            )
            daemon.stop()


def footprint(servers: Servers) -> None:
    """Of a daemon with its default settings (two processes on PostgreSQL + RabbitMQ)."""
    settings = {
        "ESID_PROCESSES": "1" if servers.stack == "sqlite" else "2", "ESI_MAX_RPS": "50", "ESI_MAX_IN_FLIGHT": "64",
        "ESID_HTTP_LISTEN": "127.0.0.1:0",
    }  # fmt: skip
    _under_load(servers, settings)
    _idle(servers, settings)


def _under_load(servers: Servers, settings: dict[str, str]) -> None:
    url = servers.database()
    with standin(latency=0.06) as base_url:
        daemon = servers.daemon(url, base_url, **settings)
        store, started = Store(url), time.monotonic()
        daemon.spawn()
        with store.connection():
            while not store.rows("SELECT 1 FROM alliances LIMIT 1"):
                time.sleep(0.01)
        print(f"{servers.stack}: first row {time.monotonic() - started:.2f} s after esid run")
        time.sleep(SECONDS)
        sizes = [pss([one]) / 1e6 for one in tree(daemon.process.pid)]  # type: ignore[union-attr]
        print(f"{servers.stack}: {sum(sizes):.0f} MB under load ({', '.join(f'{one:.0f}' for one in sizes)})")
        if not store.is_sqlite:
            with store.connection():
                sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
                print(f"{servers.stack}: {store.rows(sql)[0][0]} connections to PostgreSQL, one of them ours")
        daemon.stop()
        store.close()


def _idle(servers: Servers, settings: dict[str, str]) -> None:
    with standin(latency=0.06, alliances=5, corporations=20) as base_url:
        daemon = servers.daemon(servers.database(), base_url, **settings).start()
        time.sleep(SECONDS)  # the first sync ends
        pid = daemon.process.pid  # type: ignore[union-attr]
        used, before = cpu_s(tree(pid)), time.monotonic()
        time.sleep(2 * SECONDS)
        share = (cpu_s(tree(pid)) - used) / (time.monotonic() - before)
        print(f"{servers.stack}: idle {share:.2%} of a core")
        daemon.stop()


def growth(servers: Servers) -> None:
    """The same rate with a ledger of 100,000 and of 1,000,000 rows, and how long `esid status` takes then."""
    threads, count = LATENCIES[0][1], 30_000
    with standin(latency=0.06) as base_url:
        for known in (100_000, 1_000_000):
            url = servers.database()
            limits.known(url, "killmail", 1_000_000, known, asked=False)
            rate, own_ms = corporations(servers, url, base_url, count, threads)
            daemon = servers.daemon(url, base_url)
            started = time.monotonic()
            daemon.ok("status")
            status_s = time.monotonic() - started
            words = f"{rate} ({own_ms:.2f} its own) beside {known:,} rows; status in {status_s:.2f} s"
            print(f"{servers.stack}: {words}", flush=True)


WHAT: dict[str, Callable[[Servers], None]] = {
    "characters": characters, "enqueue": enqueue, "again": again, "pace": pace, "footprint": footprint, "growth": growth,
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=["rates", *WHAT])
    parser.add_argument("--stack", default=",".join(STACKS))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="esid-bench-"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    try:
        for stack in given.stack.split(","):
            with ExitStack() as exits:
                servers = Servers(stack, directory, exits)
                for name in given.what:
                    if name == "rates":
                        rates(servers, given.rounds)
                    else:
                        WHAT[name](servers)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
