"""An upgrade while daemons run: the older one sees that its database was migrated, and ends by itself; nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid.store import dead_letters, migrate
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import ROOT, Daemon
from tests.tools.processes import ended
from tests.tools.stacks import STACKS, Stack
from tests.tools.work import ask_for_everything, open_jobs, wait_for_work, wait_for_world

SQLITE, RABBITMQ = STACKS[:2]
#: The documented exit code, and seconds within which a daemon has ended.
DATA, ENDED_S = 65, 60.0
#: One of each way in which commands open the database.
COMMANDS = ("status", "enqueue alliance 99000001", "dead list", "import killmails --from 2021-11-28", "migrate", "run")
NEWEST = migrate.known()[-1][0]


@pytest.fixture
def store(daemon: Daemon, stack: Stack) -> Iterator[Store]:
    """The daemon's database, with the schema in it."""
    daemon.ok("migrate")
    opened = Store(stack.database_url, pool_size=2)
    yield opened
    opened.close()


@pytest.fixture
def busy(daemon: Daemon, esi: FakeEsi, world: World, store: Store) -> Daemon:
    """A daemon that has work for longer than it takes to end."""
    ask_for_everything(daemon, world)
    esi.latency_s = 2.0
    daemon.start("--threads", "3")
    wait_for_work(esi)
    return daemon


@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
def test_a_daemon_ends_when_a_newer_program_has_migrated_its_database(
    busy: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # When a newer program migrates the database in the middle of the work
    sql = "INSERT INTO schema_migrations (number, name, applied_at) VALUES (%s, 'tomorrow', '2030-01-01 00:00:00+00:00')"
    store.change(sql, (NEWEST + 1,))

    # Then the daemon ends in good order, with cause and cure in one line
    assert ended(busy, ENDED_S, "the migration") == DATA
    (line,) = [line for line in busy.log.splitlines() if "newer than this program" in line]
    words = f"the database has schema {NEWEST + 1}, newer than this program ({NEWEST}): install a newer esid"
    assert line.endswith(f"ERROR daemon.newer_schema  {words}")
    for command in COMMANDS:
        ran = busy.run(*command.split(), ESID_ARCHIVE_URL=esi.base_url)
        assert (ran.code, ran.out, ran.err.count("\n")) == (DATA, "", 1), (command, ran)
        assert "newer than this program" in ran.err
    # And what it had in hand waits for whoever comes
    assert open_jobs(store)
    store.change("DELETE FROM schema_migrations WHERE number > %s", (NEWEST,))
    esi.latency_s = 0.0
    busy.start()
    wait_for_world(busy, store, world, 60)
    assert dead_letters.reasons(store) == []
    assert esi.early() == []
    assert busy.stop() == 0


@pytest.fixture
def release(tmp_path: Path, daemon: Daemon) -> Path:
    """The folder from which the daemon runs: of the release of today."""
    folder = tmp_path / "release"
    shutil.copytree(ROOT / "esid", folder / "esid", ignore=shutil.ignore_patterns("__pycache__"))
    daemon.settings["PYTHONPATH"] = str(folder)
    return folder


@pytest.mark.parametrize("stack", [RABBITMQ], indirect=True)
def test_an_older_daemon_makes_room_for_a_newer_one_that_has_begun_beside_it(
    release: Path, busy: Daemon, esi: FakeEsi, world: World, store: Store, tmp_path: Path
) -> None:
    # Given that the next release is installed under a daemon that runs
    migration = release / "esid" / "store" / "migrations" / f"{NEWEST + 1:04d}_tomorrow.sql"
    migration.write_text("ALTER TABLE sync_jobs ADD COLUMN tomorrow TEXT;\nUPDATE sync_jobs SET tomorrow = status;\n")
    newer = Daemon({**busy.settings, "ESID_DATA_DIR": str(tmp_path / "other")})
    try:
        # When it migrates, and begins at once
        assert newer.ok("migrate") == f"applied {NEWEST + 1:04d}_tomorrow\n"
        newer.start()

        # Then the older one knows that its own schema is another one, and the newer one does the work alone
        assert ended(busy, ENDED_S, "the migration") == DATA
        assert f"the database has schema {NEWEST + 1}, newer than this program ({NEWEST})" in busy.log
        esi.latency_s = 0.0
        wait_for_world(newer, store, world, 60)
        assert dead_letters.reasons(store) == []
        # And the next start of the older one is one of the new release
        busy.start()
        assert (busy.stop(), newer.stop()) == (0, 0)
    finally:
        newer.end()
