"""Database, broker and ESI go away and come back: work pauses, is not failed, goes on by itself, and two lines say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from esid import log
from esid.daemon.roles import worker
from esid.entities.base import IDS_PER_MESSAGE
from esid.queue import rabbitmq as rabbitmq_broker
from esid.store import connection, ledger, migrate
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Daemon, Make
from tests.tools.outages import busy, during, finish, lines, pause
from tests.tools.ports import free_ports
from tests.tools.servers import PrivatePostgres, PrivateRabbitmq
from tests.tools.stacks import STACKS, Stack
from tests.tools.status_server import ready
from tests.tools.waiting import wait_until
from tests.tools.wire import Toxic, Wire

at_scale = pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
embedded = pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
#: Lines of an outage: one, and another where a process still meets it some seconds after it was over for the others.
MOST_LINES = 2


@pytest.fixture
def database_wire(main_stack: Stack) -> Iterator[Wire]:
    """Between the daemon and PostgreSQL."""
    with Wire(urlsplit(main_stack.database_url).port or 0) as wire:
        yield wire


@pytest.fixture
def broker_wire(main_stack: Stack) -> Iterator[Wire]:
    """Between the daemon and RabbitMQ."""
    with Wire(urlsplit(main_stack.rabbitmq_url).port or 0) as wire:
        yield wire


def through(wire: Wire, url: str) -> str:
    """The URL with the wire in front."""
    return url.replace(f":{urlsplit(url).port}/", f":{wire.port}/")


@at_scale
def test_a_database_that_goes_and_comes_is_said_once(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, database_wire: Wire
) -> None:
    url = through(database_wire, main_stack.database_url)
    daemon, wanted = busy(make_daemon, esi, world, store, DATABASE_URL=url)
    database_wire.down()
    wait_until(lambda: lines(daemon, "database")[0] >= 1, 20, "the line")
    asked = esi.count()
    pause(2.0)
    # While it is away nothing is asked but what was begun
    assert esi.count() - asked <= 4 * IDS_PER_MESSAGE
    database_wire.up()
    finish(daemon, esi, store, wanted)
    assert lines(daemon, "database") == (1, 1), daemon.log


@at_scale
def test_sessions_that_are_terminated_again_and_again_cost_nothing(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    daemon, wanted = busy(make_daemon, esi, world, store)

    def terminate() -> None:
        with store.connection():
            store.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esid' "
                       "AND datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip

    during(5.0, terminate, 0.5)
    finish(daemon, esi, store, wanted)
    # One of them owned the schedule all the time, or took it again
    assert daemon.log.count("schedule.owned") <= 1 + daemon.log.count("schedule.lost")


@at_scale
def test_a_database_behind_a_blackhole_is_given_up_and_taken_again(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, database_wire: Wire
) -> None:
    # The figures in force, and shorter ones for this test
    assert worker.STATEMENT_S + connection._SILENT_S <= 20
    url = through(database_wire, main_stack.database_url)
    patch = "esid.daemon.roles.worker:STATEMENT_S=2;esid.store.connection:_SILENT_S=1"
    daemon, wanted = busy(make_daemon, esi, world, store, DATABASE_URL=url, patch=patch)
    database_wire.toxic = Toxic(timeout=True)
    wait_until(lambda: "no answer within 3 s" in daemon.log, 15, lambda: daemon.log)
    database_wire.up()
    database_wire.reset_peers()
    finish(daemon, esi, store, wanted)


@at_scale
@pytest.mark.parametrize(
    "toxic", [Toxic(latency_s=0.2), Toxic(bandwidth=30_000), Toxic(slicer=40)], ids=["latency", "bandwidth", "slicer"]
)
def test_a_slow_wire_to_the_database_is_slow_and_nothing_else(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, database_wire: Wire, toxic: Toxic
) -> None:
    url = through(database_wire, main_stack.database_url)
    daemon, wanted = busy(make_daemon, esi, world, store, DATABASE_URL=url)
    database_wire.toxic = toxic
    finish(daemon, esi, store, wanted, 90)
    assert lines(daemon, "database") == (0, 0)


@at_scale
def test_connections_to_both_servers_are_reset_again_and_again(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, database_wire: Wire, broker_wire: Wire
) -> None:
    urls = {
        "DATABASE_URL": through(database_wire, main_stack.database_url),
        "RABBITMQ_URL": through(broker_wire, main_stack.rabbitmq_url),
    }
    daemon, wanted = busy(make_daemon, esi, world, store, **urls)
    during(4.0, lambda: [wire.reset_peers() for wire in (database_wire, broker_wire)], 0.5)
    finish(daemon, esi, store, wanted)


@at_scale
def test_a_broker_that_is_down_between_failure_and_retry_loses_no_retry(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, broker_wire: Wire
) -> None:
    # Given ids that fail now and are to be asked again
    failing = esi.faults.add("/alliances/", status=502)
    daemon, wanted = busy(make_daemon, esi, world, store, RABBITMQ_URL=through(broker_wire, main_stack.rabbitmq_url))

    # When the broker goes before any retry could be published
    broker_wire.down()
    wait_until(lambda: lines(daemon, "rabbitmq")[0] >= 1, 20, lambda: daemon.log)
    wait_until(lambda: failing.hits >= 3, 20, "failures")
    esi.faults.clear()

    # Then the failed ids are kept, and done when it is back
    assert sum(checker.open_jobs(store).values()) > 0
    broker_wire.up()
    finish(daemon, esi, store, wanted)
    away, back = lines(daemon, "rabbitmq")
    assert 1 <= back <= away <= MOST_LINES


@at_scale
def test_a_broker_behind_a_blackhole_is_noticed_by_its_heartbeat(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, main_stack: Stack, broker_wire: Wire
) -> None:
    assert rabbitmq_broker.HEARTBEAT_S + 5 <= 20  # pika's margin is 5 s
    (port,) = free_ports(1)
    url = through(broker_wire, main_stack.rabbitmq_url)
    settings = {"RABBITMQ_URL": url, "ESID_HTTP_LISTEN": f"127.0.0.1:{port}"}
    daemon, wanted = busy(make_daemon, esi, world, store, patch="esid.queue.rabbitmq:HEARTBEAT_S=2", **settings)
    broker_wire.toxic = Toxic(timeout=True)
    wait_until(lambda: lines(daemon, "rabbitmq")[0] >= 1, 20, lambda: daemon.log)
    assert ready(port) == 503
    broker_wire.up()
    broker_wire.reset_peers()
    wait_until(lambda: ready(port) == 200, 30, "readiness")
    finish(daemon, esi, store, wanted)
    # An outage is said once, not each second by every job that it holds up
    assert "running instances" not in daemon.log, daemon.log


@embedded
def test_a_full_disk_is_named_pauses_the_work_and_costs_nothing(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, tmp_path: Path
) -> None:
    # Given a file that may not grow
    pages = tmp_path / "pages"
    daemon = make_daemon(hooks={"ESID_TEST_PAGES": str(pages)}, ESID_THREADS="4")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    pages.write_text("10")
    daemon.start()
    wait_until(lambda: "disk full" in daemon.log, 30, lambda: daemon.log)
    asked = esi.count()
    pause(2.0)
    assert esi.count() - asked <= 4 * IDS_PER_MESSAGE
    assert all(ledger.job(store, "alliance", key)["retry_count"] == 0 for key in world.alliances)  # type: ignore[index]

    # When there is room again
    pages.unlink()

    # Then it goes on by itself; a small write may have found room meanwhile, and has not ended it
    wait_until(lambda: lines(daemon, "database")[1] >= 1, log.QUIET_S + 15, lambda: daemon.log)
    finish(daemon, esi, store, wanted)
    away, back = lines(daemon, "database")
    assert 1 <= back <= away <= MOST_LINES


@at_scale
def test_a_full_disk_of_postgresql_is_named_and_pauses_too(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    full = """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/1/2"' USING ERRCODE = '53100'; END $$"""
    store.run(lambda: store.rows(full))
    for table in ("alliances", "corporations", "characters"):
        sql = f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()"
        store.run(lambda sql=sql: store.rows(sql))
    daemon = make_daemon(ESID_THREADS="4")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start()
    wait_until(lambda: "disk full" in daemon.log, 30, lambda: daemon.log)
    pause(1.0)
    store.run(lambda: store.rows("DROP FUNCTION full_disk CASCADE"))
    finish(daemon, esi, store, wanted)


