"""Two containers of one host name with one data directory: they spend one budget, and one of them reads the feed and owns
the schedule."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from esid.store import cursors
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fake_feed import FakeFeed, Publisher, generate
from tests.tools.daemon import Daemon
from tests.tools.namespaces import IN_A_NAMESPACE, as_root
from tests.tools.schedules import OWNS
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

DAY = dt.date(2026, 11, 24)
MOST_IN_FLIGHT, MOST_RPS = 6, 20
#: Seconds that an answer takes where the requests in flight bind, and where the pace does; requests to look at of each.
SLOW_S, QUICK_S, REQUESTS = 0.5, 0.02, 60
#: Has a container number its processes from there on, so that the other one has none of these numbers.
HIGH_PIDS = ("sh", "-c", 'echo 20000 > /proc/sys/kernel/ns_last_pid; exec "$@"', "sh")


@pytest.fixture
def world() -> World:
    """Work for longer than the test lasts."""
    return World.generate(alliances=3, corporations=1500, characters=10)


@pytest.fixture
def containers(main_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Two daemons that see each other's files and not each other's processes."""
    with FakeFeed(Publisher()) as feed, ExitStack() as stack:
        for mail in generate(130_000_001, 3, DAY):
            feed.publisher.publish(mail)
        limits = {"ESI_MAX_IN_FLIGHT": str(MOST_IN_FLIGHT), "ESI_MAX_RPS": str(MOST_RPS), "ESID_THREADS": "8"}
        common = {**main_stack.environment(tmp_path / "data"), **feed.settings, "ESID_SCHEDULE_HEAL": "off"}
        settings = {**common, "ESI_BASE_URL": esi.base_url, **limits}
        made = [Daemon(settings, inside=(*IN_A_NAMESPACE, *more)) for more in (HIGH_PIDS, ())]
        for daemon in made:
            stack.callback(daemon.end)
        yield made


def together(starts: list[float], lasting_s: float) -> int:
    """The most that were on their way at the same time, of those that began then and lasted so long at least."""
    return max(sum(start <= at < start + lasting_s for start in starts) for at in starts)


@as_root
@pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
def test_two_containers_spend_one_budget_and_one_of_them_leads(
    containers: list[Daemon], esi: FakeEsi, world: World, main_stack: Stack
) -> None:
    # Given both at work, and an ESI that is so slow that the requests in flight bind
    esi.latency_s = SLOW_S
    containers[0].ok("enqueue", "corporation", *map(str, world.corporations))
    containers[0].start(until="feed.reading")
    containers[1].start()
    store = Store(main_stack.database_url, pool_size=2)
    readers, owned = set[str](), set[int]()

    def have_come(count: int) -> bool:
        """Whether so many requests have arrived; notes who leads meanwhile."""
        readers.update(str(state["reader"]) for state in cursors.states(store) if state["reader"])
        with store.connection():
            owned.add(int(store.rows(f"SELECT COUNT(DISTINCT pid) FROM pg_locks WHERE {OWNS}")[0][0]))
        return len(esi.log) >= count

    wait_until(lambda: have_come(REQUESTS), 30, lambda: "".join(daemon.log for daemon in containers))
    slow = sorted(request.at for request in list(esi.log))

    # When it is quick, so that the pace binds
    esi.latency_s = QUICK_S
    wait_until(lambda: have_come(len(slow) + REQUESTS), 30, lambda: "".join(daemon.log for daemon in containers))
    quick = sorted(request.at for request in list(esi.log))[len(slow) :]
    store.close()

    # Then together they keep both limits, and use them
    assert MOST_IN_FLIGHT - 2 <= together(slow, SLOW_S) <= MOST_IN_FLIGHT
    assert MOST_RPS / 2 <= together(quick, 1.0) <= 1.1 * MOST_RPS

    # And one of them, the same all the time, reads the feed; one owns the schedule
    assert len(readers) == 1
    assert sum("feed.reading" in daemon.log for daemon in containers) == 1
    assert sum("feed.standby" in daemon.log for daemon in containers) == 1
    assert owned <= {0, 1}
    assert sum(daemon.log.count("schedule.owned") for daemon in containers) == 1
    assert all("Traceback" not in daemon.log for daemon in containers)
