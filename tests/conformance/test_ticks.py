"""Ticks on both databases: each once, with what came of it, and again where its process has died."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from esid import clock, host
from esid.errors import BrokerUnavailable, StoreError
from esid.schedule import runner, tasks
from esid.store import notes, processes, ticks
from esid.store.connection import Store
from esid.store.drivers import LARGEST_WAL, sqlite_path
from esid.store.model import utc_text

HOUR = dt.timedelta(hours=1)


def test_what_came_of_a_tick_is_remembered(store: Store) -> None:
    now = clock.now()
    assert ticks.claim(store, "a", now - HOUR)
    assert ticks.newest_runs(store)["a"].result is None
    ticks.end(store, "a", now - HOUR, "done", "12 jobs")
    assert ticks.claim(store, "a", now)
    ticks.end(store, "a", now, "failed", "no luck")
    assert ticks.claim(store, "b", now)
    newest = ticks.newest_runs(store)
    assert [(one.name, one.result, one.words) for one in newest.values()] == [("a", "failed", "no luck"), ("b", None, None)]
    assert newest["a"].due_at == now
    assert not ticks.claim(store, "a", now)


def test_a_claim_whose_answer_was_lost_is_the_callers(store: Store, lose_an_answer: Callable[[], None]) -> None:
    now = clock.now()
    lose_an_answer()
    assert ticks.claim(store, "a", now)
    assert not ticks.claim(store, "a", now)


def test_a_tick_whose_process_died_is_run_again_and_one_that_runs_is_not(store: Store) -> None:
    now = clock.now()
    for name in ("dead", "alive", "far", "over", "hidden"):
        assert ticks.claim(store, name, now)
    ticks.end(store, "over", now, "done", "")
    # One of another PID namespace may run, whatever stands under its number here
    hidden = host.me().rpartition("-")[0].replace(f":{os.getpid()}:", ":999999999:") + "-1"
    with store.connection():
        store.rows("UPDATE ticks SET owner = REPLACE(owner, %s, ':999999999:') WHERE name = 'dead'", (f":{os.getpid()}:",))
        store.rows("UPDATE ticks SET owner = 'elsewhere:1:1' WHERE name = 'far'")
        store.rows("UPDATE ticks SET owner = %s WHERE name = 'hidden'", (hidden,))
    assert ticks.interrupted(store) == ["dead"]
    assert ticks.newest_runs(store)["dead"].result == "interrupted"
    assert ticks.interrupted(store) == []


def test_a_tick_of_a_process_elsewhere_that_has_fallen_silent_is_run_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    assert ticks.claim(store, "heal", now)
    with store.connection():
        store.rows("UPDATE ticks SET owner = 'elsewhere:1:1:kernel'")
    processes.beat(store, "elsewhere:1:1:kernel", "scheduler", {})
    assert ticks.interrupted(store) == []
    monkeypatch.setattr(clock, "now", lambda: now + dt.timedelta(seconds=ticks.SILENT_S + 5))
    assert ticks.interrupted(store) == ["heal"]


def test_a_tick_of_another_host_from_before_the_clock_was_set_back_is_interrupted(store: Store) -> None:
    now = clock.now()
    assert ticks.claim(store, "far", now)
    assert ticks.claim(store, "ahead", now)
    with store.connection():
        store.rows("UPDATE ticks SET owner = 'elsewhere:1:1:kernel'")
        store.rows("UPDATE ticks SET ran_at = %s WHERE name = 'ahead'", (utc_text(now + 24 * HOUR),))
    assert ticks.interrupted(store) == ["ahead"]


def test_who_was_heard_of_before_the_clock_was_set_back_is_not_taken_for_alive(store: Store) -> None:
    processes.beat(store, "here:1", "worker", {})
    processes.beat(store, "gone:1", "worker", {})
    with store.connection():
        ahead = utc_text(clock.now() + 24 * HOUR)
        store.rows("UPDATE processes SET beat_at = %s WHERE name = 'gone:1'", (ahead,))
    assert [one["name"] for one in processes.living(store)] == ["here:1"]
    assert processes.prune(store) == 1


def test_old_ticks_are_forgotten_but_the_newest_of_each_job(store: Store) -> None:
    now = clock.now()
    for days in (0, 1, 8, 9):
        ticks.claim(store, "often", now - dt.timedelta(days=days))
    for days in (30, 60):
        ticks.claim(store, "monthly", now - dt.timedelta(days=days))
    assert ticks.prune(store) == 3
    # A month later nobody runs the tick again that has been run
    assert not ticks.claim(store, "monthly", now - dt.timedelta(days=30))


def test_a_job_run_by_a_person_leaves_its_result(store: Store) -> None:
    assert runner.run_now(store, "sweep", lambda: "3 found") == "3 found"
    assert ticks.newest_runs(store)["sweep"].words == "3 found"
    for error in (BrokerUnavailable("it is away"), StoreError("no")):
        with pytest.raises(type(error)):
            runner.run_now(store, "sweep", _raiser(error))
        assert (ticks.newest_runs(store)["sweep"].result, ticks.newest_runs(store)["sweep"].words) == ("failed", str(error))


def _raiser(error: Exception) -> runner.Work:
    def work() -> str:
        raise error

    return work


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_wal_that_readers_let_grow_is_emptied_by_the_next_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "sweep", lambda *_: 0)
    unused: Any = None
    sweep = tasks.works(store, unused, unused)["sweep"]
    wal = Path(f"{sqlite_path(store.url)}-wal")
    with closing(sqlite3.connect(sqlite_path(store.url))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM memos").fetchone()
        for number in range(LARGEST_WAL // 500_000 + 2):
            notes.set_memo(store, str(number), "x" * 500_000)
        assert wal.stat().st_size > LARGEST_WAL
        # It does no harm where it cannot.
        sweep()
        assert wal.stat().st_size > LARGEST_WAL
    sweep()
    assert not wal.stat().st_size
