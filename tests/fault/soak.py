"""Random faults by a seed: what may happen to a daemon, its servers and its ESI, one after the other under load."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from esid.store.connection import Store
from esid.store.drivers import sqlite_path
from tests.fake_esi import FakeEsi
from tests.tools.daemon import Daemon
from tests.tools.processes import processes
from tests.tools.stacks import Stack
from tests.tools.waiting import wait_until
from tests.tools.wire import Toxic, Wire

#: Deaths are what a soak is about; the waits after them and after failures are short, so that it ends.
HOOKS = {
    "ESID_TEST_PATCH": "esid.daemon.child:MOST_DEATHS=10000;esid.store.recoveries:WAITS_S=(0.0, 0.5, 1.0);"
    "esid.queue.attempts:LONGEST_WAIT_S=4.0"
}


class Soak:
    """One daemon in trouble.

    Args:
        seed: the same seed gives the same faults in the same order.
    """

    def __init__(self, stack: Stack, esi: FakeEsi, store: Store, data: Path, pages: Path, seed: str) -> None:
        self.stack, self.esi, self.store, self.pages = stack, esi, store, pages
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        #: Seconds of each answer of ESI while it is well.
        self.latency_s = 0.02
        self._wires = ExitStack()
        self.daemon = Daemon(
            {
                **stack.environment(data),
                "ESI_BASE_URL": esi.base_url,
                "ESI_MAX_RPS": "0",
                "ESID_PROCESSES": "2",
                "ESID_THREADS": "4",
                "ESID_SCHEDULE_ALLIANCES": "2s",
            },
            {**HOOKS, "ESID_TEST_PAGES": str(pages)},
        )
        self.wires = {name: self._wire(name) for name in ("DATABASE_URL", "RABBITMQ_URL") if "://" in self._url(name)}
        kinds: list[Callable[[], None]] = [
            self.kill_a_worker, self.kill_a_worker, self.kill_a_child, self.restart, self.kill_all, self.freeze_a_worker,
            self.esi_fails, self.esi_cuts, self.esi_is_slow,
        ]  # fmt: skip
        if self.wires:
            kinds += [self.reset_a_wire, self.a_wire_is_down, self.a_wire_is_slow, self.terminate_sessions]
        else:
            kinds += [self.hold_the_file, self.fill_the_disk]
        self._kinds = kinds

    def run(self, faults: int, shortest_s: float, longest_s: float) -> None:
        """So many faults, one each so many seconds; then everything is well again."""
        self._well()
        self.daemon.start()
        try:
            for _ in range(faults):
                fault = self.dice.choice(self._kinds)
                self.done[fault.__name__] += 1
                fault()
                self._pass(self.dice.uniform(shortest_s, longest_s))
                self._well()
        finally:
            self._well()

    def close(self) -> None:
        """End everything."""
        self.daemon.end()
        self._wires.close()

    # -- faults

    def kill_a_worker(self) -> None:
        """SIGKILL, as the kernel does when memory is short."""
        self._kill(lambda threads: threads > 6)

    def kill_a_child(self) -> None:
        """Any child."""
        self._kill(lambda _: True)

    def restart(self) -> None:
        """A stop as systemd does it, and a start."""
        self.daemon.signal(signal.SIGTERM)
        code = self.daemon.wait(60)
        assert code == 0, (code, self.daemon.log[-3000:])
        assert processes(self.daemon) == set()
        self.daemon.start()

    def kill_all(self) -> None:
        """SIGKILL to the supervisor; its children end by themselves."""
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()
        wait_until(lambda: not processes(self.daemon), 5, "the end of all children")
        self.daemon.start()

    def freeze_a_worker(self) -> None:
        """SIGSTOP and SIGCONT."""
        for pid in self._pids(lambda threads: threads > 6)[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._pass(0.5)
                os.kill(pid, signal.SIGCONT)

    def esi_fails(self) -> None:
        """Gateway errors for some."""
        self.esi.faults.add("/", html=502, probability=0.5, times=20)

    def esi_cuts(self) -> None:
        """Half an answer, or none."""
        self.esi.faults.add("/", truncate=True, probability=0.5, times=10)
        self.esi.faults.add("/", reset=True, probability=0.5, times=10)

    def esi_is_slow(self) -> None:
        """It takes its time."""
        self.esi.latency_s = 4 * self.latency_s

    def reset_a_wire(self) -> None:
        """All connections to one server are reset."""
        self._some_wire().reset_peers()

    def a_wire_is_down(self) -> None:
        """One server cannot be reached."""
        self._some_wire().down()

    def a_wire_is_slow(self) -> None:
        """One server is far away."""
        self._some_wire().toxic = self.dice.choice([Toxic(latency_s=0.05), Toxic(slicer=64), Toxic(bandwidth=100_000)])

    def terminate_sessions(self) -> None:
        """An administrator ends all sessions of esid."""
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        with self.store.connection():
            (own,) = self.store.rows("SELECT pg_backend_pid()")[0]
            self.store.rows(sql, (own,))

    def hold_the_file(self) -> None:
        """Another program writes to the SQLite file, and takes its time."""
        connection = sqlite3.connect(sqlite_path(self.stack.database_url), timeout=20)
        connection.execute("BEGIN IMMEDIATE")
        self._pass(0.5)
        connection.rollback()
        connection.close()

    def fill_the_disk(self) -> None:
        """The file may not grow."""
        self.pages.write_text("10")

    # -- parts

    def _well(self) -> None:
        self.esi.faults.clear()
        self.esi.latency_s = self.latency_s
        self.pages.unlink(missing_ok=True)
        for wire in self.wires.values():
            wire.up()

    def _wire(self, name: str) -> Wire:
        port = urlsplit(self._url(name)).port or 0
        wire = self._wires.enter_context(Wire(port))
        self.daemon.settings[name] = self._url(name).replace(f":{port}/", f":{wire.port}/")
        return wire

    def _url(self, name: str) -> str:
        url = self.daemon.settings[name]
        return "" if url.startswith("sqlite") else url

    def _some_wire(self) -> Wire:
        return self.dice.choice(list(self.wires.values()))

    def _kill(self, fits: Callable[[int], bool]) -> None:
        for pid in self._pids(fits)[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self, fits: Callable[[int], bool]) -> list[int]:
        found = []
        for pid in sorted(self.daemon.children().values()):
            with suppress(OSError):
                if fits(len(list(Path(f"/proc/{pid}/task").iterdir()))):
                    found.append(pid)
        self.dice.shuffle(found)
        return found

    def _pass(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds + 5, "time to pass")
