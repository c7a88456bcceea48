"""ESI has ids that answer 500 for days: they wait alone, and nobody else waits for them."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon, Make
from tests.tools.machine import MOOD_S
from tests.tools.waiting import wait_until


@pytest.fixture
def world() -> World:
    """Some hundred corporations, and the kinds beside them."""
    return World.generate(alliances=20, corporations=560, characters=300, npc_corporations=5)


@pytest.fixture
def daemon(make_daemon: Make) -> Daemon:
    """A daemon of two processes that asks as fast as it can, for nothing but what the test asks for."""
    kinds = ("ALLIANCES", "CORPORATIONS", "CHARACTERS", "KILLMAILS", "AFFILIATIONS")
    off = {f"ESID_SCHEDULE_{kind}": "off" for kind in kinds}
    return make_daemon(ESID_PROCESSES="2", ESID_THREADS="8", **off)


def count(store: Store, table: str, keys: set[int]) -> int:
    """How many of these rows are there."""
    with store.connection():
        return len(keys & {key for (key,) in store.rows(f"SELECT id FROM {table}")})


def took_s(daemon: Daemon, store: Store, table: str, entity: str, keys: list[int], sick: set[int]) -> float:
    """Seconds from the first request until all ids that are well are there."""
    well = set(keys) - sick
    daemon.ok("enqueue", entity, *map(str, keys))
    began = time.monotonic()
    wait_until(lambda: count(store, table, well) == len(well), 150, lambda: f"{count(store, table, well)}\n{daemon.log}")
    return time.monotonic() - began


@pytest.mark.parametrize("sick", [1, 3, 8, 40])
@pytest.mark.takes_turns("sick")
def test_nobody_waits_for_ids_that_are_sick(daemon: Daemon, esi: FakeEsi, world: World, store: Store, sick: int) -> None:
    # Given a daemon that has some of the corporations, and is asked for as many more, of which some are sick
    keys = list(world.corporations)
    parts = [keys[:100], keys[100:500], keys[500:]]
    daemon.start()
    without_s = 4 * took_s(daemon, store, "corporations", "corporation", parts[0], set())
    with store.connection():
        known = {key for (key,) in store.rows("SELECT entity_id FROM sync_jobs WHERE entity_type = 'corporation'")}
    world.sick_ids = set(random.Random(sick).sample([key for key in parts[1] if key not in known], sick))
    with_s = took_s(daemon, store, "corporations", "corporation", parts[1], world.sick_ids)
    # and, when nothing but them has been asked for a while, for more that are well
    wait_until(lambda: esi.count(status=500) >= max(6, 2 * sick), 100, lambda: daemon.log)
    then_s = took_s(daemon, store, "corporations", "corporation", parts[2], set())

    # Then those that are well take as long as ever, and nobody says that ESI is away
    assert max(with_s, then_s) < 1.1 * without_s + MOOD_S
    assert ".away" not in daemon.log
    # and those that are sick wait, each by itself
    ledger: dict[str, Any] = json.loads(daemon.ok("status", "--json"))["ledger"]["corporation"]
    assert ledger["pending"] + ledger["processing"] + ledger["failed"] >= sick
    assert esi.count(status=420) == 0
