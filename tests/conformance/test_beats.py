"""What a process tells of itself: whatever goes wrong is said once, and told again a little later."""

from __future__ import annotations

import logging

import pytest

from esid import log
from esid.daemon.beats import Beats
from esid.daemon.cell import Cell
from esid.daemon.child_loop import Life
from esid.store import migrate, processes
from esid.store.connection import Store


def test_a_beat_that_fails_is_said_once_and_the_next_one_comes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    failures = [2]

    def state() -> dict[str, str]:
        if failures[0]:
            failures[0] -= 1
            raise ZeroDivisionError("no")
        return {}

    beats = Beats(store, Life("worker", Cell(0)), state)
    caplog.set_level(logging.INFO)
    for _ in range(3):
        beats._beat()
    assert [record.message for record in caplog.records if "beat" in record.message] == ["daemon.beat_failed"]
    assert [one["kind"] for one in processes.living(store)] == ["worker"]


def test_a_process_tells_what_it_misses(store: Store) -> None:
    log.outage("database").down("corporations cannot be written")
    log.outage("database")._is_partial = True
    beats = Beats(store, Life("worker", Cell(0)))
    beats._beat()
    assert [one["away"] for one in processes.living(store)] == ["corporations cannot be written"]


@pytest.mark.parametrize(
    "change",
    ["", "ALTER TABLE processes RENAME COLUMN state TO words", "ALTER TABLE processes ADD COLUMN more TEXT NOT NULL"],
    ids=["as it was", "its column is another one", "it takes no row of ours"],
)
def test_a_beat_hears_that_a_newer_program_has_migrated(store: Store, change: str) -> None:
    newest, cell = migrate.known()[-1][0], Cell(0)
    beats = Beats(store, Life("worker", cell))
    assert cell.schema == 0
    beats._beat()
    assert cell.schema == newest
    store.change("DELETE FROM processes", ())
    if change:
        store.change(change, ())
    book = "INSERT INTO schema_migrations (number, name, applied_at) VALUES (%s, 'x', '2030-01-01 00:00:00+00:00')"
    store.change(book, (newest + 1,))
    beats._beat()
    assert cell.schema == newest + 1
