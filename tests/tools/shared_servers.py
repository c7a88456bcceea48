"""One PostgreSQL and one RabbitMQ for all processes of a parallel run: the first of them starts both, the others wait.

They start in the background, while the tests are collected.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.tools.servers import Postgres, PrivatePostgres, PrivateRabbitmq, PrivateServer, Rabbitmq
from tests.tools.waiting import wait_until

#: Seconds that both servers take at most, on a machine that is busy collecting tests.
START_S = 120.0


class SharedServers:
    """In the process that starts the others."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="esid-servers-")
        self._postgres, self._rabbitmq = PrivatePostgres(), PrivateRabbitmq()
        servers = {"postgres": self._postgres, "rabbitmq": self._rabbitmq}
        self._threads = [threading.Thread(target=self._start, args=pair) for pair in servers.items()]
        for thread in self._threads:
            thread.start()

    def address(self) -> dict[str, Any]:
        """What the other processes are told; plain values."""
        return {
            "directory": self._directory.name,
            "postgres": [self._postgres.port, str(self._postgres.log_path)],
            "rabbitmq": [self._rabbitmq.port],
        }

    def close(self) -> None:
        """Stop both and remove their data."""
        for thread in self._threads:
            thread.join()
        self._postgres.close()
        self._rabbitmq.close()
        self._directory.cleanup()

    def _start(self, name: str, server: PrivateServer) -> None:
        said = ""
        try:
            server.start()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        path = Path(self._directory.name, name)
        path.with_suffix(".new").write_text(said)
        path.with_suffix(".new").rename(path)


def postgres(address: dict[str, Any], names: str) -> Postgres:
    """The shared PostgreSQL, once it runs; our databases begin with `names`. Raises RuntimeError where it cannot start."""
    port, log_path = address["postgres"]
    _wait(address, "postgres")
    return Postgres(port, Path(log_path), names)


def rabbitmq(address: dict[str, Any]) -> Rabbitmq:
    """The shared RabbitMQ, once it runs. Raises RuntimeError where it cannot start."""
    _wait(address, "rabbitmq")
    return Rabbitmq(*address["rabbitmq"])


def _wait(address: dict[str, Any], name: str) -> None:
    path = Path(address["directory"], name)
    wait_until(path.exists, START_S, f"{name} to start")
    if said := path.read_text():
        raise RuntimeError(said)
