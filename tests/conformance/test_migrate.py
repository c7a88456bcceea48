"""Schemas: an empty database is set up, an older or newer one refused, whoever asks first and however often."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from esid.entities import ENTITIES
from esid.errors import SchemaMismatch
from esid.store import migrate
from esid.store.connection import Store
from esid.store.tables import TABLES

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
