"""A clock is wrong for a while in the middle of a sync: ours, ESI's, its `Date` alone, the database's, the feed's.

When it is right again the tables equal the world within two cache times, and nobody is dead. Time goes by in leaps, of our
clock and ESI's together.
"""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from esid.entities.killmail import Killmail
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fake_esi.clock import http_date
from tests.fake_feed import FakeFeed, Publisher, generate
from tests.tools import mirror
from tests.tools.clocks import set_clock
from tests.tools.daemon import Daemon, Make
from tests.tools.discovery import reachable
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync

MINUTE_S, MONTH_S, DECADE_S = 60, 30 * 86_400, 3653 * 86_400
#: Two cache times of what is cached for a day: an hourly job runs once in a leap, whatever else was due then.
LEAPS_S = (4_000.0, 82_400.0, 4_000.0, 82_400.0)
#: How far a clock is off, in seconds; `make test` runs a few of each clock.
STEPS = {
    f"{name} {way}": sign * seconds
    for name, seconds in {"a minute": MINUTE_S, "a day": 86_400, "a month": MONTH_S, "ten years": DECADE_S}.items()
    for way, sign in {"ahead": 1, "behind": -1}.items()
}


def steps(*quick: str) -> list[Any]:
    """All of them; those that are not named here are for `make fault`."""
    return [pytest.param(by, id=name, marks=() if name in quick else pytest.mark.long) for name, by in STEPS.items()]


class Clocks:
    """Ours and ESI's go on together, in leaps; one of them is wrong now and then."""

    def __init__(self, path: Path, esi: FakeEsi) -> None:
        self._path, self._esi, self._leapt_s, self._wrong_s = path, esi, 0.0, 0.0
        self._set()

    @property
    def hooks(self) -> dict[str, str]:
        """Those of a daemon that has our clock."""
        return {"ESID_TEST_CLOCK": str(self._path)}

    def ours(self, by: float) -> None:
        """Our clock is wrong by so much."""
        self._wrong_s = by
        self._set()

    def leap(self, seconds: float) -> None:
        """So much time goes by."""
        self._esi.clock.advance(seconds)
        self._leapt_s += seconds
        self._set()

    def _set(self) -> None:
        set_clock(self._path, f"{self._leapt_s + self._wrong_s:+}")


@pytest.fixture
def world() -> World:
    """A small one."""
    return reachable(World.generate(alliances=8, corporations=80, characters=120, npc_corporations=5))


@pytest.fixture
def clocks(tmp_path: Path, esi: FakeEsi) -> Clocks:
    """All of them right."""
    return Clocks(tmp_path / "offset", esi)


@pytest.fixture
def daemon(make_daemon: Make, clocks: Clocks) -> Daemon:
    """A daemon with our clock and the usual settings but for its pace."""
    return make_daemon(hooks=clocks.hooks, ESI_MAX_RPS="60", ESID_PROCESSES="1", ESID_THREADS="4")


def begin(daemon: Daemon, esi: FakeEsi) -> None:
    """Start, and be in the middle of the first sync."""
    daemon.start()
    wait_until(lambda: esi.count() > 40, 40, lambda: daemon.log)


def differs(store: Store, world: World) -> str:
    """How tables and world differ; "" where they do not."""
    try:
        mirror.assert_equal(store, world)
    except AssertionError as error:
        return str(error)
    return ""


def assert_goes_on(daemon: Daemon, store: Store, world: World, clocks: Clocks) -> None:
    """Whatever changes now is there within two cache times; nobody is dead."""
    for number, body in enumerate(world.corporations.values()):
        body["member_count"] = 1000 + number
    for number, body in enumerate(world.characters.values()):
        body["security_status"] = number / 100
    for number, body in enumerate(world.alliances.values()):
        body["name"] = f"new {number}"
    for leap_s in LEAPS_S:
        clocks.leap(leap_s)
        with suppress(AssertionError):
            wait_until(lambda: not differs(store, world), 5)
            break
    wait_until(lambda: not differs(store, world), 30, lambda: f"{differs(store, world)}\n{daemon.log[-6000:]}")
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
    assert "Traceback" not in daemon.log
    assert daemon.stop() == 0


@pytest.mark.parametrize("by", steps("ten years ahead", "ten years behind"))
@pytest.mark.takes_turns("by")
def test_our_clock_was_wrong(daemon: Daemon, esi: FakeEsi, world: World, store: Store, clocks: Clocks, by: float) -> None:
    begin(daemon, esi)
    clocks.ours(by)
    wait_for_sync(daemon, store)
    clocks.ours(0.0)
    assert_goes_on(daemon, store, world, clocks)


