"""How fast the daemon is, beside what its parts can do alone in the same run: `python -m bench.engine [WHAT ...]`.

    rates       corporations a second, at 60 ms and at 0 ms of latency
    characters  93,000 characters by the bulk routes
    enqueue     93,000 ids from a file
    again       a second full sync inside the cache time, and one after it
    pace        everything at ESI_MAX_RPS = 50 and 100
    footprint   memory, connections, idle processor, first row, disk
    growth      the rate with 10 times the ledger

Servers and stand-in are started on free ports, all on this machine. `--rounds` repeats `rates`, the median is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench import limits
from bench.limits import Rate
from bench.processes import cpu_s, pss, tree
from bench.standin import CHARACTER, CORPORATION
from esid import clock
from esid.store import ledger, migrate
from esid.store.connection import Store
from tests.daemon import Daemon
from tests.servers import PrivatePostgres, PrivateRabbitmq

#: Two processes; threads for as many requests as the error limit less its reserve lets through, and fewer without latency.
PROCESSES, IN_FLIGHT, FEW_THREADS = 2, 90, 8
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
STACKS = ("postgresql", "sqlite")


class Servers:
    """What one stack runs on."""

    def __init__(self, stack: str, directory: Path, exits: ExitStack) -> None:
        self.stack, self.directory, self._fresh = stack, directory, 0
        self.rabbitmq_url, self.pids = "", list[int]()
        if stack == "postgresql":
            self._postgres = exits.enter_context(PrivatePostgres())
            rabbitmq = exits.enter_context(PrivateRabbitmq())
            self.rabbitmq_url = rabbitmq.url
            postmaster = int((self._postgres.directory / "data" / "postmaster.pid").read_text().split()[0])
            store = Store(self._postgres.url("postgres"))
            with store.connection():
                store.database.connection().autocommit = True
                store.rows("ALTER SYSTEM SET fsync = on")
                store.rows("SELECT pg_reload_conf()")
            store.close()
            self.pids = [postmaster, *tree(rabbitmq._node.pid)]  # type: ignore[union-attr]

    def database(self) -> str:
        """The URL of a new database with the schema."""
        self._fresh += 1
        url = f"sqlite:///{self.directory}/{self._fresh}.db"
        if self.stack == "postgresql":
            url = self._postgres.url(self._postgres.create_database())
        store = Store(url)
        migrate.migrate(store)
        store.close()
        return url

    def daemon(self, url: str, base_url: str, **settings: str) -> Daemon:
        """A daemon that is not started."""
        data = self.directory / f"data{self._fresh}"
        return Daemon(
            {
                "DATABASE_URL": url, "RABBITMQ_URL": self.rabbitmq_url, "ESID_QUEUE_PREFIX": f"bench{self._fresh}",
                "ESID_DATA_DIR": str(data), "ESI_BASE_URL": base_url, "ESI_MAX_RPS": "0",
                "ESI_MAX_IN_FLIGHT": str(IN_FLIGHT), "ESID_PROCESSES": str(PROCESSES), **settings,
            }
        )  # fmt: skip

    def all_pids(self) -> list[int]:
        """The servers' processes now; those of PostgreSQL come and go."""
        return [pid for one in self.pids for pid in tree(one)]


