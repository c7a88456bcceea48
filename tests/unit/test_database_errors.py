"""What an error of a driver means: one about the data of a row is booked on it, every other one holds all work."""

from __future__ import annotations

import sqlite3

import peewee
import psycopg2
import pytest

from esid import errors
from esid.store.faults import translated


def error_of(code: str | None, words: str, kind: type[peewee.PeeweeException] = peewee.OperationalError) -> Exception:
    """An error as peewee raises it."""
    cause = type("Error", (psycopg2.Error,), {"pgcode": code})(words)
    error = kind(words)
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [("22003", peewee.DataError), ("22P05", peewee.DataError), ("23505", peewee.IntegrityError),
     ("54000", peewee.OperationalError)],
)  # fmt: skip
def test_a_value_that_is_refused_is_the_fault_of_its_row(code: str, kind: type[peewee.PeeweeException]) -> None:
    # Words of a row are not taken for words of the database
    found = translated(error_of(code, "Key (name)=(Disk full, read-only, permission denied) already exists", kind), "here")
    assert type(found) is errors.DataRefused
    assert found.exit_code == 70


def test_sqlite_refuses_values_too() -> None:
    error = peewee.IntegrityError("NOT NULL constraint failed: corporations.name")
    error.__context__ = sqlite3.IntegrityError("NOT NULL constraint failed: corporations.name")
    assert type(translated(error, "sqlite:///esid.db")) is errors.DataRefused


@pytest.mark.parametrize(
    ("code", "words", "kind", "exit_code", "cure"),
    [
        ("42501", "permission denied for table corporations", errors.DatabaseForbids, 77, "GRANT"),
        ("42P01", 'relation "corporations" does not exist', errors.SchemaMismatch, 65, "esid migrate"),
        ("42703", 'column "name" does not exist', errors.SchemaMismatch, 65, "newer esid"),
        ("42883", "function json_populate_recordset does not exist", errors.SchemaMismatch, 65, "esid migrate"),
        ("25006", "cannot execute INSERT in a read-only transaction", errors.DatabaseUnavailable, 69, "make it writable"),
        ("25P02", "current transaction is aborted", errors.DatabaseHindered, 69, "server's log"),
        ("53200", "out of shared memory", errors.DatabaseHindered, 69, "server's log"),
        ("53100", "could not extend file: No space left on device", errors.DatabaseHindered, 69, "make room"),
        ("XX001", "could not read block 3", errors.DatabaseDamaged, 65, "backup"),
        ("XX002", 'index "i" contains unexpected zero page', errors.DatabaseDamaged, 65, "REINDEX"),
        ("XX000", "cache lookup failed", errors.DatabaseHindered, 69, "server's log"),
        ("42601", "syntax error at or near", errors.DatabaseHindered, 69, "server's log"),
        ("P0001", "a trigger says no", errors.DatabaseHindered, 69, "server's log"),
        ("0A000", "cannot do that", errors.DatabaseHindered, 69, "server's log"),
        ("55P03", "canceling statement due to lock timeout", errors.DatabaseHindered, 69, "pid 7 holds it"),
        ("57014", "canceling statement due to statement timeout", errors.DatabaseHindered, 69, "pid 7 holds it"),
        (None, "no such column: name", errors.SchemaMismatch, 65, "esid migrate"),
        (None, "table corporations has no column named name", errors.SchemaMismatch, 65, "esid migrate"),
        (None, "attempt to write a readonly database", errors.DatabaseForbids, 77, "owner and mode"),
        (None, "database disk image is malformed", errors.DatabaseDamaged, 65, "backup"),
        (None, "connection refused", errors.DatabaseUnavailable, 69, "is it running"),
        (None, 'database "x" does not exist', errors.DatabaseRefused, 78, "DATABASE_URL"),
    ],
)  # fmt: skip
def test_every_other_error_holds_all_work(
    code: str | None, words: str, kind: type[errors.EsidError], exit_code: int, cure: str
) -> None:
    found = translated(error_of(code, words), "here", "pid 7 holds it")
    assert type(found) is kind
    assert isinstance(found, errors.DatabaseUnavailable)
    assert found.exit_code == exit_code
    assert cure in str(found)
    assert ("is it running" in str(found)) == (words == "connection refused")
