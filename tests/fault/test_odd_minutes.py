"""For a while everything answers something odd. Afterwards the tables equal the world, without a hand or a letter."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault.odd import ODD
from tests.tools import mirror
from tests.tools.aging import DAY_S, age
from tests.tools.daemon import Daemon, Make
from tests.tools.discovery import reachable
from tests.tools.ports import free_ports
from tests.tools.status_server import ready
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync

#: Seconds that it lasts, and that it lasts in `make fault` for some; ESID_TEST_ODD_S says it of all of them.
SHORT_S, LONG_S = 12.0, 90.0
QUICK = ("an error as a 200", "another shape", "403 in HTML", "404")
#: What proxies, gateways and bans have answered for minutes: these last for long, too, and on both stacks.
LASTING = ("an error as a 200", "another shape", "302", "403 in HTML", "404", "500", "503 in HTML", "no answer")


def odd_minutes() -> list[Any]:
    """Each kind and how long it lasts; `make test` runs a few of the short ones."""
    wanted = os.environ.get("ESID_TEST_ODD_S")
    short = [(name, float(wanted or SHORT_S), () if name in QUICK else (pytest.mark.long,)) for name in ODD]
    lasting = [(name, LONG_S, (pytest.mark.long, pytest.mark.timeout(500))) for name in LASTING if not wanted]
    return [pytest.param(name, odd_s, marks=marks, id=f"{name}, {odd_s:.0f} s") for name, odd_s, marks in short + lasting]


@pytest.fixture
def world() -> World:
    """A small one."""
    return reachable(World.generate(alliances=8, corporations=80, characters=120, npc_corporations=5))


@pytest.fixture
def port() -> int:
    """Where the status server listens."""
    return free_ports(1)[0]


@pytest.fixture
def daemon(make_daemon: Make, port: int) -> Daemon:
    """A daemon with few threads and the usual pace: what is on its way when all begins is soon in."""
    pace = {"ESI_MAX_RPS": "50", "ESID_PROCESSES": "1", "ESID_THREADS": "4"}
    return make_daemon(ESID_HTTP_LISTEN=f"127.0.0.1:{port}", **pace)


def endure(daemon: Daemon, esi: FakeEsi, port: int, odd_s: float) -> None:
    """Let the odd minute go by, and see how it is borne."""
    begun = esi.clock.now()
    wait_until(lambda: "esi.away" in daemon.log, 30, lambda: daemon.log)
    wait_until(lambda: ready(port) == 503, 10, "that it is not ready")
    wait_until(lambda: esi.clock.now() > begun + odd_s, odd_s + 30, "the end of the odd minute")
    assert ready(port) == 503
    # A 304 has no body that could end early: it is a good answer.
    asked = [one for one in esi.log if one.at >= begun and one.status != 304]
    assert len(asked) <= 30, [(round(one.at - begun, 1), one.path) for one in asked]
    esi.faults.clear()
    wait_until(lambda: "esi.back" in daemon.log, 60, lambda: daemon.log)


def assert_healed(daemon: Daemon, store: Store, world: World, port: int) -> None:
    """All is as if it had not been."""
    wait_for_sync(daemon, store, 120)
    mirror.assert_equal(store, world)
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
    assert (daemon.log.count("esi.away"), daemon.log.count("esi.back")) == (1, 1), daemon.log
    wait_until(lambda: ready(port) == 200, 30, "readiness")


@pytest.mark.parametrize(("kind", "odd_s"), odd_minutes())
@pytest.mark.takes_turns("kind")
def test_a_mirror_is_right_again_after_an_odd_minute(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, port: int, kind: str, odd_s: float
) -> None:
    # Given a mirror whose answers are a day old, of a world that has changed
    daemon.start()
    wait_for_sync(daemon, store)
    daemon.stop()
    for number, body in enumerate(world.corporations.values()):
        body["member_count"] = 1000 + number
    for number, body in enumerate(world.characters.values()):
        body["security_status"] = number / 100
    esi.clock.advance(DAY_S)
    age(store, DAY_S)
    # When all of it is asked in a minute in which everything answers the same odd thing
    esi.faults.add("/", **ODD[kind])
    daemon.start()
    endure(daemon, esi, port, odd_s)
    # Then
    assert_healed(daemon, store, world, port)


@pytest.mark.parametrize(("kind", "odd_s"), odd_minutes())
@pytest.mark.takes_turns("kind")
def test_an_odd_minute_at_the_first_start_is_caught_up_with(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, port: int, kind: str, odd_s: float
) -> None:
    # Given a new database that fills, when the odd minute begins
    daemon.settings["ESI_MAX_RPS"] = "40"
    daemon.start()
    wait_until(lambda: esi.count() > 40, 40, lambda: daemon.log)
    esi.faults.add("/", **ODD[kind])
    endure(daemon, esi, port, odd_s)
    assert_healed(daemon, store, world, port)
