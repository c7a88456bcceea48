"""Several daemons behind one address: what one of them meets holds for all, also after all of them were killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon
from tests.tools.stacks import Stack, stack_of
from tests.tools.waiting import wait_until

#: Seconds that the 420 of the test lasts.
PAUSE_S = 14


@pytest.fixture
def world() -> World:
    """Work for longer than the test lasts, at its pace."""
    return World.generate(alliances=5, corporations=3000, characters=10)


@pytest.fixture
def pg_stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """PostgreSQL alone."""
    request.node.user_properties.append(("runs on", "postgresql + database queue"))
    yield from stack_of(request, "postgresql + database queue", tmp_path)


@pytest.fixture
def make(pg_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """Daemons on one database, each with files of its own, as on hosts of their own."""
    made: list[Daemon] = []

    def one(name: str) -> Daemon:
        settings = {"ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "60", "ESID_THREADS": "8"}
        made.append(Daemon({**pg_stack.environment(tmp_path / name), **settings}))
        return made[-1]

    yield one
    for daemon in made:
        daemon.end()


def test_three_daemons_keep_still_for_what_one_of_them_meets(
    make: Callable[[str], Daemon], esi: FakeEsi, world: World
) -> None:
    # Given three daemons at work
    daemons = [make(name) for name in ("one", "two", "three")]
    daemons[0].ok("enqueue", "corporation", *map(str, world.corporations))
    for daemon in daemons:
        daemon.start("--actors", "corporation", "--no-scheduler")
    begun = {}
    wait_until(lambda: begun.update(count=esi.count()) or begun["count"] > 150, 60, daemons[0].log)

    # When one of them is told that the limit is used up, by somebody else
    fault = esi.faults.add("/", times=1, status=420, headers={"X-Esi-Error-Limit-Reset": str(PAUSE_S)})
    wait_until(lambda: fault.hits == 1, 30, "the 420")
    told = esi.answers(420)[0].at

    # Then all of them are silent within a second, and stay so when all are killed and started again
    wait_until(lambda: esi.clock.now() > told + 2.0, 10, "two seconds")
    for daemon in daemons:
        daemon.signal(signal.SIGKILL, group=True)
        daemon.wait()
    for daemon in daemons:
        daemon.start("--actors", "corporation", "--no-scheduler")
    wait_until(lambda: any(one.at > told + 1.0 for one in list(esi.log)), PAUSE_S + 60, daemons[0].log)
    again = min(one.at for one in list(esi.log) if one.at > told + 1.0)
    assert again >= told + PAUSE_S

    # And together they keep the pace of one
    wait_until(lambda: sum(one.at > again + 12 for one in list(esi.log)) > 1, 60, "some more requests")
    second = [one for one in list(esi.log) if again + 11 <= one.at < again + 12]
    assert len(second) <= 66
    assert esi.count(status=420) == 1


def test_a_daemon_that_is_alone_again_takes_all_of_it(make: Callable[[str], Daemon], esi: FakeEsi, world: World) -> None:
    daemons = [make(name) for name in ("one", "two")]
    daemons[0].ok("enqueue", "corporation", *map(str, world.corporations))
    for daemon in daemons:
        daemon.start("--actors", "corporation", "--no-scheduler")
    wait_until(lambda: esi.count() > 100, 60, daemons[0].log)
    os.killpg(daemons[1].process.pid, signal.SIGKILL)  # type: ignore[union-attr]

    def rate() -> int:
        now = esi.clock.now()
        return sum(now - 2 < one.at <= now - 1 for one in list(esi.log))

    wait_until(lambda: rate() >= 50, 40, "the whole pace")
