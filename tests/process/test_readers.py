"""Somebody else's program reads the tables, as another user of the machine or as another role, and can do nothing else."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon
from tests.tools.servers import Postgres

#: A user and a group that nobody has.
USER, GROUP = 54_321, 54_322
#: Takes to another user, for good, and reads one name until it is there; tells what it may not do.
READER = """
import os, sqlite3, sys, time
path, key, mode, user, group = sys.argv[1:]
os.setgroups([int(group)]), os.setgid(int(user)), os.setuid(int(user))
database = sqlite3.connect(f"file:{path}?{mode}", uri=True)
print("ready", database.execute("SELECT COUNT(*) FROM alliances").fetchone()[0], flush=True)
ends_at = time.monotonic() + 30
while time.monotonic() < ends_at:
    found = database.execute("SELECT name FROM alliances WHERE id = ?", (key,)).fetchone()
    if found:
        print("found", found[0])
        break
    time.sleep(0.01)
for attempt in ("DELETE FROM alliances", "CREATE TABLE mine (x)"):
    try:
        database.execute(attempt)
        print("wrote")
    except sqlite3.OperationalError as error:
        print(error)
folder = os.path.dirname(path)
for name in os.listdir(folder):
    print(name, *(os.access(os.path.join(folder, name), right) for right in (os.R_OK, os.W_OK)))
"""
DATABASE = {"esid.db", "esid.db-wal", "esid.db-shm"}
REFUSED = "attempt to write a readonly database"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data directory of a group, whose files belong to the group, too; and everybody may go as far."""
    above = Path(tempfile.mkdtemp(prefix="esid-readers-"))
    above.chmod(0o755)
    made = above / "data"
    made.mkdir()
    os.chown(made, -1, GROUP)
    made.chmod(0o2700)
    yield made
    shutil.rmtree(above)