@contextmanager
def standin(**arguments: float) -> Iterator[str]:
    """The stand-in's base URL."""
    words = [f"--{name}={value:g}" for name, value in arguments.items()]
    process = subprocess.Popen([sys.executable, "-m", "bench.standin", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def told(base_url: str) -> dict[str, Any]:
    """What the stand-in was asked."""
    with urlopen(f"{base_url}/_told", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def drain(url: str, entities: list[str], deadline_s: float = 900.0) -> float:
    """Wait until no job of these entities is open; the time of that."""
    store, ends_at = Store(url), time.monotonic() + deadline_s
    while ledger.is_open(store, entities):
        assert time.monotonic() < ends_at, ledger.counts(store)
        time.sleep(0.1)
    store.close()
    return time.monotonic()


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
    for latency, threads in ((0.06, IN_FLIGHT // PROCESSES), (0.0, FEW_THREADS)):
        found: list[dict[str, float]] = []
        for _ in range(rounds):
            with standin(latency=latency) as base_url:
                alone = [limits.http(base_url, PROCESSES, threads, SECONDS)]
                url = servers.database()
                alone.append(limits.queue(url, servers.rabbitmq_url, PROCESSES, threads, SECONDS, servers.pids))
                url = servers.database()
                limits.known(url, "corporation", CORPORATION, 400_000)
                alone.append(limits.write(url, PROCESSES, SECONDS, servers.pids))
                smallest = min(one.per_s for one in alone)
                whole, own_ms = corporations(servers, servers.database(), base_url, int(smallest * SECONDS), threads)
            share, cost = whole.per_s / smallest, whole.cpu_ms / sum(one.cpu_ms for one in alone)
            print(
                f"{servers.stack} {1000 * latency:.0f} ms: requests {alone[0]}, queue {alone[1]}, writes {alone[2]}; "
                f"daemon {whole} ({own_ms:.2f} its own): {share:.0%} of the smallest, {cost:.2f} times the processor",
                flush=True,
            )
            found.append({"share": share, "cost": cost, "rate": whole.per_s, "own_ms": own_ms})
        middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
        spread = {name: (min(one[name] for one in found), max(one[name] for one in found)) for name in found[0]}
        print(f"{servers.stack} {1000 * latency:.0f} ms median: {middle}, spread {spread}", flush=True)


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
        daemon.ok("sync", "character")
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
    url = servers.database()
    with standin(latency=0.06, fresh=3600) as base_url:
        daemon = servers.daemon(url, base_url, ESID_THREADS=str(IN_FLIGHT // PROCESSES), ESID_SCHEDULE_ALLIANCES="off",
                                ESID_SCHEDULE_CORPORATIONS="off")  # fmt: skip
        took = []
        for is_expired in (False, False, True):
            if is_expired:
                _expire(url)
            daemon.start("--actors", "alliance,corporation")
            before, started = told(base_url), time.monotonic()
            daemon.ok("sync", "alliance")
            daemon.ok("sync", "corporation")
            drain(url, _all_open())
            after = told(base_url)
            count = after["requests"] - before["requests"]
            took.append((count, time.monotonic() - started))
            print(f"{servers.stack}: {count:,} requests in {took[-1][1]:.1f} s, {after['asked']}", flush=True)
            daemon.stop()
        print(f"{servers.stack}: first {took[0][0] / took[0][1]:.0f}/s, all 304 {took[2][0] / took[2][1]:.0f}/s")


def _expire(url: str) -> None:
    store = Store(url)
    store.run(lambda: store.rows("UPDATE sync_jobs SET expires_at = '2020-01-01 00:00:00.000000+00:00'"))
    store.close()


def _all_open() -> list[str]:
    from esid.entities import ENTITIES

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
    url = servers.database()
    processes = {} if servers.stack == "sqlite" else {"ESID_PROCESSES": "2"}
    with standin(latency=0.06) as base_url:
        daemon = servers.daemon(url, base_url, ESI_MAX_RPS="50", ESI_MAX_IN_FLIGHT="64", ESID_HTTP_LISTEN="127.0.0.1:0")
        if servers.stack == "sqlite":
            del daemon.settings["ESID_PROCESSES"]
        daemon.settings.update(processes)
        store, started = Store(url), time.monotonic()
        daemon.spawn()
        with store.connection():
            while not store.rows("SELECT 1 FROM alliances LIMIT 1"):
                time.sleep(0.01)
        print(f"{servers.stack}: first row {time.monotonic() - started:.2f} s after esid run")
        pid = daemon.process.pid  # type: ignore[union-attr]
        while time.monotonic() - started < SECONDS:
            time.sleep(1.0)
        sizes = {one: pss([one]) / 1e6 for one in tree(pid)}
        print(
            f"{servers.stack}: {sum(sizes.values()):.0f} MB under load ({', '.join(f'{one:.0f}' for one in sizes.values())})"
        )
        if servers.stack != "sqlite":
            with store.connection():
                print(
                    "connections to PostgreSQL:",
                    store.rows("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"),
                )
        daemon.stop()
        store.close()
    with standin(latency=0.06, alliances=5, corporations=20) as base_url:
        url = servers.database()
        daemon = servers.daemon(url, base_url, ESI_MAX_RPS="50", ESID_HTTP_LISTEN="127.0.0.1:0", **processes)
        if servers.stack == "sqlite":
            del daemon.settings["ESID_PROCESSES"]
        daemon.start()
        time.sleep(45.0)
        pid = daemon.process.pid  # type: ignore[union-attr]
        used, before = cpu_s(tree(pid)), time.monotonic()
        time.sleep(2 * SECONDS)
        share = (cpu_s(tree(pid)) - used) / (time.monotonic() - before)
        print(f"{servers.stack}: idle {share:.2%} of a core")
        daemon.stop()


def growth(servers: Servers) -> None:
    """The same rate with a ledger of 100,000 and of 1,000,000 rows, and how long `esid status` takes then."""
    threads, count = IN_FLIGHT // PROCESSES, 30_000
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