@pytest.mark.parametrize("by", steps("a month behind"))
@pytest.mark.takes_turns("by")
def test_the_clock_of_esi_was_wrong(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, clocks: Clocks, by: float
) -> None:
    begin(daemon, esi)
    esi.clock.advance(by)
    wait_for_sync(daemon, store)
    esi.clock.advance(-by)
    assert_goes_on(daemon, store, world, clocks)


@pytest.mark.parametrize("by", steps("ten years ahead"))
@pytest.mark.takes_turns("by")
def test_the_date_of_esi_was_wrong(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, clocks: Clocks, by: float
) -> None:
    begin(daemon, esi)
    esi.faults.add("/", headers={"Date": http_date(int(esi.clock.now() + by))})
    wait_for_sync(daemon, store)
    esi.faults.clear()
    assert_goes_on(daemon, store, world, clocks)


def set_database_clock(store: Store, by: float) -> None:
    """PostgreSQL's clock, as all but the server itself see it."""
    store.run(lambda: store.rows("UPDATE clock.wrong SET by = %s", (by,)))


@pytest.fixture
def database_clock(store: Store) -> Store:
    """A database with a clock that can be set: its functions come before the server's."""
    name = urlsplit(store.url).path[1:]
    with store.connection():
        for sql in (
            "CREATE SCHEMA clock",
            "CREATE TABLE clock.wrong AS SELECT CAST(0 AS DOUBLE PRECISION) AS by",
            *(
                f"CREATE FUNCTION clock.{function}() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
                f"'SELECT pg_catalog.{function}() + by * INTERVAL ''1 second'' FROM clock.wrong'"
                for function in ("clock_timestamp", "now", "statement_timestamp", "transaction_timestamp")
            ),
            f'ALTER DATABASE "{name}" SET search_path = public, clock, pg_catalog',
        ):
            store.rows(sql)
    return store


@pytest.mark.parametrize("main_stack", STACKS[1:], indirect=True)
@pytest.mark.parametrize("by", steps("ten years behind"))
@pytest.mark.takes_turns("by")
def test_the_clock_of_the_database_was_wrong(
    daemon: Daemon, esi: FakeEsi, world: World, database_clock: Store, clocks: Clocks, by: float
) -> None:
    begin(daemon, esi)
    set_database_clock(database_clock, by)
    wait_for_sync(daemon, database_clock)
    set_database_clock(database_clock, 0.0)
    assert_goes_on(daemon, database_clock, world, clocks)


@pytest.mark.parametrize("by", steps("a month ahead"))
@pytest.mark.takes_turns("by")
def test_the_times_of_the_feed_were_wrong(make_daemon: Make, store: Store, clocks: Clocks, by: int) -> None:
    mails = generate(130_000_001, 24, dt.date(2026, 11, 24))
    with FakeFeed(Publisher()) as feed:
        daemon = make_daemon(hooks=clocks.hooks, WORKER_TYPES="KILLMAIL", ESID_SCHEDULE_HEAL="off", **feed.settings)
        daemon.start(until="feed.reading")

        def right() -> bool:
            wanted = {
                one.id: mirror.killmail(one.id, one.hash, one.body) | feed.publisher.values[one.id]
                for one in mails
                if one.id in feed.publisher.values
            }
            return mirror.table(store, Killmail) == wanted

        # Given killmails from before, whose values are worked out anew by the wrong clock, and such as are new by then
        for mail in mails[:8]:
            feed.publisher.publish(mail)
        wait_until(right, 30, lambda: daemon.log)
        feed.publisher.set_clock(by)
        for mail in mails[:4]:
            feed.publisher.reissue(mail)
        for mail in mails[8:24]:
            feed.publisher.publish(mail)
        wait_until(lambda: mails[23].id in mirror.table(store, Killmail), 30, lambda: daemon.log)

        # When it is right again, and values are worked out anew a little later
        feed.publisher.set_clock(90 - by)
        for mail in mails[2:16]:
            feed.publisher.reissue(mail)
        for mail in mails[:2]:
            feed.publisher.publish(mail)

        # Then the newest values stand, and what nobody has told of since is as it was told
        wait_until(right, 30, lambda: daemon.log)
        assert json.loads(daemon.ok("dead", "list", "--json")) == []
        assert "Traceback" not in daemon.log
        assert daemon.stop() == 0
