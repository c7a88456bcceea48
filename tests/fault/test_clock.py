"""Two daemons on one database while time is not what it was: frozen across ticks, or with a clock that somebody sets.

The wall clock of their processes is shifted by what a file says (esid's and APScheduler's); the monotonic one goes on.
"""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid import clock
from esid.store.connection import Store
from tests.tools.clocks import set_clock
from tests.tools.daemon import Daemon, Make
from tests.tools.schedules import runs
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
#: Seconds from one tick to the next.
EVERY_S = 2
SWEEP = {"ESID_SCHEDULE_SWEEP": f"{EVERY_S}s"}


@pytest.fixture
def offset(tmp_path: Path) -> Path:
    """Holds what the daemons' clock differs by, like `+3600`."""
    path = tmp_path / "offset"
    path.write_text("+0")
    return path


@pytest.fixture
def two(make_daemon: Make, tmp_path: Path, offset: Path) -> Iterator[list[Daemon]]:
    """Two daemons whose clock the test sets; each tick of theirs is a row of `ticks`."""
    hooks = {"ESID_TEST_CLOCK": str(offset)}
    daemons = [make_daemon(hooks=hooks, ESID_DATA_DIR=str(tmp_path / name), **SWEEP) for name in ("one", "other")]
    for daemon in daemons:
        daemon.start()
    yield daemons
    assert [daemon.stop() for daemon in daemons] == [0, 0]


def ticks_between(store: Store, begin: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """When the ticks of that time were due."""
    return [due for due, _ in runs(store, "sweep") if begin <= due < end]


def assert_regular(store: Store, daemons: list[Daemon]) -> None:
    """No tick is there twice, none beside the plan, and every one has come to its end."""
    due = [due for due, _ in runs(store, "sweep")]
    assert len(set(due)) == len(due)
    assert {(one - due[0]).total_seconds() % EVERY_S for one in due} == {0.0}
    with store.connection():
        results = store.rows("SELECT result FROM ticks WHERE name = 'sweep' AND ended_at IS NOT NULL")
    assert {result for (result,) in results} == {"done"}, [daemon.log for daemon in daemons]


def test_a_clock_that_is_set_forward_and_back_repeats_no_tick_and_silences_none(
    two: list[Daemon], store: Store, offset: Path
) -> None:
    hour, day = dt.timedelta(hours=1), dt.timedelta(days=1)
    wait_until(lambda: len(runs(store, "sweep")) >= 2, 30, lambda: two[0].log)

    # When the clock of the host is set an hour forward: what was missed runs once, and then it goes on
    set_clock(offset, "+3600")
    later = clock.now() + hour
    wait_until(lambda: len(ticks_between(store, later, later + hour)) >= 3, 30, lambda: two[0].log + two[1].log)
    assert len(ticks_between(store, clock.now() + dt.timedelta(minutes=5), later - dt.timedelta(minutes=5))) == 0
    assert any("schedule.clock_set" in daemon.log for daemon in two)

    # And when it is set back, ticks run on time again, though those of an hour later have run
    set_clock(offset, "+0")
    now = clock.now()
    wait_until(lambda: len(ticks_between(store, now, now + hour / 2)) >= 3, 30, lambda: two[0].log + two[1].log)
    set_clock(offset, "-86400")
    yesterday = clock.now() - day
    wait_until(lambda: len(ticks_between(store, yesterday, yesterday + hour)) >= 3, 30, lambda: two[0].log + two[1].log)
    assert_regular(store, two)


@pytest.mark.parametrize("frozen_s", [3.0, pytest.param(120.0, marks=[pytest.mark.long, pytest.mark.timeout(400)])])
def test_two_daemons_that_were_frozen_run_the_newest_tick_once(two: list[Daemon], store: Store, frozen_s: float) -> None:
    wait_until(lambda: len(runs(store, "sweep")) >= 2, 30, lambda: two[0].log)

    # When both stand still across ticks, as in a container that is stopped
    for daemon in two:
        daemon.signal(signal.SIGSTOP, group=True)
    frozen_at = clock.now()
    wait_until(lambda: clock.now() > frozen_at + dt.timedelta(seconds=frozen_s), frozen_s + 10, "the end of the frost")
    thawed_at = clock.now()
    for daemon in two:
        daemon.signal(signal.SIGCONT, group=True)

    # Then of the ticks meanwhile at most the newest runs, late, and the next ones on time, by one of the two
    soon = thawed_at + dt.timedelta(seconds=EVERY_S)
    wait_until(lambda: len(ticks_between(store, soon, soon + dt.timedelta(minutes=5))) >= 2, 60, lambda: two[0].log)
    assert len(ticks_between(store, frozen_at, thawed_at - dt.timedelta(seconds=0.5))) <= 1
    assert_regular(store, two)
