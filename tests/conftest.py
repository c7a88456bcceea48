"""Fixtures: private servers on free ports, one database for each test, and a count of what ran on which of them.

A missing server is a failure, never a skip.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import hypothesis
import peewee
import pytest

from esid import log
from esid.settings import proxy, reading, trust
from esid.store import migrate
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools import shared_servers
from tests.tools.daemon import ZYGOTE, Daemon
from tests.tools.servers import Postgres, PrivatePostgres, PrivateRabbitmq, Rabbitmq
from tests.tools.shared_servers import SharedServers
from tests.tools.stacks import STACKS, Stack, database_url_of, stack_of

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would everything that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` has them ignore the end of a terminal.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# On a busy machine an example may take as long as it likes.
hypothesis.settings.register_profile("esid", deadline=None)
hypothesis.settings.load_profile("esid")
# What they compare is to be read when it differs; only tests import them, later than this.
pytest.register_assert_rewrite(
    "tests.tools.killmail_tables",
    "tests.tools.mirror",
    "tests.tools.outages",
    "tests.tools.processes",
    "tests.fault.checker",
)
#: What else of the environment reaches a setting.
_OURS = {"DATABASE_URL", "RABBITMQ_URL", "WORKER_TYPES", *trust.USUAL, *proxy.NAMES, *proxy.EXCEPT}
_ran: Counter[str] = Counter()
_SERVERS = pytest.StashKey[SharedServers]()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test, no `.env`, and no outage that an earlier test of this process has left."""
    for name in list(os.environ):
        if name.startswith(("ESI_", "ESID_", "DB_")) or name in _OURS:
            monkeypatch.delenv(name)
    monkeypatch.setattr(log, "_outages", {})
    monkeypatch.setattr(reading, "SYSTEM_FILE", tmp_path / "no.env")
    monkeypatch.chdir(tmp_path)


def pytest_configure_node(node: Any) -> None:
    """Tell each process of a parallel run (pytest-xdist) where the servers of all of them are."""
    stash = node.config.stash
    if _SERVERS not in stash:
        stash[_SERVERS] = SharedServers()
    node.workerinput["servers"] = stash[_SERVERS].address()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what forks commands, and the servers of a parallel run."""
    ZYGOTE.close()
    if _SERVERS in config.stash:
        config.stash[_SERVERS].close()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """One PostgreSQL of our own for the run."""
    if shared := _shared(request):
        yield shared_servers.postgres(shared["servers"], f"test_{shared['workerid']}")
        return
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[Rabbitmq]:
    """One RabbitMQ of our own for the run."""
    if shared := _shared(request):
        yield shared_servers.rabbitmq(shared["servers"])
        return
    with PrivateRabbitmq() as server:
        yield server


def _shared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the first process of a parallel run has told us; {} where we are alone."""
    return getattr(request.config, "workerinput", {})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make fault` what `make test` runs on another stack, and to `make test` what needs servers.

    In a parallel run the longest come first.
    """
    turns = dict[tuple[Any, str], list[Any]]()
    for item in items:
        if _is_left_out(item, turns):
            item.add_marker(pytest.mark.long)
        if {"postgres", "rabbitmq"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.heavy)
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, int]:
    """So that processes of a parallel run end together, and what works is mixed with what waits."""
    kind = item.path.parent.name
    is_long = item.path.stem in {"test_soak", "test_limits", "test_egress", "test_outage", "test_dist"}
    return 0 if is_long else 1 if kind in {"fault", "process"} else 2, crc32(item.nodeid.encode())


def _is_left_out(item: Any, turns: dict[tuple[Any, str], list[Any]]) -> bool:
    """Whether the marks `quick_on` and `takes_turns` (see setup.cfg) leave this variant to `make fault`.

    Args:
        turns: test and parameter -> its values in order, of the tests before this one. Pytest's own `indices` count on
            through all combinations.
    """
    quick_on, takes_turns = item.get_closest_marker("quick_on"), item.get_closest_marker("takes_turns")
    if not quick_on and not takes_turns:
        return False
    call = item.callspec
    stack: str = next(call.params[one] for one in ("main_stack", "stack", "database_url") if one in call.params)
    if quick_on:
        return stack != quick_on.args[0]
    name = takes_turns.args[0]
    values = turns.setdefault((item.function, name), [])
    if call.params[name] not in values:
        values.append(call.params[name])
    return bool(values.index(call.params[name]) % 2 != stack.startswith("postgresql"))


def _runs_on(request: pytest.FixtureRequest) -> None:
    """Note the database and queue of a test in its report, which reaches the process that prints the summary."""
    request.node.user_properties.append(("runs on", request.param))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what has run."""
    if report.when == "call":
        _ran.update(str(value) for name, value in report.user_properties if name == "runs on")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    _runs_on(request)
    yield from database_url_of(request, request.param, tmp_path)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open database of each kind with the schema in it."""
    opened = Store(database_url, pool_size=8)
    migrate.migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def lose_an_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the next commit be done, and its answer be lost with the connection."""
    commit, losses = store.database.commit, list[int]()

    def commit_and_lose() -> None:
        commit()
        if losses:
            losses.pop()
            raise peewee.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(store.database, "commit", commit_and_lose)
    return lambda: losses.append(1)


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A database and a queue of each pair that people run."""
    _runs_on(request)
    yield from stack_of(request, request.param, tmp_path)


@pytest.fixture(params=STACKS[:2])
def main_stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """The embedded default and the stack at scale, for tests that would cost too much on all three."""
    _runs_on(request)
    yield from stack_of(request, request.param, tmp_path)


@pytest.fixture
def world() -> World:
    """A small world."""
    return World.generate(alliances=6, corporations=40, characters=80, npc_corporations=3)


@pytest.fixture
def esi(world: World) -> Iterator[FakeEsi]:
    """ESI with that world."""
    with FakeEsi(world) as server:
        yield server


@pytest.fixture
def daemon(stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on each stack, not yet started."""
    made = Daemon({**stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    yield made
    made.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests ran on which database and queue."""
    terminalreporter.section("databases and queues")
    for name, count in sorted(_ran.items()):
        terminalreporter.write_line(f"{count:5} tests on {name}")
