"""Stops: whatever ESI, the database or the start are doing, it ends in time and what was in hand is not counted."""

from __future__ import annotations

import os
import random
import re
import signal
import time

import pytest

from esid.daemon import supervisor
from esid.daemon.roles import worker
from esid.store import ledger
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import ROOT, Make
from tests.tools.processes import processes
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

sqlite_only = pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)


def test_each_budget_of_a_stop_is_smaller_than_the_next() -> None:
    unit = (ROOT / "contrib" / "systemd" / "esid.service").read_text(encoding="utf-8")
    systemd_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)[0])
    assert worker.CUT_S < worker.STOP_S < supervisor.STOP_S < systemd_s


@pytest.mark.parametrize("slow", [False, True], ids=["silent", "dripping"])
@pytest.mark.takes_turns("slow")
def test_a_stop_cuts_what_esi_does_not_finish_and_counts_no_attempt(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, slow: bool
) -> None:
    # Given an ESI that takes a minute, longer than a stop may
    hanging = esi.faults.add("/", **({"drip_s": 0.5} if slow else {"hang_s": 60}))
    daemon = make_daemon(hooks={"ESID_TEST_PATCH": "esid.daemon.roles.worker:CUT_S=1.0"})
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start()
    wait_until(lambda: hanging.hits >= 5, 15, "requests that hang")
    before = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert time.monotonic() - before < 15
    assert processes(daemon) == set()

    # Then no attempt was counted, and the next start does it
    retries = [ledger.job(store, entity, key)["retry_count"] for entity, ids in wanted.items() for key in ids]  # type: ignore[index]
    assert set(retries) == {0}
    esi.faults.clear()
    daemon.start()
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0


@sqlite_only
def test_running_work_ends_and_nothing_new_begins(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    # Given a daemon that ESI has told what is left of its limit, and eight messages of one id, of three seconds each
    daemon = make_daemon(ESID_THREADS="8")
    first, *keys = sorted(world.corporations)[:9]
    checker.enqueue(daemon, store, {"corporation": [first]})
    daemon.start("--no-scheduler")
    wait_until(lambda: esi.count(f"/corporations/{first}"), 15, "the first answer")
    esi.latency_s = 3.0
    for key in keys:
        checker.enqueue(daemon, store, {"corporation": [key]})
    wait_until(lambda: running(store) == 8, 15, "eight in work")
    told_at = time.time()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(30) == 0
    assert {ledger.job(store, "corporation", key)["status"] for key in keys} == {"completed"}  # type: ignore[index]
    assert [one for one in esi.log if one.at > told_at + 0.2] == []


def running(store: Store) -> int:
    """Jobs in work."""
    return sum(by.get("processing", 0) for by in ledger.counts(store).values())


def stop_while_starting(make_daemon: Make, times: int) -> None:
    """SIGTERM at random moments of the first half second."""
    seed = os.urandom(4).hex()
    dice, daemon = random.Random(seed), make_daemon()
    for _ in range(times):
        daemon.spawn()
        at = time.monotonic() + dice.uniform(0.0, 0.5)
        wait_until(lambda at=at: time.monotonic() >= at, 2, "a random moment", every_s=0.001)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) in {0, -signal.SIGTERM}, (seed, daemon.log)
        assert processes(daemon) == set(), seed
    daemon.start()
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_a_stop_in_the_first_half_second(make_daemon: Make, store: Store) -> None:
    stop_while_starting(make_daemon, 4)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_stop_in_the_first_half_second_long(make_daemon: Make, store: Store) -> None:
    stop_while_starting(make_daemon, 100)
