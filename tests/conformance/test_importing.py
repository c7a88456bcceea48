"""Many days over many processes: a child that dies costs its day nothing, or is named when it dies again."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from esid.clock import Stop
from esid.errors import DatabaseUnavailable, SchemaMismatch, StoreError
from esid.feeds.archives import EVEREF, Folder
from esid.feeds.day import DayImport, Report
from esid.feeds.heal import Healer
from esid.feeds.importing import Parts, Unit, run
from esid.store import days
from esid.store.connection import Store
from tests.fake_feed import generate
from tests.fake_feed.publisher import archive

#: What stands in the database when the next release has migrated it.
UPGRADE = "INSERT INTO schema_migrations (number, name, applied_at) VALUES (99, 'x', '2030-01-01 00:00:00+00:00')"
DAYS = [dt.date(2021, 11, 28) + dt.timedelta(days=number) for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three days."""
    for place, day in enumerate(DAYS):
        (tmp_path / f"killmails-{day}.tar.bz2").write_bytes(archive(generate(97_000_000 + place * 1000, 30, day)))
    return Folder(tmp_path)


def imported(store: Store, folder: Folder, deaths: Path, times: int) -> tuple[dict[dt.date, Report], int]:
    """Import all days with two processes of which the first so many kill themselves."""
    store.close()

    def archives() -> Folder:
        number = len(list(deaths.iterdir()))
        if number < times:
            (deaths / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return folder

    reports: list[Report] = []
    told: list[int] = []
    units = [Unit(EVEREF, day) for day in DAYS]
    run(Parts(lambda: Store(store.url, for_import=True), archives), units, 2, told.append, reports.append)
    return {one.day: one for one in reports}, sum(told)


@pytest.fixture
def deaths(tmp_path: Path) -> Path:
    """Where each death leaves its mark."""
    path = tmp_path / "deaths"
    path.mkdir()
    return path


def test_every_day_is_reported_and_every_killmail_told(store: Store, folder: Folder, deaths: Path) -> None:
    found, told = imported(store, folder, deaths, 0)
    assert [(found[day].new, found[day].error) for day in DAYS] == [(30, None)] * 3
    assert told == 90


def test_a_child_that_dies_is_replaced(store: Store, folder: Folder, deaths: Path) -> None:
    found, _ = imported(store, folder, deaths, 1)
    assert [found[day].error for day in DAYS] == [None] * 3
    assert [days.count(store, day) for day in DAYS] == [30, 30, 30]


def test_a_day_over_which_children_die_is_named_and_the_others_go_on(store: Store, folder: Folder, deaths: Path) -> None:
    found, _ = imported(store, folder, deaths, 6)
    assert ["died twice" in str(found[day].error) for day in DAYS] == [True] * 3


def test_a_child_imports_day_after_day(store: Store, folder: Folder, tmp_path: Path) -> None:
    store.close()
    made = tmp_path / "made"

    def archives() -> Folder:
        with made.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return folder

    reports: list[Report] = []
    parts = Parts(lambda: Store(store.url, for_import=True), archives)
    run(parts, [Unit(EVEREF, day) for day in DAYS], 1, lambda _: None, reports.append)
    assert [(one.day, one.new) for one in reports] == [(day, 30) for day in DAYS]
    assert len(made.read_text().split()) == 1


def test_a_child_that_dies_between_two_days_costs_none(store: Store, folder: Folder) -> None:
    store.close()
    reports: list[Report] = []

    def on_day(report: Report) -> None:
        if not reports:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
        reports.append(report)

    parts = Parts(lambda: Store(store.url, for_import=True), lambda: folder)
    run(parts, [Unit(EVEREF, day) for day in DAYS], 2, lambda _: None, on_day)
    assert sorted((one.day, one.error) for one in reports) == [(day, None) for day in DAYS]
    assert [days.count(store, day) for day in DAYS] == [30, 30, 30]


def test_an_import_does_not_go_on_over_a_batch_that_the_database_has_lost(
    store: Store, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database that crashes after a batch and is there again before the next; PostgreSQL has not waited for its disk
    monkeypatch.setattr("esid.feeds.day.SQLITE_BATCH", 10)
    monkeypatch.setattr("esid.feeds.day.POSTGRESQL_BATCH", 10)
    told: list[int] = []

    def forget(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            store.run(lambda: [store.rows(f"DELETE FROM {name}") for name in ("killmails", "attackers", "killmail_items")])
            store.run(lambda: store.rows("UPDATE archive_imports SET members = 10, killmails = 10"))

    day = DAYS[0]
    with pytest.raises(StoreError, match=f"has lost a part of what was imported of {day}; import again"):
        DayImport(store, folder, Stop(), forget).run(EVEREF, day)
    # When it is imported again
    assert DayImport(store, folder, Stop()).run(EVEREF, day).new == 20
    assert days.reading(store, EVEREF, day) == days.Reading(days.reading(store, EVEREF, day).fingerprint, 30, 30, 0, True)  # type: ignore[union-attr]


def test_an_import_ends_between_two_batches_when_a_newer_program_has_migrated(
    store: Store, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esid.feeds.day.SQLITE_BATCH", 10)
    monkeypatch.setattr("esid.feeds.day.POSTGRESQL_BATCH", 10)

    def upgrade(_: int) -> None:
        store.change(UPGRADE, ())

    with pytest.raises(SchemaMismatch, match="newer than this program"):
        DayImport(store, folder, Stop(), upgrade).run(EVEREF, DAYS[0])
    # And the next release goes on where it was
    assert days.count(store, DAYS[0]) == 10
    store.change("DELETE FROM schema_migrations WHERE number = 99", ())
    assert DayImport(store, folder, Stop()).run(EVEREF, DAYS[0]).new == 20


def test_healing_ends_between_two_days_when_a_newer_program_has_migrated(store: Store) -> None:
    asked: list[dt.date] = []

    class Archives(Folder):
        def totals(self, _: str = "") -> dict[dt.date, int]:
            return dict.fromkeys(DAYS, 1)

        def hashes(self, day: dt.date) -> bytes:
            asked.append(day)
            store.change(UPGRADE, ())
            return b"{}"

    healer = Healer(store, Archives(Path()), lambda _: 0, Stop())
    with pytest.raises(SchemaMismatch, match="newer than this program"):
        healer.run(DAYS[0])
    assert asked == [DAYS[-1]]


def test_two_imports_of_one_day_do_not_take_each_other_for_a_loss(store: Store) -> None:
    # Given two that have begun at the same time, of which one is ahead
    def note(members: int, begun_at: int, *, finished: bool = False) -> None:
        how_far = days.Reading("the same archive", members, members, 0, finished)
        store.run(lambda: days.note_reading(store, EVEREF, DAYS[0], how_far, begun_at))

    note(10, 0)
    note(20, 10)
    # When the other one notes its first batch
    note(10, 0)
    # Then both read on to the end
    note(30, 20)
    note(20, 10)
    note(40, 30, finished=True)
    note(30, 20)
    note(40, 30, finished=True)
    assert days.reading(store, EVEREF, DAYS[0]) == days.Reading("the same archive", 40, 40, 0, True)


def test_a_database_that_is_away_ends_the_import_with_its_words(folder: Folder) -> None:
    url = "postgresql://esid@127.0.0.1:1/esid"
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        run(Parts(lambda: Store(url, for_import=True), lambda: folder), [Unit(EVEREF, day) for day in DAYS], 2, print, print)
