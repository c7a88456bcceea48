"""Several daemons on one PostgreSQL: one owns the schedule, by a lock that dies with its connection; a tick runs once."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from esid.catalogue import NAMES
from esid.schedule.plan import Planned, last_due
from esid.store import ticks
from esid.store.connection import Store
from esid.store.leader import Leadership
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Daemon, Make
from tests.tools.schedules import OWNS
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

at_scale = pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
QUEUES = ("alliance", "corporation")


def terminate_locks(store: Store) -> int:
    """End the sessions that own a schedule."""
    with store.connection():
        return len(store.rows(f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {OWNS} GROUP BY pid"))


def test_one_leads_and_another_takes_over_when_its_connection_dies(pg_store: Store) -> None:
    first, second = Leadership(pg_store, QUEUES), Leadership(pg_store, QUEUES)
    assert first.renew() == set(QUEUES)
    assert second.renew() == set()
    assert first.holds()
    assert not second.holds()

    # When the first one's connection is cut, it knows before it does anything more
    assert terminate_locks(pg_store) == 1
    wait_until(lambda: second.renew() == set(QUEUES), 10, "the second leads")
    assert not first.holds()
    assert first.renew() == set()

    second.close()
    assert first.renew() == set(QUEUES)
    first.close()


def test_daemons_for_different_entities_schedule_side_by_side(pg_store: Store) -> None:
    some, others = Leadership(pg_store, ["alliance"]), Leadership(pg_store, ["alliance", "character"])
    assert (some.renew(), others.renew()) == ({"alliance"}, {"character"})
    some.close()
    wait_until(lambda: others.renew() == {"alliance", "character"}, 5, "the rest")
    others.close()


def test_two_that_ask_at_one_moment_divide_the_queues(pg_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Leadership(pg_store, QUEUES), Leadership(pg_store, QUEUES)
    first.renew()
    ask = second._ask

    def ask_and_cut(sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first one's connection ends after the second has asked in vain for one queue."""
        answer = ask(sql, parameters)
        if answer is False:
            terminate_locks(pg_store)
            wait_until(lambda: owned(pg_store) == 0, 10, "the locks to be free")
        return answer

    monkeypatch.setattr(second, "_ask", ask_and_cut)
    assert second.renew() == {"corporation"}
    assert not first.holds()
    assert (first.renew(), second.renew()) == ({"alliance"}, {"corporation"})
    first.close()
    wait_until(lambda: second.renew() == set(QUEUES), 5, "the rest")
    second.close()


def test_a_tick_is_claimed_once(store: Store) -> None:
    now = dt.datetime.now(dt.UTC)
    assert [ticks.claim(store, "sync_alliance", now) for _ in range(3)] == [True, False, False]
    assert ticks.claim(store, "sync_corporation", now)
    assert ticks.claim(store, "sync_alliance", now + dt.timedelta(seconds=1))


@pytest.mark.parametrize(
    ("when", "due"),
    [(600.0, "2026-03-01T11:50:07"), ("17 * * * *", "2026-03-01T11:17:07"), ("0 3 * * *", "2026-03-01T03:00:07")],
)
def test_all_daemons_mean_the_same_tick(when: float | str, due: str) -> None:
    job = Planned("sync_x", when, offset_s=7.0)
    wanted = dt.datetime.fromisoformat(due).replace(tzinfo=dt.UTC)
    for now in ("2026-03-01T11:50:08", "2026-03-01T11:55:00", "2026-03-01T12:00:06"):
        assert last_due(job, dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC)) == wanted


def test_a_clock_that_is_set_back_repeats_no_tick_and_one_set_forward_skips_to_the_last(store: Store) -> None:
    job = Planned("sync_x", 600.0)
    now = dt.datetime.now(dt.UTC)
    hours = [0, 2, 0, 1, 26, 25]
    ran = [ticks.claim(store, "sync_x", last_due(job, now + dt.timedelta(hours=hour))) for hour in hours]
    assert ran == [True, True, False, True, True, True]
    assert not ticks.claim(store, "sync_x", last_due(job, now + dt.timedelta(hours=26)))


@at_scale
def test_of_two_daemons_one_schedules_and_the_other_takes_over_within_seconds(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, tmp_path: Path
) -> None:
    first = make_daemon(ESID_SCHEDULE_ALLIANCES="1s")
    second = make_daemon(ESID_SCHEDULE_ALLIANCES="1s", ESID_DATA_DIR=str(tmp_path / "second"))
    first.start()
    wait_until(lambda: "schedule.owned" in first.log, 10, "the first schedules")
    second.start()
    wait_until(lambda: "schedule.stand_by" in second.log, 10, "the second stands by")
    wanted = checker.sent(world)
    checker.enqueue(first, store, wanted)
    assert "schedule.owned" not in second.log

    # When all of the first dies at once
    os.killpg(first.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    first.wait()

    # Then the second schedules, finishes the rest, and each second had at most one tick
    wait_until(lambda: "schedule.owned" in second.log, 10, lambda: second.log)
    checker.wait_for_drain(second, store, 150)
    checker.check(store, esi, second, wanted)
    with store.connection():
        rows = store.rows("SELECT due_at FROM ticks WHERE name = 'sync_alliance' ORDER BY due_at")
    assert len(rows) == len(set(rows)) >= 1
    assert second.stop() == 0


@at_scale
def test_a_leader_that_loses_its_lock_stops_ticking_and_somebody_goes_on(
    make_daemon: Make, store: Store, tmp_path: Path
) -> None:
    daemons: list[Daemon] = [
        make_daemon().start(),
        make_daemon(ESID_DATA_DIR=str(tmp_path / "second")).start(),
    ]
    wait_until(lambda: owned(store) == QUEUES_OWNED, 10, "somebody who schedules each queue")
    for _ in range(3):
        before = losses(daemons)
        terminate_locks(store)
        wait_until(lambda before=before: losses(daemons) > before, 15, "a loss that is noticed")
        # The two may divide the queues: whoever asks first has one, and each has one owner
        wait_until(lambda: owned(store) == QUEUES_OWNED, 15, lambda: f"an owner of each queue: {owned(store)}")
    assert [daemon.stop() for daemon in daemons] == [0, 0]


#: A lock for each queue of a daemon that works on all of them.
QUEUES_OWNED = len(NAMES)


def owned(store: Store) -> int:
    """How many queues have an owner."""
    with store.connection():
        return int(store.rows(f"SELECT COUNT(*) FROM pg_locks WHERE {OWNS}")[0][0])


def losses(daemons: list[Daemon]) -> int:
    """How often a daemon has noticed that its lock was gone."""
    return sum(daemon.log.count("schedule.lost") for daemon in daemons)
