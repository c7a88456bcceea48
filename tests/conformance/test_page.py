"""The page on both databases: its time, what it escapes, and what it says when something is wrong."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid import clock
from esid.esi.budget import Budget, Limits
from esid.queue.broker import open_broker
from esid.status import history, timetable
from esid.store import counters, ledger, messages, migrate, processes, samples, ticks
from esid.store.connection import Store
from esid.store.model import Seen, utc_text
from esid.web import page, view
from esid.web.view import View

#: Seconds in which the page is there with 100,000 rows in the ledger.
PAGE_S = 0.2
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def look(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """What a status server shows of an empty database, collected anew each time."""
    monkeypatch.setattr(view, "KEPT_S", 0.0)
    budget = Budget(tmp_path / "budget", Limits())
    yield View(store, open_broker(store, "", "test"), budget, {"sweep": "1m"}, "here", "here, prefix test")
    budget.close()


def fill(store: Store, count: int) -> None:
    """So many characters in the ledger, and an hour of samples."""
    stamp, later = "2026-11-25 12:00:00.000000+00:00", "2099-01-01 00:00:00.000000+00:00"
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "checked_at", "changed_at",
        "expires_at",
    )  # fmt: skip
    rows = [("character", 91_000_000 + n, "completed", 0, *[stamp] * 4, later) for n in range(count)]
    store.run(lambda: store.insert("sync_jobs", columns, rows))
    with store.connection():
        if not store.is_sqlite:
            store.rows("ANALYZE sync_jobs")


def test_the_page_takes_little_time_with_100_000_ledger_rows(look: View, store: Store) -> None:
    fill(store, 100_000)
    _, text = page.render(look)
    assert "100,000" in text
    assert ("NPC corporation list" in text, "npccorps" in text) == (True, False)
    # The machine may be busy with other tests, and not all of the time
    assert any(rendered_in_time(look) for _ in range(60))


def rendered_in_time(look: View) -> bool:
    """Whether one page took little time."""
    started = time.monotonic()
    page.render(look)
    return time.monotonic() - started < PAGE_S


def test_what_comes_from_outside_is_escaped(look: View, store: Store) -> None:
    stamp = "2026-01-01 00:00:00.000000+00:00"
    columns = ("entity_type", "field", "count", "first_at", "last_at")
    store.run(lambda: store.insert("unknown_fields", columns, [("alliance", EVIL, 1, stamp, stamp)]))
    ticks.claim(store, "sweep", clock.now())
    ticks.end(store, "sweep", ticks.newest_runs(store)["sweep"].due_at, "failed", EVIL)
    processes.beat(store, EVIL, "worker", {"doing": [{"entity": EVIL, "id": 1, "ids": 1, "for_s": 1.0}], "up_s": 1})
    _, text = page.render(look)
    assert text.count("&lt;script&gt;") >= 4
    assert "<script>alert" not in text


def test_one_look_tells_whether_all_is_well(look: View, store: Store) -> None:
    assert "No worker was heard of" in page.render(look)[1]
    worker = {"doing": [], "up_s": 1, "entities": ["alliance"], "queue": "here, prefix test"}
    processes.beat(store, "here:1", "worker", worker)
    assert "No process schedules syncs" in page.render(look)[1]
    scheduler = {"doing": [], "up_s": 1, "jobs": {"sweep": "1m", "sync_alliance": "10m"}}
    processes.beat(store, "here:2", "scheduler", scheduler)
    status, text = page.render(look)
    assert (status, "All is well." in text) == (200, True)

    # A message that nobody consumes, a job without one, a worker on another queue, a tick that was not run
    messages.put(store, [("test.character", 0, "{}", 0.0)])
    assert "1 message waits in the character queue, and no worker works on it" in page.render(look)[1]
    messages.clear(store, "test.character")
    ledger.request(store, [Seen("alliance", 99_000_001)])
    ledger.queued(store, "alliance", [99_000_001], clock.now())
    assert "All is well." in page.render(look)[1]
    real = clock.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: real() + dt.timedelta(minutes=2))
        processes.beat(store, "here:1", "worker", worker)
        processes.beat(
            store, "here:2", "scheduler", {"doing": [], "up_s": 1, "jobs": {"sweep": "1m", "sync_alliance": "10m"}}
        )
        assert "Jobs of the alliance queue wait without a message" in page.render(look)[1]
        processes.beat(store, "here:1", "worker", worker | {"held": {"test.alliance": 1}})
        assert "All is well." in page.render(look)[1]
        processes.beat(store, "here:1", "worker", worker | {"held": {"test.alliance": 1}, "queue": "elsewhere"})
        assert "consume another queue than these settings name: elsewhere" in page.render(look)[1]
    processes.beat(store, "here:1", "worker", worker | {"held": {"test.alliance": 1}})
    processes.beat(store, "here:2", "scheduler", scheduler | {"up_s": 600})
    ticks.claim(store, "sweep", clock.now() - dt.timedelta(minutes=9))
    ticks.end(store, "sweep", ticks.newest_runs(store)["sweep"].due_at, "done", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timetable, "LATE_S", -1.0)
        store.run(
            lambda: store.rows(
                "UPDATE ticks SET ran_at = %s, ended_at = %s", (utc_text(clock.now() - dt.timedelta(minutes=9)),) * 2
            )
        )
        assert "sweep was due" in page.render(look)[1]
    now = clock.now()
    ticks.claim(store, "sweep", now)
    ticks.end(store, "sweep", now, "failed", "no luck today")
    assert "no luck today" in page.render(look)[1]
    with store.connection():
        store.rows("DROP TABLE sync_jobs")
    status, text = page.render(look)
    assert (status, "Not well." in text) == (503, True)
    migrate.current(store)


def test_with_a_newer_schema_it_is_not_ready(look: View, store: Store) -> None:
    store.change("INSERT INTO schema_migrations (number, name, applied_at) VALUES (9999, 'x', '2026-01-01')", ())
    assert "newer than this program" in look.unready()


def test_a_daemon_that_has_just_begun_or_ended_is_no_trouble(
    look: View, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a message, and the worker of a daemon that was killed, which worked on something else
    messages.put(store, [("test.character", 0, "{}", 0.0)])
    killed = {"doing": [], "up_s": 90, "entities": ["alliance"], "queue": "here, prefix test"}
    processes.beat(store, "here:1", "worker", killed)
    assert len(look.state()["trouble"]) == 2
    # When a daemon begins
    real = clock.now
    processes.begin(store)
    assert look.state()["trouble"] == []
    # Then there is a minute without a complaint, also where it begins again and again
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=59))
    processes.begin(store)
    processes.beat(store, "here:1", "worker", killed)
    assert look.state()["trouble"] == []
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=61))
    assert len(look.state()["trouble"]) == 2
    # And one after it was stopped, but what takes for ever is said
    processes.leave(store, "here:1")
    assert look.state()["trouble"] == []
    processes.beat(store, "here:1", "worker", killed | {"doing": [{"entity": "alliance", "id": 1, "ids": 1, "for_s": 700}]})
    assert "one piece of work" in "".join(look.state()["trouble"])
    # Also where it ends again and again
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=120))
    processes.leave(store, "here:1")
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=122))
    assert look.state()["trouble"] == ["No worker was heard of in the last 30 s: is esid run running?"]


def test_rates_come_from_samples_and_counts(look: View, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, real = look.sources, clock.now
    counters.add(store, {"ids:alliance:done": 100.0, "ids:alliance:failed": 5.0, "duration:alliance:0.1": 3.0})
    counters.add(store, {"ids:alliance:done": 20.0})
    assert counters.values(store)["ids:alliance:done"] == 120
    for minutes, more in ((60, 0), (15, 600), (2, 60)):
        monkeypatch.setattr(clock, "now", lambda minutes=minutes: real() - dt.timedelta(minutes=minutes))
        counters.add(store, {"ids:character:done": float(more)})
        history.sample(store, sources.broker, sources.budget)
        samples.add(store, {"done": -1})
    monkeypatch.setattr(clock, "now", real)
    counters.add(store, {"ids:character:done": 180.0})
    # A sample stands for its whole minute: 180 in 2 to 3 minutes, 240 in 15 to 16, 840 in 60 to 61
    rows = {row["minutes"]: row["ids_per_s"] for row in look.state()["throughput"]}
    assert 1.0 <= rows[1] <= 1.5
    assert rows[15] == pytest.approx(240 / 930, rel=0.1)
    assert rows[60] == pytest.approx(840 / 3630, rel=0.1)
    points = history.series(samples.last(store, 4500.0))
    assert [round(value * 60 * 13) for _, value in points["done a second"]] == [round(600 / 45 * 13), 60]
    assert samples.prune(store) == 0
