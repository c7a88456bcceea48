"""A database that answers and refuses, whatever the row: a right is gone, a column has another name, nothing may be
written, there is no room.

All work waits, no id is blamed for it, `/readyz` says no, and everything goes on by itself when it is mended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from esid import log
from esid.daemon import beats
from esid.errors import EsidError
from esid.queue import work
from esid.queue.middleware import hold
from esid.store import ledger
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Make
from tests.tools.outages import busy, finish, lines, pause
from tests.tools.ports import free_ports
from tests.tools.stacks import STACKS
from tests.tools.status_server import ready
from tests.tools.waiting import wait_until

#: The longest wait of those who try again is shorter than the quiet after which a fault is over.
QUIET = "esid.log:QUIET_S=6;esid.queue.middleware.hold:_LONGEST_AWAY_S=2;esid.queue.work:LONGEST_WAIT_S=2"
PLAIN = "plain_role"
#: Fault -> (what breaks, what mends, what the line says). {database} is the database's name.
POSTGRESQL = {
    "revoked": ("REVOKE ALL ON corporations FROM plain_role", "GRANT ALL ON corporations TO plain_role", "GRANT our role"),
    "renamed": (
        "ALTER TABLE corporations RENAME ticker TO other",
        "ALTER TABLE corporations RENAME other TO ticker",
        "another schema than this program needs",
    ),
    "read-only": (
        'ALTER DATABASE "{database}" SET default_transaction_read_only = on',
        'ALTER DATABASE "{database}" RESET default_transaction_read_only',
        "make it writable",
    ),
    "full": (
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON corporations EXECUTE FUNCTION full_disk()""",
        "DROP FUNCTION full_disk CASCADE",
        "disk full",
    ),
}
#: Fault -> (the hook that brings it about while its file is there, what stands in the file, what the line says).
SQLITE = {
    "read-only": ("ESID_TEST_READ_ONLY", "", "cannot be written"),
    "full": ("ESID_TEST_PAGES", "10", "disk full"),
}
#: Seconds that it lasts.
FOR_S = [3.0, pytest.param(10.0, marks=pytest.mark.long)]


@pytest.fixture
def as_plain_role(store: Store) -> Store:
    """A database on which everybody is a role that owns nothing; the store itself may do everything."""
    with suppress(EsidError):
        change(store, f"CREATE ROLE {PLAIN}")
    change(store, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {PLAIN}")
    change(store, f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {PLAIN}")
    change(store, f'ALTER DATABASE "{urlsplit(store.url).path[1:]}" SET role TO {PLAIN}')
    return store


def change(store: Store, sql: str) -> None:
    """Change the database as its owner, whatever its sessions are by default."""
    if store.is_sqlite:
        store.run(lambda: store.rows(sql))
        return
    with store.connection():
        for each in ("SET ROLE NONE", "SET default_transaction_read_only = off", sql):
            store.rows(each)


def refuse_for_a_while(
    make_daemon: Make,
    esi: FakeEsi,
    world: World,
    store: Store,
    breaking: Callable[[], object],
    mending: Callable[[], object],
    said: str,
    for_s: float,
    hooks: dict[str, str] | None = None,
) -> None:
    """Break the database under a daemon at work and mend it again."""
    (port,) = free_ports(1)
    settings = {"ESID_HTTP_LISTEN": f"127.0.0.1:{port}", "patch": QUIET}
    daemon, wanted = busy(make_daemon, esi, world, store, hooks, **settings)
    wait_until(lambda: ready(port) == 200, 30, lambda: daemon.log)
    breaking()
    esi.latency_s = 0.0

    # Then it is said with its cure, and who asks hears that nothing can be done
    wait_until(lambda: said in daemon.log, 30, lambda: daemon.log)
    wait_until(lambda: ready(port) == 503, 2 * beats.EVERY_S + 5, lambda: daemon.log)
    asked = esi.count()
    pause(for_s)
    assert esi.count() - asked <= 40
    mending()

    # And when it is mended, all goes on by itself, and no id was blamed
    wait_until(lambda: ready(port) == 200, 60, lambda: daemon.log)
    jobs = [ledger.job(store, "corporation", key) for key in world.corporations]
    assert [job["retry_count"] for job in jobs if job] == [0] * len(world.corporations)
    finish(daemon, esi, store, wanted)
    away, back = lines(daemon, "database")
    assert 1 <= back <= away <= 9, daemon.log
    assert "crash" not in daemon.log


def refuse_by_sql(make_daemon: Make, esi: FakeEsi, world: World, store: Store, fault: str, for_s: float) -> None:
    """The same by what somebody has done to the database."""
    name, (broken, mended, said) = urlsplit(store.url).path[1:], POSTGRESQL[fault]

    def breaking() -> None:
        change(store, broken.format(database=name))
        if "default" in broken:
            with store.connection():
                store.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esid' "
                           "AND datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip

    refuse_for_a_while(
        make_daemon, esi, world, store, breaking, lambda: change(store, mended.format(database=name)), said, for_s
    )


@pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
@pytest.mark.parametrize("for_s", FOR_S)
@pytest.mark.parametrize("fault", POSTGRESQL)
def test_a_postgresql_that_refuses_for_a_while_costs_no_id(
    make_daemon: Make, esi: FakeEsi, world: World, as_plain_role: Store, fault: str, for_s: float
) -> None:
    refuse_by_sql(make_daemon, esi, world, as_plain_role, fault, for_s)


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
@pytest.mark.parametrize("for_s", FOR_S)
def test_a_sqlite_whose_column_has_another_name_for_a_while_costs_no_id(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, for_s: float
) -> None:
    refuse_by_sql(make_daemon, esi, world, store, "renamed", for_s)


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
@pytest.mark.parametrize("for_s", FOR_S)
@pytest.mark.parametrize("fault", SQLITE)
def test_a_sqlite_that_refuses_for_a_while_costs_no_id(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, tmp_path: Path, fault: str, for_s: float
) -> None:
    (hook, content, said), file = SQLITE[fault], tmp_path / fault
    refuse_for_a_while(
        make_daemon, esi, world, store, lambda: file.write_text(content), file.unlink, said, for_s, {hook: str(file)}
    )


def test_a_fault_of_a_part_is_over_when_nobody_has_met_it_for_longer_than_anybody_waits() -> None:
    assert 2 * max(work.LONGEST_WAIT_S, hold._LONGEST_AWAY_S) < log.QUIET_S
