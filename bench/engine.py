"""How fast the daemon is, beside what its parts can do alone in the same run: `python -m bench.engine [WHAT ...]`.

    rates       corporations a second, at 60 ms and at 0 ms of latency
    characters  93,000 characters by the bulk routes
    enqueue     93,000 ids from a file
    again       a second full sync inside the cache time, and one after it, beside requests alone that are answered 304
    tokens      a sync and one of the same that is answered 304, where ESI counts tokens
    pace        everything at ESI_MAX_RPS = 50 and 100
    footprint   first row, memory, connections, idle processor
    growth      the rate with 10 times the ledger

Servers and stand-in are started on free ports, all on this machine. Everything is measured `--rounds` times; the median
and the spread of each figure are printed at the end.
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
from functools import cache
from pathlib import Path

from bench import limits
from bench.limits import Rate
from bench.processes import cpu_s, pss, tree
from bench.servers import IN_FLIGHT, PROCESSES, Servers, drain, standin, told
from bench.standin import CHARACTER, CORPORATION
from esid import clock
from esid.entities import ENTITIES
from esid.store.connection import Store
from tests.tools.daemon import HOOKS, ROOT, Daemon

#: Threads of a process: for all requests that may be on their way, and, without latency, for as many as keep it busy.
LATENCIES = ((0.06, IN_FLIGHT // PROCESSES), (0.0, 8))
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
STACKS = ("postgresql", "sqlite")
#: What one round has measured: name -> value.
Figures = dict[str, float]


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


def rates(servers: Servers) -> Figures:
    """Corporations a second, beside the three limits."""
    found: Figures = {}
    queue, url = _queue_limit(servers), servers.database()
    limits.known(url, "corporation", CORPORATION, 400_000)
    write = limits.write(url, PROCESSES, SECONDS, servers.pids)
    found |= {"queue alone/s": queue.per_s, "writes alone/s": write.per_s}
    found |= {"queue alone, ms": queue.cpu_ms, "writes alone, ms": write.cpu_ms}
    for latency, threads in LATENCIES:
        with standin(latency=latency) as base_url:
            alone = [limits.http(base_url, PROCESSES, threads, SECONDS), queue, write]
            smallest = min(one.per_s for one in alone)
            whole, own_ms = corporations(servers, servers.database(), base_url, int(smallest * SECONDS), threads)
        figures = {
            "requests alone/s": alone[0].per_s, "requests alone, ms": alone[0].cpu_ms, "daemon/s": whole.per_s,
            "daemon, ms": whole.cpu_ms, "its own, ms": own_ms, "of the smallest, %": 100 * whole.per_s / smallest,
            "times the sum of the costs": whole.cpu_ms / sum(one.cpu_ms for one in alone),
        }  # fmt: skip
        found |= {f"{1000 * latency:.0f} ms: {name}": value for name, value in figures.items()}
    return found


@cache
def _queue_limit(servers: Servers) -> Rate:
    """Measured once: it is tens of times as fast as all the rest."""
    return limits.queue(servers.database(), servers.rabbitmq_url, PROCESSES, LATENCIES[-1][1], SECONDS, servers.pids)


def characters(servers: Servers) -> Figures:
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
        daemon.stop()
    return {"93,000 characters fresh, s": ended - answer["first_at"], "their requests": answer["requests"]}


def enqueue(servers: Servers) -> Figures:
    """Ids from a file, and memory."""
    found: Figures = {}
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
        found[f"93,000 ids, {entity}, s"] = time.monotonic() - started
        found[f"memory at a third, {entity}, MB"] = peaks[len(peaks) // 3] / 1e6
        found[f"memory at most, {entity}, MB"] = max(peaks) / 1e6
    return found


def again(servers: Servers) -> Figures:
    """First full sync, second one inside the cache time, third one after it: every answer is 304 then."""
    return {
        f"{1000 * latency:.0f} ms: {name}": value
        for latency, threads in LATENCIES
        for name, value in _again(servers, latency, threads).items()
    }


def _again(servers: Servers, latency: float, threads: int) -> Figures:
    url, found = servers.database(), Figures()
    # So many that the fastest of them takes half a minute.
    with standin(latency=latency, fresh=3600, corporations=70_000) as base_url:
        off = {"ESID_SCHEDULE_ALLIANCES": "off", "ESID_SCHEDULE_CORPORATIONS": "off"}
        daemon = servers.daemon(url, base_url, ESID_THREADS=str(threads), **off)
        for name in ("first", "inside the cache time", "all 304"):
            if name == "all 304":
                _expire(url)
            daemon.start("--actors", "alliance,corporation")
            before, started = told(base_url), time.monotonic()
            used = _used_s(servers, daemon)
            daemon.ok("sync", "alliances")
            daemon.ok("sync", "corporations")
            took_s, after = drain(url, _all_open()) - started, told(base_url)
            used = _used_s(servers, daemon) - used
            count = after["requests"] - before["requests"]
            found |= {f"{name}: requests": count, f"{name}, s": took_s}
            if count:
                found |= {f"{name}/s": count / took_s, f"{name}, ms": 1000 * used / count}
            daemon.stop()
        alone = limits.http(base_url, PROCESSES, threads, SECONDS, conditional=True)
    found |= {"requests alone, all 304/s": alone.per_s, "requests alone, all 304, ms": alone.cpu_ms}
    return found | {"all 304, times the first": found["all 304/s"] / found["first/s"]}


def tokens(servers: Servers) -> Figures:
    """Corporations whose answers are paid from a bucket of 200 tokens a second, which is full at the start of each sync."""
    url, count, window_s = servers.database(), 10_000, 30
    with standin(latency=0.06, fresh=3600, tokens=200 * window_s, window=window_s) as base_url:
        daemon = servers.daemon(url, base_url, ESID_SCHEDULE_CORPORATIONS="off").start("--actors", "corporation")

        def took_s(*words: str, stdin: str = "") -> float:
            before, started = told(base_url)["requests"], time.monotonic()
            daemon.ok(*words, stdin=stdin)
            ended = drain(url, ["corporation"])
            # A sync asks for the list as well.
            assert told(base_url)["requests"] - before in {count, count + 1}
            return ended - started

        first_s = took_s("enqueue", "corporation", "-", stdin="\n".join(str(CORPORATION + one) for one in range(count)))
        _expire(url)
        time.sleep(window_s)
        again_s, refused = took_s("sync", "corporations"), told(base_url)["asked"].get("429", 0)
        daemon.stop()
    rates = {"first/s": count / first_s, "all 304/s": count / again_s, "all 304, times the first": first_s / again_s}
    return {"first, s": first_s, "all 304, s": again_s, "refused": refused, **rates}


def _used_s(servers: Servers, daemon: Daemon) -> float:
    """Seconds of processor of a running daemon and its servers."""
    return cpu_s(tree(daemon.process.pid)) + cpu_s(servers.all_pids())  # type: ignore[union-attr]


def _expire(url: str) -> None:
    store = Store(url)
    store.run(lambda: store.rows("UPDATE sync_jobs SET expires_at = '2020-01-01 00:00:00.000000+00:00'"))
    store.close()


def _all_open() -> list[str]:
    return [entity.name for entity in ENTITIES if entity.lane in {"alliance", "corporation"}]


def pace(servers: Servers) -> Figures:
    """Everything that is mirrored of alliances and corporations, at a pace."""
    found: Figures = {}
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
            found |= {f"{rps}/s: requests": answer["requests"], f"{rps}/s, s": took_s}
            found[f"{rps}/s: longer than that, %"] = 100 * (took_s / (answer["requests"] / rps) - 1)
            daemon.stop()
    return found


def footprint(servers: Servers) -> Figures:
    """Of a daemon with its default settings (two processes on PostgreSQL + RabbitMQ)."""
    settings = {
        "ESID_PROCESSES": "1" if servers.stack == "sqlite" else "2", "ESI_MAX_RPS": "50", "ESI_MAX_IN_FLIGHT": "64",
        "ESID_HTTP_LISTEN": "127.0.0.1:0",
    }  # fmt: skip
    many = {"ESID_TEST_LANES": ",".join(f"lane{n}" for n in range(8)), "ESID_TEST_ENTITIES": "40"}
    crowded = _idle(servers, {**settings, **many, "PYTHONPATH": f"{HOOKS}:{ROOT}"})
    found = _under_load(servers, settings) | _idle(servers, settings)
    return found | {f"12 lanes, 40 entities: {name}": value for name, value in crowded.items()}


def _under_load(servers: Servers, settings: dict[str, str]) -> Figures:
    url, found = servers.database(), Figures()
    with standin(latency=0.06) as base_url:
        daemon = servers.daemon(url, base_url, **settings)
        store, started = Store(url), time.monotonic()
        daemon.spawn()
        with store.connection():
            while not store.rows("SELECT 1 FROM alliances LIMIT 1"):
                time.sleep(0.01)
        found["first row, s"] = time.monotonic() - started
        time.sleep(SECONDS)
        found["memory under load, MB"] = sum(pss([one]) for one in tree(daemon.process.pid)) / 1e6  # type: ignore[union-attr]
        if not store.is_sqlite:
            found["connections, one of them ours"] = _connections(store)
        daemon.stop()
        store.close()
    return found


def _idle(servers: Servers, settings: dict[str, str]) -> Figures:
    url = servers.database()
    with standin(latency=0.06, alliances=5, corporations=20) as base_url:
        daemon = servers.daemon(url, base_url, **settings).start()
        time.sleep(SECONDS)  # the first sync ends
        pid = daemon.process.pid  # type: ignore[union-attr]
        used, before = cpu_s(tree(pid)), time.monotonic()
        time.sleep(2 * SECONDS)
        share = (cpu_s(tree(pid)) - used) / (time.monotonic() - before)
        found = Figures({"idle, % of a core": 100 * share})
        store = Store(url)
        if not store.is_sqlite:
            found["connections to PostgreSQL, one of them ours"] = _connections(store)
        daemon.stop()
        store.close()
    return found


def _connections(store: Store) -> float:
    with store.connection():
        sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
        return float(store.rows(sql)[0][0])


def growth(servers: Servers) -> Figures:
    """The same rate with a ledger of 100,000 and of 1,000,000 rows, and how long `esid status` takes then."""
    threads, found = LATENCIES[0][1], Figures()
    with standin(latency=0.06) as base_url:
        for known in (100_000, 1_000_000):
            url = servers.database()
            limits.known(url, "killmail", 1_000_000, known, asked=False)
            rate, own_ms = corporations(servers, url, base_url, 45_000, threads)
            daemon = servers.daemon(url, base_url)
            started = time.monotonic()
            daemon.ok("status")
            figures = {
                "/s": rate.per_s,
                ", ms": rate.cpu_ms,
                ", its own, ms": own_ms,
                ", status, s": time.monotonic() - started,
            }
            found |= {f"beside {known:,} jobs{name}": value for name, value in figures.items()}
    return found


WHAT: dict[str, Callable[[Servers], Figures]] = {
    "rates": rates, "characters": characters, "enqueue": enqueue, "again": again, "tokens": tokens, "pace": pace,
    "footprint": footprint, "growth": growth,
}  # fmt: skip


def told_all(stack: str, what: str, rounds: list[Figures]) -> None:
    """The median of each figure, from the lowest to the highest."""
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        spread = f" ({min(values):,.2f} to {max(values):,.2f})" if len(values) > 1 else ""
        print(f"{stack} {what}: {name}: {statistics.median(values):,.2f}{spread}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=list(WHAT), metavar="WHAT")
    parser.add_argument("--stack", default=",".join(STACKS))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="esid-bench-"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    try:
        for stack in given.stack.split(","):
            with ExitStack() as exits:
                servers = Servers(stack, directory, exits)
                for what in given.what:
                    found = []
                    for number in range(given.rounds):
                        found.append(WHAT[what](servers))
                        print(f"{stack} {what}, round {number + 1}: {found[-1]}", flush=True)
                    told_all(stack, what, found)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