@embedded
def test_cuts_on_the_way_to_esi_cost_retries_and_no_row(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    with Wire(urlsplit(esi.base_url).port or 0) as wire:
        daemon, wanted = busy(make_daemon, esi, world, store, ESI_BASE_URL=f"http://127.0.0.1:{wire.port}")
        for toxic in (Toxic(limit_data=2000), Toxic(slicer=50), Toxic(latency_s=0.3)):
            wire.toxic = toxic
            pause(1.0)
        wire.reset_peers()
        wire.down()
        pause(0.5)
        wire.up()
        finish(daemon, esi, store, wanted, 90)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_servers_killed_long(esi: FakeEsi, tmp_path: Path) -> None:
    # RabbitMQ and PostgreSQL are killed five times each, under load
    esi.world.__dict__.update(World.generate(alliances=60, corporations=600, characters=1400).__dict__)
    wanted = checker.sent(esi.world)
    with PrivatePostgres() as postgres, PrivateRabbitmq() as rabbitmq:
        settings = {
            "DATABASE_URL": postgres.url(postgres.create_database()), "RABBITMQ_URL": rabbitmq.url,
            "ESID_QUEUE_PREFIX": "killed", "ESID_DATA_DIR": str(tmp_path / "data"), "ESI_BASE_URL": esi.base_url,
            "ESI_MAX_RPS": "0", "ESID_THREADS": "4", "ESID_PROCESSES": "2",
        }  # fmt: skip
        daemon = Daemon(settings)
        store = Store(settings["DATABASE_URL"], pool_size=2)
        migrate.migrate(store)
        checker.enqueue(daemon, store, wanted)
        esi.latency_s = 0.3
        daemon.start()
        for _ in range(5):
            pause(3.0)
            rabbitmq.kill()
            rabbitmq.start()
            pause(3.0)
            postgres.stop("immediate")
            postgres.start()
        finish(daemon, esi, store, wanted, 400)
        store.close()
