"""Where a feed stands and who reads it, on both databases."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading

import pytest

from esid import clock, host
from esid.store import cursors, days
from esid.store.connection import Store
from esid.store.cursors import Cursor, LeaseLost
from esid.store.days import Reading
from tests.tools.daemon import ROOT

ME, OTHER = f"{host.me()}:a", "elsewhere:1:b"


def name_of_a_process_that_has_ended() -> str:
    """As it has called itself."""
    words = [sys.executable, "-c", "from esid import host; print(host.me())"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_one_has_the_lease_and_the_others_wait_for_its_end(store: Store) -> None:
    assert cursors.take(store, "feed", ME, 60) == Cursor(None, None)
    assert cursors.take(store, "feed", OTHER, 60) is None
    assert cursors.take(store, "feed", ME, 0) == Cursor(None, None)
    # A lease of no seconds is over.
    assert cursors.take(store, "feed", OTHER, 60) == Cursor(None, None)
    assert cursors.take(store, "feed", ME, 60) is None
    cursors.release(store, "feed", OTHER)
    assert cursors.take(store, "feed", ME, 60) is not None


def test_a_lease_of_a_process_that_has_ended_for_sure_is_taken_at_once(store: Store) -> None:
    gone = name_of_a_process_that_has_ended()
    assert cursors.take(store, "feed", gone, 60) is not None
    assert cursors.take(store, "feed", ME, 60) is not None
    # One of another host, or of another container with this host's name, may live: only the end of its lease tells.
    for elsewhere in (gone.replace(host.NAME, "elsewhere"), f"{gone.rpartition('-')[0]}-1:x", f"{host.NAME}:999999999:x"):
        cursors.take(store, "feed", ME, 0)
        assert cursors.take(store, "feed", elsewhere, 60) is not None
        assert cursors.take(store, "feed", ME, 60) is None
        cursors.release(store, "feed", elsewhere)


def test_a_lease_from_before_the_clock_was_set_back_is_over(store: Store) -> None:
    # Given a reader of another host that has died, and a database whose clock was a day ahead meanwhile
    assert cursors.take(store, "feed", OTHER, 12) is not None
    assert cursors.take(store, "feed", ME, 12) is None
    store.run(lambda: store.rows("UPDATE feed_cursors SET leased_until = leased_until + 86400"))
    assert cursors.take(store, "feed", ME, 12) is not None


def test_the_position_moves_with_its_transaction_and_under_the_lease_alone(store: Store) -> None:
    cursors.take(store, "feed", ME, 60)
    store.run(lambda: cursors.move(store, "feed", ME, "7", 60))
    found = cursors.take(store, "feed", ME, 60)
    assert found
    assert found.position == "7"
    assert found.moved_at
    assert abs((clock.now() - found.moved_at).total_seconds()) < 60
    with pytest.raises(LeaseLost):
        store.run(lambda: cursors.move(store, "feed", OTHER, "8", 60))

    def fails() -> None:
        cursors.move(store, "feed", ME, "9", 60)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.run(fails)
    (state,) = cursors.states(store)
    assert (state["name"], state["position"], state["reader"]) == ("feed", "7", ME)


def test_of_many_that_take_it_at_once_one_gets_it(store: Store) -> None:
    got: list[str] = []

    def take(name: str) -> None:
        if cursors.take(store, "feed", name, 60):
            got.append(name)

    threads = [threading.Thread(target=take, args=(f"elsewhere:{number}:x",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_how_far_an_archive_was_read_is_remembered(store: Store) -> None:
    day = dt.date(2021, 11, 29)
    assert days.reading(store, "everef", day) is None
    for how_far in (Reading("etag", 7, 6, 1), Reading("other", 9, 9, 0, finished=True)):
        store.run(lambda how_far=how_far: days.note_reading(store, "everef", day, how_far, 0))  # type: ignore[misc]
        assert days.reading(store, "everef", day) == how_far
    assert days.reading(store, "zkillboard", day) is None


def test_days_are_remembered_with_what_was_found(store: Store) -> None:
    today = clock.now().date()
    days.expect(store, {today: 5, today - dt.timedelta(days=1): 0})
    assert days.compared(store, [today])[today] == days.Compared(5, None, None)
    days.settle(store, today, 3, 2)
    days.expect(store, {today: 5})
    assert days.compared(store, [today])[today] == days.Compared(5, 3, 2)
    # What was found among five says nothing of six
    days.expect(store, {today: 6})
    assert days.compared(store, [today])[today] == days.Compared(6, 3, None)
    days.expect(store, {today: 5})
    assert days.latest(store)[0] == {"day": today.isoformat(), "have": 0, "expected": 5, "missing": 5}