@pytest.fixture
def esid(folder: Path, esi: FakeEsi) -> Iterator[Daemon]:
    """A daemon on SQLite that its group may read."""
    made = Daemon(
        {"ESID_DATA_DIR": str(folder), "ESID_DATA_MODE": "group", "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
    )
    yield made
    made.end()


def read(folder: Path, key: int, mode: str = "mode=ro") -> subprocess.Popen[str]:
    """The other user's program; it has opened the database."""
    command = [sys.executable, "-c", READER, str(folder / "esid.db"), str(key), mode, str(USER), str(GROUP)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_user_of_the_group_reads_while_the_daemon_writes(esid: Daemon, folder: Path, world: World, esi: FakeEsi) -> None:
    # Given a daemon whose file the group may read, and a reader of that group who has it open
    new = max(world.alliances) + 1
    world.alliances[new] = {**world.alliances[max(world.alliances)], "name": "Read by others", "alliance_id": new}
    hidden = world.alliances.pop(new)
    esid.start()
    reader = read(folder, new)
    assert reader.stdout
    assert reader.stdout.readline().startswith("ready")

    # When the daemon writes something new
    world.alliances[new] = hidden
    esid.ok("enqueue", "alliance", str(new), "--wait")

    # Then the reader sees it, and can neither write nor read anything else
    said = reader.communicate(timeout=40)[0].splitlines()
    assert said[:3] == ["found Read by others", REFUSED, REFUSED]
    others = {path.name for path in folder.iterdir()} - DATABASE
    assert others
    assert set(said[3:]) == {f"{name} True False" for name in DATABASE} | {f"{name} False False" for name in others}

    # And after the daemon's end, and a command beside it, nobody has to write to open it
    assert esid.stop() == 0
    for mode in ("mode=ro", "immutable=1"):
        assert read(folder, new, mode).communicate(timeout=40)[0].splitlines()[1] == "found Read by others"
    esid.ok("show", "alliance", str(new))
    assert read(folder, new).communicate(timeout=40)[0].splitlines()[1] == "found Read by others"

    # And all rows stand in the one file, and a daemon goes on with it
    assert (folder / "esid.db-wal").stat().st_size == 0
    esid.start()
    assert read(folder, new).communicate(timeout=40)[0].splitlines()[1] == "found Read by others"
    assert esid.stop() == 0


def test_a_file_that_was_private_is_opened_to_the_group_at_the_next_start(esid: Daemon, folder: Path) -> None:
    esid.ok("migrate", ESID_DATA_MODE="private")
    assert {path: modes(folder)[path] & 0o077 for path in modes(folder)} == dict.fromkeys(modes(folder), 0)
    esid.start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    assert {name for name, mode in modes(folder).items() if mode & 0o077} == DATABASE
    assert {mode for name, mode in modes(folder).items() if name in DATABASE} == {0o640}
    assert esid.stop() == 0


def modes(folder: Path) -> dict[str, int]:
    """The mode of each file."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_a_folder_of_somebody_else_is_said_with_the_cure(esid: Daemon, folder: Path) -> None:
    # Given a folder that its user may use, and not open to others
    os.chown(folder, 0, USER)
    folder.chmod(0o2700 | 0o020 | 0o010)
    script = (
        "import os, sys; from esid.store import group; from pathlib import Path; "
        "os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2])); group.open_to_group(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(folder / "esid.db"), str(USER)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"NotPermitted: {folder} cannot be opened to its group" in ran.stderr
    assert f"chmod g+rx {folder}" in ran.stderr


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """A database whose owner, as whom everybody works there, is no superuser, and may alone do anything there."""
    name = postgres.create_database()
    owner, reader = f"{name}_owner", f"{name}_reader"
    run_as(
        postgres, name, f"CREATE ROLE {owner}", f"CREATE ROLE {reader}", f"ALTER DATABASE {name} OWNER TO {owner}",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"ALTER SCHEMA public OWNER TO {owner}", f"ALTER DATABASE {name} SET role TO {owner}",
    )  # fmt: skip
    yield name
    postgres.drop_database(name)
    run_as(postgres, "postgres", f"DROP ROLE {reader}", f"DROP ROLE {owner}")


def run_as(postgres: Postgres, database: str, *statements: str, role: str = "esid") -> list[Any]:
    """What the last of some statements returns to a role."""
    connection = psycopg2.connect(postgres.url(database), options=f"-c role={role}")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture
def on_postgresql(postgres: Postgres, database: str, tmp_path: Path) -> Daemon:
    """esid with that database; its daemon is not needed."""
    return Daemon({"ESID_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": postgres.url(database)})


def test_a_role_reads_every_table_and_writes_none(postgres: Postgres, database: str, on_postgresql: Daemon) -> None:
    # Given a role that may do nothing
    on_postgresql.ok("migrate")
    reader = f"{database}_reader"
    with pytest.raises(psycopg2.Error, match="permission denied"):
        run_as(postgres, database, "SELECT * FROM public.alliances", role=reader)

    # When it gets the right to read, twice
    for _ in range(2):
        assert f"{reader} may read" in on_postgresql.ok("migrate", "--grant-read", reader)

    # Then it may connect and read all tables
    tables = [name for (name,) in run_as(postgres, database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert {"alliances", "killmails", "sync_jobs", "schema_migrations"} <= set(tables)
    for table in tables:
        run_as(postgres, database, f"SELECT * FROM {table}", role=reader)
    assert run_as(postgres, database, f"SELECT has_database_privilege('{reader}', '{database}', 'CONNECT')") == [(True,)]

    # And also those of a later migration, of which it is not told
    store = Store(postgres.url(database))
    store.run(lambda: store.rows("CREATE TABLE of_a_later_release (id BIGINT)"))
    store.close()
    assert run_as(postgres, database, "SELECT * FROM of_a_later_release", role=reader) == []

    # And it can write nothing
    for sql in ("DELETE FROM alliances", "INSERT INTO memos VALUES ('a', 'b')", "UPDATE sync_jobs SET status = 'failed'",
                "CREATE TABLE mine (id BIGINT)", "DROP TABLE memos", "DELETE FROM of_a_later_release"):  # fmt: skip
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            run_as(postgres, database, sql, role=reader)


def test_names_that_must_be_quoted_are_names(postgres: Postgres, database: str, on_postgresql: Daemon) -> None:
    odd = f'{database} "Reader"; DROP TABLE memos; --'
    quoted = odd.replace('"', '""')
    run_as(postgres, database, f'CREATE ROLE "{quoted}"')
    try:
        on_postgresql.ok("migrate", "--grant-read", odd)
        has = run_as(
            postgres, database, f"SELECT has_table_privilege(oid, 'memos', 'SELECT') FROM pg_roles WHERE rolname = '{odd}'"
        )
        assert has == [(True,)]
    finally:
        run_as(postgres, database, f'DROP OWNED BY "{quoted}"', f'DROP ROLE "{quoted}"')


def test_a_role_that_is_not_there_is_one_line(postgres: Postgres, database: str, on_postgresql: Daemon) -> None:
    ran = on_postgresql.run("migrate", "--grant-read", "nobody_has_made_it")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "has no role nobody_has_made_it" in ran.err
    assert "createuser nobody_has_made_it" in ran.err


@pytest.mark.parametrize("command", ["status", "status --json", "dead", "schedule", "config", "enqueue alliance 99000001"])
def test_a_command_beside_a_daemon_on_another_host_makes_nothing_here(
    on_postgresql: Daemon, tmp_path: Path, command: str
) -> None:
    on_postgresql.ok("migrate")
    here = tmp_path / "nothing"
    on_postgresql.settings["ESID_DATA_DIR"] = str(here)
    on_postgresql.ok(*command.split())
    assert not here.exists()


def test_our_own_role_needs_no_grant(database: str, on_postgresql: Daemon) -> None:
    ran = on_postgresql.run("migrate", "--grant-read", f"{database}_owner")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "esid's own role" in ran.err


def test_what_is_not_ours_to_grant_is_named_with_the_statement(
    postgres: Postgres, database: str, on_postgresql: Daemon
) -> None:
    # Given a database whose owner is somebody else; everything else is ours
    reader, owner = f"{database}_reader", f"{database}_owner"
    on_postgresql.ok("migrate")
    run_as(
        postgres, database, f"ALTER DATABASE {database} OWNER TO esid", f"GRANT CONNECT ON DATABASE {database} TO {owner}"
    )
    ran = on_postgresql.run("migrate", "--grant-read", reader)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert f"GRANT CONNECT ON DATABASE {database} TO {reader}" in ran.err
    # When its owner has done that, it is right
    run_as(postgres, database, f"GRANT CONNECT ON DATABASE {database} TO {reader}")
    on_postgresql.ok("migrate", "--grant-read", reader)


def test_sqlite_has_no_roles(tmp_path: Path) -> None:
    ran = Daemon({"ESID_DATA_DIR": str(tmp_path / "data")}).run("migrate", "--grant-read", "killboard")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "ESID_DATA_MODE=group" in ran.err
