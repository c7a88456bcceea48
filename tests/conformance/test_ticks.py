"""Ticks on both databases: each once, with what came of it, and again where its process has died."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from esid import clock, schedule
from esid.errors import BrokerUnavailable, StoreError
from esid.store import ticks
from esid.store.connection import Store

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
    for name in ("dead", "alive", "far", "over"):
        assert ticks.claim(store, name, now)
    ticks.end(store, "over", now, "done", "")
    with store.connection():
        store.rows("UPDATE ticks SET owner = REPLACE(owner, ':', ':9') WHERE name = 'dead'")
        store.rows("UPDATE ticks SET owner = 'elsewhere:1:1' WHERE name = 'far'")
    assert ticks.interrupted(store) == ["dead"]
    assert ticks.newest_runs(store)["dead"].result == "interrupted"
    assert ticks.interrupted(store) == []


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
    assert schedule.run_now(store, "sweep", lambda: "3 found") == "3 found"
    assert ticks.newest_runs(store)["sweep"].words == "3 found"
    for error in (BrokerUnavailable("it is away"), StoreError("no")):
        with pytest.raises(type(error)):
            schedule.run_now(store, "sweep", _raiser(error))
        assert (ticks.newest_runs(store)["sweep"].result, ticks.newest_runs(store)["sweep"].words) == ("failed", str(error))


def _raiser(error: Exception) -> schedule.Work:
    def work() -> str:
        raise error

    return work
