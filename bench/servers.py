"""What a benchmark of the daemon runs on: servers of its own on free ports, and the stand-in for ESI."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.processes import tree
from esid.store import ledger, migrate
from esid.store.connection import Store
from tests.tools.daemon import Daemon
from tests.tools.servers import PrivatePostgres, PrivateRabbitmq

#: Worker processes, and requests on their way: what the error limit less its reserve lets through.
PROCESSES, IN_FLIGHT = 2, 90


class Servers:
    """What one stack runs on."""

    def __init__(self, stack: str, directory: Path, exits: ExitStack) -> None:
        self.stack, self.directory, self._exits, self._fresh = stack, directory, exits, 0
        self.rabbitmq_url, self.pids = "", list[int]()
        if stack == "postgresql":
            self._postgres = exits.enter_context(PrivatePostgres(durable=True))
            rabbitmq = exits.enter_context(PrivateRabbitmq())
            self.rabbitmq_url = rabbitmq.url
            postmaster = int((self._postgres.directory / "data" / "postmaster.pid").read_text().split()[0])
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
        """A daemon that is not started; it is ended with the servers at the latest."""
        data = self.directory / f"data{self._fresh}"
        daemon = Daemon(
            {
                "DATABASE_URL": url, "RABBITMQ_URL": self.rabbitmq_url, "ESID_QUEUE_PREFIX": f"bench{self._fresh}",
                "ESID_DATA_DIR": str(data), "ESI_BASE_URL": base_url, "ESI_MAX_RPS": "0",
                "ESI_MAX_IN_FLIGHT": str(IN_FLIGHT), "ESID_PROCESSES": str(PROCESSES), **settings,
            }
        )  # fmt: skip
        self._exits.callback(daemon.end)
        return daemon

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
