"""A test has a database and a queue for itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tools.servers import Postgres

STACKS = ("sqlite + database queue", "postgresql + rabbitmq", "postgresql + database queue")


@dataclass(frozen=True)
class Stack:
    """A database and a queue of its own for one test, as settings."""

    name: str
    database_url: str
    rabbitmq_url: str
    queue_prefix: str

    def environment(self, data_dir: Path) -> dict[str, str]:
        """The environment of a daemon on this stack."""
        return {
            "DATABASE_URL": self.database_url,
            "RABBITMQ_URL": self.rabbitmq_url,
            "ESID_QUEUE_PREFIX": self.queue_prefix,
            "ESID_DATA_DIR": str(data_dir),
        }


def database_url_of(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """Make an empty database of this kind, yield its URL, and drop it."""
    if kind.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'data' / 'esid.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


def stack_of(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Iterator[Stack]:
    """Make the stack of this name, yield it, and drop its database."""
    rabbitmq_url = request.getfixturevalue("rabbitmq").url if "rabbitmq" in name else ""
    prefix = f"test{os.urandom(4).hex()}"
    for url in database_url_of(request, name, tmp_path):
        yield Stack(name, url, rabbitmq_url, prefix)
