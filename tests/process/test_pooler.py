"""PostgreSQL behind a real PgBouncer: by sessions it works, and every other way ends a start with one line."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from esid.errors import DatabaseRefused, SettingsError
from esid.store import ledger, migrate
from esid.store.connection import Store, connect
from esid.store.drivers import IDLE_IN_TRANSACTION_S
from tests.fake_esi import FakeEsi
from tests.tools.daemon import Daemon
from tests.tools.servers import Postgres, PrivatePgbouncer
from tests.tools.waiting import wait_until

IGNORES = "ignore_startup_parameters = options, extra_float_digits"
OTHERS = [
    ("transaction", IGNORES),
    ("transaction", IGNORES, "server_round_robin = 1", "min_pool_size = 5"),
    ("transaction", IGNORES, "default_pool_size = 1"),
    ("statement", IGNORES),
]


@pytest.mark.parametrize("config", OTHERS)
def test_sessions_that_do_not_last_are_refused_with_the_cure(config: tuple[str, ...], postgres: Postgres) -> None:
    name = postgres.create_database()
    with PrivatePgbouncer(postgres, *config) as pooler:
        for _ in range(3):
            store = Store(pooler.url(name))
            with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{pooler.port} is a pooler .*pool_mode = session"):
                migrate.migrate(store)
            with pytest.raises(SettingsError, match="is a pooler"):
                connect(store)
            store.close()
    postgres.drop_database(name)


def test_two_sessions_that_a_pooler_hands_out_in_turns_are_refused_too(postgres: Postgres) -> None:
    # Given two of them, both open: each time that a transaction has one, the other question gets the other one
    name = postgres.create_database()
    with PrivatePgbouncer(postgres, "transaction", IGNORES, "server_round_robin = 1", "default_pool_size = 2") as pooler:
        both = [psycopg2.connect(pooler.url(name)) for _ in range(2)]
        for one in both:
            one.cursor().execute("SELECT 1")
        for one in both:
            one.rollback()
            one.close()
        with pytest.raises(SettingsError, match="is a pooler"):
            connect(Store(pooler.url(name)))
    postgres.drop_database(name)


def test_what_a_pooler_refuses_is_named(postgres: Postgres) -> None:
    with PrivatePgbouncer(postgres, "session") as pooler:
        store = Store(pooler.url("postgres"))
        with pytest.raises(DatabaseRefused, match=r"add options to its ignore_startup_parameters"):
            migrate.check(store)
        store.close()


def test_a_session_through_a_pooler_has_all_that_it_has_without_one(postgres: Postgres) -> None:
    name = postgres.create_database()
    wanted = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "timezone", "search_path")
    sql = f"SELECT {', '.join(f'current_setting({one!r})' for one in wanted)}"
    with PrivatePgbouncer(postgres, "session", IGNORES) as pooler:
        for url in (postgres.url(name), pooler.url(name)):
            store = Store(f"{url}?options=-c%20search_path%3Dmine,public%20-cstatement_timeout%3D1", statement_s=9)
            with store.connection():
                found = store.rows(sql)
            with connect(store).cursor() as cursor:
                cursor.execute(sql)
                assert cursor.fetchall() == found == [("9s", "6s", f"{IDLE_IN_TRANSACTION_S}s", "UTC", "mine,public")]
            store.close()
    postgres.drop_database(name)


def test_a_daemon_works_behind_sessions_and_ends_at_once_behind_transactions(
    postgres: Postgres, esi: FakeEsi, tmp_path: Path
) -> None:
    name = postgres.create_database()
    environment = {"ESID_DATA_DIR": str(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
    with PrivatePgbouncer(postgres, "transaction", IGNORES) as pooler:
        daemon = Daemon({**environment, "DATABASE_URL": pooler.url(name)}, directory=tmp_path, is_set_up=True)
        for command in ("run", "status"):
            ran = daemon.run(command)
            assert (ran.code, ran.err.count("is a pooler"), len(ran.err.splitlines())) == (78, 1, 1), ran
    with PrivatePgbouncer(postgres, "session", IGNORES, "default_pool_size = 60") as pooler:
        daemon = Daemon({**environment, "DATABASE_URL": pooler.url(name)}, directory=tmp_path)
        daemon.start()
        store = Store(postgres.url(name))
        wait_until(lambda: ledger.counts(store).get("alliance", {}).get("completed"), 30, lambda: daemon.log)
        assert daemon.stop() == 0
        store.close()
    postgres.drop_database(name)
