"""A filled database of each schema that there ever was migrates to the newest, and every row of it is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esid.store import migrate
from esid.store.connection import Store
from tests.tools import filled

NEWEST = migrate.known()[-1][0]
#: Rows of each table, and those that are put beside them when it is migrated.
ROWS, MORE = range(250), range(250, 260)
Content = dict[str, list[dict[str, Any]]]


# -- what a migration makes of the rows that it finds. All else stays as it is, and a column without a rule is NULL.


def _forget_when_killmails_were_checked(found: Content) -> None:
    """0003: of a killmail `checked_at` is the time that zKillboard's values speak of; ESI says nothing of them."""
    for job in found["sync_jobs"]:
        if job["entity_type"] == "killmail":
            job["checked_at"] = None


def _end_all_ticks(found: Content) -> None:
    """0005: what came of a tick was not noted; it is taken for done when it began."""
    for tick in found.get("ticks", []):
        tick |= {"ended_at": tick["ran_at"], "result": "done"}


def _part_expiry_and_schedule(found: Content) -> None:
    """0008: `expires_at` has told when the schedule asks next. Of a failed id it has told nothing else."""
    for job in found["sync_jobs"]:
        if job["status"] == "completed":
            job["next_at"] = job["expires_at"]
            if job["entity_type"] == "character":
                job["refresh_at"] = job["checked_at"]
        if job["status"] == "failed":
            job["next_at"] = job["updated_at"] if job["expires_at"] is None else job["expires_at"]
            job["expires_at"] = None


def _count_each_letter_once(found: Content) -> None:
    """0009: each letter was about one message."""
    for letter in found["dead_letters"]:
        letter["count"] = 1


#: Number of the migration -> its rule.
RULES: dict[int, Callable[[Content], None]] = {
    3: _forget_when_killmails_were_checked,
    5: _end_all_ticks,
    8: _part_expiry_and_schedule,
    9: _count_each_letter_once,
}


@pytest.fixture
def empty(database_url: str) -> Iterator[Store]:
    """A database with nothing in it."""
    store = Store(database_url, pool_size=2)
    yield store
    store.close()


@pytest.mark.parametrize("number", range(1, NEWEST + 1))
def test_every_row_of_an_older_schema_is_there_after_the_migration(
    empty: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _filled(empty, number, monkeypatch)
    found, booked = filled.content(store), _book(store)

    assert len(migrate.migrate(store)) == NEWEST - number

    for later in range(number + 1, NEWEST + 1):
        RULES.get(later, lambda _: None)(found)
    after = filled.content(store)
    assert _differences(store, found, after) == []
    assert _book(store)[: len(booked)] == booked
    # And every table takes rows of today beside them
    filled.fill(store, MORE)
    assert {table: len(rows) + len(MORE) for table, rows in after.items()} == {
        table: len(rows) for table, rows in filled.content(store).items()
    }


@pytest.mark.parametrize("number", range(1, NEWEST))
def test_a_migration_that_fails_at_its_end_has_touched_no_row(
    empty: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _filled(empty, number, monkeypatch)
    before, booked = filled.content(store), _book(store)
    broken = [(later, name, f"{sql};\nSELECT * FROM nowhere") for later, name, sql in migrate.known()]
    monkeypatch.setattr(migrate, "known", lambda: broken)
    with pytest.raises(Exception, match="nowhere"):
        migrate.migrate(store)
    assert (filled.content(store), _book(store)) == (before, booked)


def _filled(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A database of this schema with rows in every table."""
    known = migrate.known()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "known", lambda: known[:number])
        migrate.migrate(store)
    filled.fill(store, ROWS)
    return store


def _book(store: Store) -> list[Any]:
    with store.connection():
        return store.rows("SELECT number, name, applied_at FROM schema_migrations ORDER BY number")


def _differences(store: Store, wanted: Content, found: Content) -> list[str]:
    """The first rows that are not as they are to be, in words."""
    words = [f"{table}: there before, not after" for table in wanted.keys() - found.keys()]
    for table, rows in found.items():
        names = filled.key(store, table)
        columns = filled.columns(store, table)
        expected = {_key(row, names): dict.fromkeys(columns) | row for row in wanted.get(table, [])}
        there = {_key(row, names): row for row in rows}
        words += [f"{table}: {key} is gone" for key in expected.keys() - there.keys()]
        words += [f"{table}: {key} is new" for key in there.keys() - expected.keys()]
        for key in expected.keys() & there.keys():
            words += [
                f"{table}: {key} {name}: {expected[key].get(name)!r} is to be, {there[key].get(name)!r} is"
                for name in expected[key].keys() | there[key].keys()
                # A number must not become a text that looks like it, nor a zero a false.
                if repr(expected[key].get(name, "no column")) != repr(there[key].get(name, "no column"))
            ]
    return words[:10]


def _key(row: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
