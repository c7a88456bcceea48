"""A process dies at each point of the unit of work: the sweep repairs it, the tables end equal to the world."""

from __future__ import annotations

import random

import pytest

from esid.entities.base import IDS_PER_MESSAGE
from esid.store import migrate
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Daemon, Make
from tests.tools.stacks import Stack
from tests.tools.waiting import wait_until

#: Point -> a process passes it at least so often in the life of the small world below.
POINTS = {
    "after-receive": 6,
    "after-response": 20,
    "before-commit": 6,
    "after-commit-before-ack": 5,
    "after-ack": 3,
    "mid-follow-ups": 2,
    "in-dead-letter": 2,
}


def crash_once(make_daemon: Make, esi: FakeEsi, world: World, store: Store, point: str, n: int) -> None:
    """One life with one crash in it."""
    # Given a world with one id that ESI refuses and one that it does not know
    refused, unknown = sorted(world.corporations)[-1], sorted(world.characters)[-1]
    esi.faults.add(f"/corporations/{refused}", exact=True, status=400, no_expires=True)
    world.deleted_characters.add(unknown)
    daemon = make_daemon(hooks={"ESID_TEST_CRASH": f"{point}:{n}"})
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)

    # When a process dies at the point
    threads = 1 if point == "after-commit-before-ack" else 4
    # Without killmails there is no thread more than that.
    daemon.start("--threads", str(threads), "--actors", "alliance,corporation,character")
    wait_until(lambda: daemon.has_crashed, 30, lambda: f"a crash at {point}:{n}: {daemon.log}")

    # Then everything is done all the same, and what is dead is dead once
    checker.wait_for_drain(daemon, store, 60)
    dead = [("corporation", refused, "http_400"), ("character", unknown, "not_found")]
    checker.check(store, esi, daemon, wanted, dead=dead)
    assert daemon.log.count("daemon.child_replaced") == 1, daemon.log
    # A crash costs what was in hand, at most; what is committed is not asked again.
    assert checker.repeated(esi).total() <= (0 if threads == 1 else threads * IDS_PER_MESSAGE)
    assert daemon.stop() == 0


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.takes_turns("point")
def test_a_crash_at_any_point_loses_and_doubles_nothing(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, point: str
) -> None:
    crash_once(make_daemon, esi, world, store, point, random.SystemRandom().randint(1, POINTS[point]))


def test_a_migration_that_is_killed_is_whole_after_the_next(make_daemon: Make, main_stack: Stack) -> None:
    # Given an empty database, and a process that dies in the middle of setting it up
    dying = make_daemon(hooks={"ESID_TEST_CRASH": f"in-migration:{random.SystemRandom().randint(1, 40)}"})
    dying.spawn()
    assert dying.wait(30) == -9

    # When it is started again
    daemon: Daemon = dying.start()

    # Then the schema is whole
    store = Store(main_stack.database_url, pool_size=2)
    migrate.check(store)
    store.close()
    assert daemon.stop() == 0


def test_a_crash_point_is_out_of_reach_without_the_hooks_of_the_tests(make_daemon: Make) -> None:
    ran = make_daemon(ESID_TEST_CRASH="after-receive").run("run")
    assert ran.code == 78
    assert "unknown setting ESID_TEST_CRASH" in ran.err


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("run", range(50))
def test_the_long_sweep(make_daemon: Make, esi: FakeEsi, world: World, store: Store, point: str, run: int) -> None:
    crash_once(make_daemon, esi, world, store, point, 1 + run % POINTS[point])
