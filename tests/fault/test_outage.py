"""ESI is away: one probe now and then, nothing counted, one line at its start and one at its end, a slow return."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.discovery import reachable
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync

#: Seconds that ESI is away: 300 by `ESID_TEST_OUTAGE_S=300 pytest tests/fault/test_outage.py`.
OUTAGE_S = float(os.environ.get("ESID_TEST_OUTAGE_S", "16"))
#: Seconds between two probes at least (`breaker.PROBE_S`), less what one of them may be longer on its way to the fake, which
#: looks at its clock on arrival: the machine is busy with other tests.
PROBE_S = 4.2


@pytest.fixture
def world() -> World:
    """Enough work for some seconds."""
    return World.generate(alliances=10, corporations=120, characters=200, npc_corporations=5)


@pytest.fixture
def daemon(main_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of two processes on the embedded default and at scale."""
    settings = {"ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "60", "ESID_PROCESSES": "2"}
    made = Daemon({**main_stack.environment(tmp_path / "data"), **settings})
    yield made
    made.end()


@pytest.fixture
def store(main_stack: Stack) -> Iterator[Store]:
    """Its database."""
    opened = Store(main_stack.database_url, pool_size=2)
    yield opened
    opened.close()


def too_close(times: list[float]) -> list[tuple[float, float]]:
    """Pairs of requests that came sooner after each other than probes may."""
    return [(one, other) for one, other in pairwise(times) if other - one < PROBE_S]


@pytest.mark.quick_on(STACKS[1])
def test_an_outage_costs_a_probe_now_and_then_and_nothing_else(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given a sync that is under way when ESI goes away altogether
    daemon.start()
    wait_until(lambda: esi.count() > 60, 40, lambda: daemon.log)
    esi.faults.add("/", html=502)
    wait_until(lambda: "esi.away" in daemon.log, 30, lambda: daemon.log)
    # Those that were on their way come in, and then there are probes only.
    begun = esi.clock.now() + 2.0
    wait_until(lambda: esi.clock.now() > begun + OUTAGE_S, OUTAGE_S + 30, "the end of the outage")
    probes = [one.at for one in list(esi.log) if one.at > begun]
    assert too_close(probes) == []
    assert OUTAGE_S / 12 <= len(probes) <= OUTAGE_S / PROBE_S + 1
    away = json.loads(daemon.ok("status", "--json"))["limits"]["breaker"]
    assert (away["state"], away["routes"]) == ("open", [])

    # When it is back
    esi.faults.clear()
    back = esi.clock.now()
    wait_until(lambda: "esi.back" in daemon.log, 60, lambda: daemon.log)
    wait_for_sync(daemon, store, 60)

    # Then everything is there, nothing was given up, and it began slowly
    mirror.assert_equal(store, reachable(world))
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
    answered = [one.at for one in esi.log if one.at > back and one.path != "/status"]
    assert sum(at < answered[0] + 1.0 for at in answered) <= 10
    assert (daemon.log.count("esi.away"), daemon.log.count("esi.back")) == (1, 1)
    assert esi.count(status=420) == 0


@pytest.mark.parametrize("main_stack", STACKS[:1], indirect=True)
def test_while_only_staff_may_log_in_nothing_but_status_is_asked(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given an ESI whose routes fail, and whose status says that the server is there for staff only
    world.status["vip"] = True
    fault = [esi.faults.add(path, status=503) for path in ("/alliances", "/corporations", "/characters", "/universe")]
    daemon.start()
    wait_until(lambda: esi.count("/status") >= 2, 60, lambda: daemon.log)
    assert json.loads(daemon.ok("status", "--json"))["limits"]["breaker"]["state"] == "vip"
    first = next(one.at for one in esi.requests("/status"))
    assert [one.path for one in esi.log if one.at > first + 0.5 and one.path != "/status"] == []

    # When everybody may again
    assert fault
    world.status["vip"] = False
    esi.faults.clear()
    wait_for_sync(daemon, store, 120)
    mirror.assert_equal(store, reachable(world))
    assert json.loads(daemon.ok("dead", "list", "--json")) == []


@pytest.mark.parametrize("main_stack", STACKS[:1], indirect=True)
def test_a_route_that_is_away_holds_its_own_work_only(daemon: Daemon, esi: FakeEsi, world: World, store: Store) -> None:
    # Given that affiliation alone is broken
    reachable(world)
    esi.faults.add("/characters/affiliation", status=502)
    key = next(iter(world.corporations))
    daemon.ok("enqueue", "character", *map(str, list(world.characters)[:60]))
    daemon.start()
    # Then the corporations are all there all the same
    wait_until(lambda: esi.count(f"/corporations/{key}") > 0, 90, lambda: daemon.log)
    esi.faults.clear()
    wait_for_sync(daemon, store, 120)
    mirror.assert_equal(store, reachable(world))
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
