"""Schemas: an empty database is set up, an older or newer one refused, whoever asks first and however often."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest

from esid import clock
from esid.entities import ENTITIES
from esid.entities.cadence import rhythm
from esid.entities.corporation import CORPORATION
from esid.errors import SchemaMismatch, SettingsError
from esid.store import ledger, migrate, notes
from esid.store.connection import Store
from esid.store.ledger import due
from esid.store.model import Done, Seen, utc_text, utc_time
from tests.tools.servers import Postgres
from tests.tools.tables import TABLES

MODELS = [*TABLES, *(table for entity in ENTITIES for table in entity.tables)]


ALL = [f"{number:04d}_{name}" for number, name, _ in migrate.known()]


@pytest.fixture
def empty(database_url: str) -> Any:
    """A database with nothing in it."""
    store = Store(database_url, pool_size=8)
    yield store
    store.close()


def test_an_empty_database_is_set_up_once(empty: Store) -> None:
    assert migrate.current(empty) == 0
    assert migrate.set_up(empty) == ALL
    assert migrate.set_up(empty) == []
    migrate.check(empty)


def test_an_older_schema_says_what_to_run(empty: Store) -> None:
    with pytest.raises(SchemaMismatch, match="run `esid migrate`"):
        migrate.check(empty)


def test_a_newer_schema_is_refused_and_left_alone(empty: Store) -> None:
    migrate.migrate(empty)
    sql = "INSERT INTO schema_migrations (number, name, applied_at) VALUES (99, 'future', '2030-01-01 00:00:00+00:00')"
    empty.run(lambda: empty.rows(sql))
    for refused in (migrate.check, migrate.migrate):
        with pytest.raises(SchemaMismatch, match="newer than this program"):
            refused(empty)
    assert migrate.current(empty) == 99


def test_two_at_once_migrate_once(empty: Store) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrate.migrate(empty))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for names in applied for name in names) == ALL


def test_a_migration_that_fails_leaves_nothing(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    number, name, sql = migrate.known()[0]
    monkeypatch.setattr(migrate, "known", lambda: [(number, name, sql + ";\nCREATE TABLE alliances (again TEXT);")])
    with pytest.raises(Exception, match="alliances"):
        migrate.migrate(empty)
    with empty.connection():
        assert empty.database.get_tables() == []
    monkeypatch.undo()
    assert migrate.migrate(empty) == ALL


def test_a_ledger_of_schema_7_goes_on_where_it_was(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what a release before has left: answers that are fresh and over, ids that were given up for a while and for
    # good, one that it took for fresh for 21 days, a character, a killmail, and one that is waited for
    known = migrate.known()
    monkeypatch.setattr(migrate, "known", lambda: known[:7])
    migrate.migrate(empty)
    monkeypatch.undo()
    now = clock.now()
    past, later, ahead, first = (utc_text(now + dt.timedelta(hours=hours)) for hours in (-2, 1, 21 * 24, -100 * 24))
    columns = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "expires_at", "checked_at",
               "etag", "error")  # fmt: skip
    rows = [
        ("corporation", 1, "completed", past, past, "a", None), ("corporation", 2, "completed", later, past, "b", None),
        ("corporation", 3, "failed", later, past, "c", "not_found: 404"),
        ("corporation", 4, "failed", None, past, None, "bad_body: no JSON"),
        ("corporation", 5, "completed", ahead, past, "e", None), ("corporation", 6, "pending", past, past, "f", None),
        ("character", 7, "completed", later, past, "g", None), ("killmail", 8, "completed", None, None, "h", None),
        ("corporation", 9, "failed", past, past, "i", "unavailable: 502"),
    ]  # fmt: skip
    values = [(kind, key, status, 0, first, past, *times, etag, why) for kind, key, status, *times, etag, why in rows]
    empty.run(lambda: empty.insert("sync_jobs", columns, values))

    assert migrate.migrate(empty) == ALL[7:]

    def at(key: int, entity: str = "corporation") -> tuple[str | None, ...]:
        found = ledger.job(empty, entity, key) or {}
        return tuple(utc_text(utc_time(found[name])) for name in ("expires_at", "next_at", "refresh_at"))

    assert [at(key) for key in (1, 2, 3, 4)] == [(past, past, None), (later, later, None), (None, later, None),
                                                (None, past, None)]  # fmt: skip
    assert (at(7, "character"), at(8, "killmail")) == ((later, later, past), (None, None, None))
    # Then the schedule asks for what is due, a person for what has expired, and each as before
    assert due.by_schedule(empty, "corporation", 10) == [1, 4, 9]
    assert due.to_refresh(empty, "character", 10) == [7]
    assert ledger.request(empty, [Seen("corporation", key) for key in (2, 3, 5, 6)]) == ledger.Accepted((3, 5), (6,), (2,))
    taken = ledger.take(empty, "corporation", range(1, 10))
    assert [one.id for one in taken] == [1, 3, 4, 5, 6, 9]
    done = [Done(one.id, checked_at=now, expires_at=now + dt.timedelta(hours=1)) for one in taken]
    ledger.finish(empty, "corporation", done, rhythm=rhythm(CORPORATION))
    assert due.by_schedule(empty, "corporation", 10) == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.table_name)
def test_the_tables_are_those_of_the_models(store: Store, model: Any) -> None:
    with store.connection():
        columns = {column.name: column for column in store.database.get_columns(model._meta.table_name)}
        keys = store.database.get_primary_keys(model._meta.table_name)
    fields = model._meta.fields
    assert sorted(columns) == sorted(fields)
    primary = model._meta.primary_key
    assert sorted(keys) == sorted(getattr(primary, "field_names", None) or [primary.name])
    for name, field in fields.items():
        if name not in keys:
            assert columns[name].null == field.null, name


def test_every_id_is_a_bigint(store: Store) -> None:
    if store.is_sqlite:  # every INTEGER of SQLite has 64 bits
        return
    with store.connection():
        rows = store.rows(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
            "AND (column_name = 'id' OR column_name LIKE '%%\\_id' OR column_name = 'seq')"
        )
    assert len(rows) > 30
    assert {kind for _, _, kind in rows} == {"bigint"}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_refused_with_the_commands_that_make_a_right_one(
    postgres: Postgres, encoding: str
) -> None:
    name = f"{postgres.create_database()}_{encoding.lower()}"
    postgres._client("createdb", "-T", "template0", "-E", encoding, "--locale=C", name)
    store = Store(postgres.url(name))
    for refused in (migrate.set_up, migrate.migrate, migrate.check):
        with pytest.raises(SettingsError, match=f"stores text in {encoding}, esid needs UTF8") as caught:
            refused(store)
    store.close()

    # When somebody does as it says
    create, move = str(caught.value).split("`")[1::2]
    words = create.split()
    postgres._client(words[0], *words[1:])
    assert move == f"pg_dump {name} | psql {name}_utf8"

    # Then that is a database for us
    right = Store(postgres.url(f"{name}_utf8"))
    assert migrate.set_up(right) == ALL
    right.close()
    for one in (name, f"{name}_utf8"):
        postgres.drop_database(one)


def test_the_encoding_of_the_environment_spoils_no_name(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    name = postgres.create_database()
    store = Store(postgres.url(name))
    migrate.migrate(store)
    notes.set_memo(store, "name", "Жук 漢字")
    assert notes.memo(store, "name") == "Жук 漢字"
    assert store.change("SHOW client_encoding", ()) == [("UTF8",)]
    store.close()
    postgres.drop_database(name)
