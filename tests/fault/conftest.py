"""Fixtures of the fault suite: a daemon whose processes a test may hurt, and a look at its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from esid.store import migrate
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon, Make
from tests.tools.servers import Postgres
from tests.tools.stacks import Stack


@pytest.fixture
def world() -> World:
    """A very small world: faults are about processes, not about data."""
    return World.generate(alliances=3, corporations=12, characters=30, npc_corporations=2)


@pytest.fixture
def make_daemon(main_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Make]:
    """Daemons on the embedded default and at scale."""
    made: list[Daemon] = []

    def make(*, hooks: dict[str, str] | None = None, **settings: str) -> Daemon:
        common = {**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
        made.append(Daemon({**common, **settings}, hooks or {}))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def pg_url(postgres: Postgres) -> Iterator[str]:
    """A PostgreSQL database with the schema."""
    name = postgres.create_database()
    with closing(Store(postgres.url(name), pool_size=2)) as store:
        migrate.migrate(store)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def pg_store(pg_url: str) -> Iterator[Store]:
    """The same, open."""
    with closing(Store(pg_url, pool_size=8)) as opened:
        yield opened


@pytest.fixture
def store(main_stack: Stack) -> Iterator[Store]:
    """The database, with the schema in it."""
    opened = Store(main_stack.database_url, pool_size=2)
    migrate.migrate(opened)
    yield opened
    opened.close()
