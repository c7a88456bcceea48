"""When things go wrong the tables still end equal to the world, or a dead letter says why they do not."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from esid import clock
from esid.entities.corporation import Corporation
from esid.store import ledger, migrate
from esid.store.connection import Store
from esid.store.model import Seen
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.discovery import reachable
from tests.tools.servers import Postgres, PrivatePostgres, PrivateRabbitmq, Rabbitmq
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync


@pytest.fixture
def main_daemon(main_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on the embedded default and at scale."""
    made = Daemon({**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    yield made
    made.end()


@pytest.fixture
def main_store(main_stack: Stack) -> Iterator[Store]:
    """Its database."""
    store = Store(main_stack.database_url, pool_size=2)
    yield store
    store.close()


def letters(daemon: Daemon) -> list[dict[str, Any]]:
    """Every dead letter."""
    found: list[dict[str, Any]] = json.loads(daemon.ok("dead", "list", "--json"))
    return found


@pytest.mark.quick_on(STACKS[1])
def test_gateway_errors_cost_retries_and_no_row(main_daemon: Daemon, esi: FakeEsi, world: World, main_store: Store) -> None:
    # Given that every tenth answer is a gateway's error page
    esi.faults.add("/corporations", html=502, probability=0.1)
    esi.faults.add("/characters", status=504, probability=0.1)
    main_daemon.start()
    wait_for_sync(main_daemon, main_store)
    mirror.assert_equal(main_store, reachable(world))
    assert letters(main_daemon) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"json": {"name": 5}}, "bad_field"),
        ({"status": 400}, "http_400"),
        ({"body": b"<html>sorry</html>"}, "bad_body"),
        ({"status": 422}, "wrong_pair"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.takes_turns("fault")
def test_an_answer_that_cannot_be_used_is_a_dead_letter_with_its_reason(
    main_daemon: Daemon, esi: FakeEsi, world: World, main_store: Store, fault: dict[str, Any], reason: str
) -> None:
    key = next(iter(world.npc_corporations))
    esi.faults.add(f"/corporations/{key}", exact=True, no_expires=True, **fault)
    main_daemon.ok("enqueue", "corporation", str(key))
    main_daemon.start("--actors", "corporation")
    wait_until(lambda: letters(main_daemon), 30, main_daemon.log, every_s=0.2)
    (letter,) = letters(main_daemon)
    assert (letter["entity_type"], letter["entity_id"], letter["reason"]) == ("corporation", key, reason)
    assert key not in mirror.table(main_store, Corporation)
    assert "Traceback" not in main_daemon.log


@pytest.mark.quick_on(STACKS[1])
def test_an_esi_that_does_not_answer_is_said_once_and_its_return_too(
    main_daemon: Daemon, esi: FakeEsi, world: World, main_store: Store
) -> None:
    esi.faults.add("/", html=502)
    main_daemon.ok("enqueue", "corporation", *map(str, world.npc_corporations))
    main_daemon.ok("enqueue", "character", *map(str, list(world.characters)[:5]))
    main_daemon.start()
    wait_until(lambda: "esi.away" in main_daemon.log, 40, lambda: main_daemon.log)
    esi.faults.clear()
    wait_for_sync(main_daemon, main_store)
    mirror.assert_equal(main_store, reachable(world))
    assert (main_daemon.log.count("esi.away"), main_daemon.log.count("esi.back")) == (1, 1)
    assert letters(main_daemon) == []


@pytest.mark.quick_on(STACKS[0])
def test_a_flood_of_404s_meets_no_420_and_every_id_has_its_reason(main_stack: Stack, tmp_path: Path) -> None:
    # Given an error window that is short enough to see several of them
    with FakeEsi(World(), error_limit=40, error_window_s=3) as esi:
        settings = {**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
        daemon = Daemon(settings)
        daemon.ok("enqueue", "corporation", "-", stdin="\n".join(str(98_000_000 + n) for n in range(150)))
        store = Store(main_stack.database_url, pool_size=2)
        daemon.start("--actors", "corporation")
        try:
            wait_for_sync(daemon, store, 90, only="corporation")
            assert esi.answers(420) == []
            assert {letter["reason"] for letter in letters(daemon)} == {"not_found"}
            assert len(letters(daemon)) == 150
            # Each was asked once: waiting for the window used up no attempt.
            assert esi.count(prefix="/corporations/98") == 150
        finally:
            daemon.end()
            store.close()


@pytest.mark.quick_on(STACKS[0])
def test_what_one_answer_invents_spends_nobody_elses_errors(
    main_daemon: Daemon, main_store: Store, esi: FakeEsi, world: World
) -> None:
    # Given a killmail with 3,000 invented attackers of as many corporations and alliances, and an ESI that knows others
    migrate.migrate(main_store)
    invented = [
        Seen(entity, first + number)
        for entity, first in (("character", 2_119_000_000), ("corporation", 98_900_000), ("alliance", 99_900_000))
        for number in range(3_000)
    ]
    main_store.run(lambda: ledger.discover(main_store, invented, clock.now()))
    real = [Seen("corporation", key) for key in world.corporations]
    main_store.run(lambda: ledger.discover(main_store, real, clock.now()))
    # When a daemon asks for all of them
    main_daemon.start()
    wait_until(lambda: set(world.corporations) <= set(mirror.table(main_store, Corporation)), 40, lambda: main_daemon.log)
    wait_until(lambda: main_daemon.log.count("esi.doubted") >= 3, 40, lambda: main_daemon.log)
    # Then less than one window of errors was spent, and what a person asks for has its answer at once
    refused = len(esi.answers(400)) + len(esi.answers(404))
    assert refused < 90
    assert main_daemon.run("enqueue", "--wait", "corporation", "98900100", timeout_s=20).code == 1


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """A daemon on servers of its own, which a test may kill."""
    made: list[Daemon] = []

    def make(esi: FakeEsi, database_url: str, rabbitmq_url: str) -> Daemon:
        settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": rabbitmq_url, "ESID_DATA_DIR": str(tmp_path / "data")}
        made.append(Daemon({**settings, "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()


def test_rabbitmq_is_killed_in_the_middle_of_a_sync(
    own_stack: Callable[..., Daemon], esi: FakeEsi, world: World, postgres: Postgres
) -> None:
    esi.latency_s = 0.1
    with PrivateRabbitmq() as rabbitmq:
        daemon = own_stack(esi, postgres.url(postgres.create_database()), rabbitmq.url)
        daemon.start()
        wait_until(lambda: esi.count() > 20, 20, lambda: daemon.log)
        rabbitmq.kill()
        rabbitmq.start()
        store = Store(daemon.settings["DATABASE_URL"], pool_size=2)
        wait_for_sync(daemon, store, 90)
        mirror.assert_equal(store, reachable(world))
        assert daemon.log.count("rabbitmq.away") <= 2  # once, and again where somebody meets it after it was back
        assert "Traceback" not in daemon.log
        store.close()
        assert daemon.stop() == 0


def test_postgresql_is_stopped_hard_in_the_middle_of_a_sync(
    own_stack: Callable[..., Daemon], esi: FakeEsi, world: World, rabbitmq: Rabbitmq
) -> None:
    esi.latency_s = 0.1
    with PrivatePostgres() as postgres:
        daemon = own_stack(esi, postgres.url(postgres.create_database()), rabbitmq.url)
        daemon.settings["ESID_QUEUE_PREFIX"] = "pgstop"
        daemon.start()
        wait_until(lambda: esi.count() > 20, 20, lambda: daemon.log)
        postgres.stop("immediate")
        wait_until(lambda: "away" in daemon.log, 20, lambda: daemon.log)
        postgres.start()
        store = Store(daemon.settings["DATABASE_URL"], pool_size=2)
        wait_for_sync(daemon, store, 120)
        mirror.assert_equal(store, reachable(world))
        assert "Traceback" not in daemon.log
        assert letters(daemon) == []
        store.close()
        assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_two_installations_on_the_same_queues_are_told_at_the_start(
    stack: Stack, daemon: Daemon, esi: FakeEsi, tmp_path: Path
) -> None:
    # Given a daemon that consumes, and another one with another database and the same queues
    daemon.start()
    marker = f"{stack.queue_prefix}.installation"
    with pika.BlockingConnection(pika.URLParameters(stack.rabbitmq_url)) as connection:
        wait_until(lambda: consumers(connection, marker) >= 1, 30, "the queues are consumed", every_s=0.1)
    settings = stack.environment(tmp_path / "other") | {"DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    other = Daemon({**settings, "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    # Then its start ends with one line, while its commands do what they do
    other.spawn()
    assert other.wait() == 78
    (line,) = other.log.strip().splitlines()
    assert "another installation" in line
    assert "ESID_QUEUE_PREFIX" in line
    other.ok("status", "--json")
    # And a second daemon of the first one starts; when all of the first have ended, the other one may
    second = Daemon({**daemon.settings, "ESID_DATA_DIR": str(tmp_path / "second")}).start()
    daemon.signal(signal.SIGKILL, group=True)
    assert second.stop() == 0
    other.start()
    assert other.stop() == 0


def consumers(connection: Any, queue: str) -> int:
    """How many consumers a queue has; 0 where there is none."""
    channel = connection.channel()
    try:
        count: int = channel.queue_declare(queue, passive=True).method.consumer_count
    except pika.exceptions.ChannelClosedByBroker:
        return 0
    channel.close()
    return count
