"""A role that may not write: the daemon ends at once with the statement that mends it, as commands do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.fake_esi import FakeEsi
from tests.tools.daemon import Daemon
from tests.tools.servers import Postgres

ROLE = "esid_test_narrow"
READS = f"GRANT USAGE ON SCHEMA public TO {ROLE}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}"
WRITES = f"{READS}; GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}"
#: What the role has -> what is said.
LACKING = {
    READS: "GRANT SELECT, INSERT, UPDATE, DELETE ON alliances, ",
    f"{WRITES}; REVOKE DELETE ON characters FROM {ROLE}": f"DELETE ON characters TO {ROLE}\n",
    f"{WRITES}; ALTER DATABASE {{database}} SET default_transaction_read_only = on": f"ALTER ROLE {ROLE} RESET",
}


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """An empty database, and a role that may log in and no more."""
    name = postgres.create_database()
    yield name
    postgres.drop_database(name)
    as_owner(postgres, "postgres", f"DROP ROLE IF EXISTS {ROLE}")


def as_owner(postgres: Postgres, database: str, *statements: str) -> None:
    """Run statements, each by itself, whatever the database has set for sessions."""
    connection = psycopg2.connect(postgres.url(database), options="-c default_transaction_read_only=off")
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


@pytest.mark.parametrize("lacking", LACKING)
def test_a_role_that_may_not_write_ends_a_start_with_one_line(
    lacking: str, postgres: Postgres, database: str, esi: FakeEsi, tmp_path: Path
) -> None:
    # Given a database that a daemon has used, so that a start has nothing to write
    environment = {"ESID_DATA_DIR": str(tmp_path), "ESI_BASE_URL": esi.base_url, "DATABASE_URL": postgres.url(database)}
    owners = Daemon(environment, directory=tmp_path)
    owners.ok("migrate")
    owners.start("--no-scheduler")
    assert owners.stop() == 0
    as_owner(
        postgres,
        database,
        f"DROP ROLE IF EXISTS {ROLE}",
        f"CREATE ROLE {ROLE}",
        *lacking.format(database=database).split("; "),
    )

    environment["DATABASE_URL"] += f"?options=-c%20role%3D{ROLE}"
    daemon = Daemon(environment, directory=tmp_path, is_set_up=True)
    ran = daemon.run("run", timeout_s=30)
    assert (ran.code, len(ran.err.splitlines())) == (77, 1), ran
    assert LACKING[lacking] in ran.err
    assert "work" not in daemon.run("enqueue", "alliance", "1").err
