"""The daemon follows the feed: kills, an outage and a reissue later the tables hold what was published, and ESI was not
asked for a body."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esid.entities.killmail import Killmail
from esid.store import cursors
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fake_feed import FakeFeed, Mail, Publisher, generate
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.killmail_tables import assert_equal
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

DAY = dt.date(2026, 11, 24)
#: Killmails a second, and for how long; LONG_TESTS=1 plays ten minutes.
RATE, SECONDS = 20, 600 if "LONG_TESTS" in os.environ else 9


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    """The feed, by zKillboard's rules."""
    with FakeFeed(Publisher()) as fake:
        yield fake


@pytest.fixture
def esi() -> Iterator[FakeEsi]:
    """An ESI that knows nobody."""
    with FakeEsi(World()) as server:
        yield server


@pytest.fixture
def reader(main_stack: Stack, feed: FakeFeed, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that works on killmails alone: who is on them is left to another."""
    made = daemon_of(main_stack, feed, esi, tmp_path / "data")
    yield made
    made.end()


def daemon_of(stack: Stack, feed: FakeFeed, esi: FakeEsi, data_dir: Path) -> Daemon:
    """A daemon of this stack."""
    more = {"ESI_BASE_URL": esi.base_url, "WORKER_TYPES": "KILLMAIL", "ESID_SCHEDULE_HEAL": "off"}
    return Daemon({**stack.environment(data_dir), **feed.settings, **more})


@pytest.fixture
def store(main_stack: Stack, reader: Daemon) -> Iterator[Store]:
    """Its database."""
    reader.ok("migrate")
    opened = Store(main_stack.database_url, pool_size=2)
    yield opened
    opened.close()


def feed_process(daemon: Daemon) -> int:
    """The pid of the child that reads the feed."""
    pids = [pid for pid in daemon.children().values() if leases(daemon, pid)]
    return pids[0]


def leases(daemon: Daemon, pid: int) -> bool:
    """Whether this process reads the feed."""
    store = Store(daemon.settings["DATABASE_URL"], pool_size=1)
    try:
        return any(f":{pid}:" in str(state["reader"]) for state in cursors.states(store))
    finally:
        store.close()


class Playing:
    """Publishes at a rate, in a thread; every eighth killmail is reissued later, out of order."""

    def __init__(self, feed: FakeFeed, mails: list[Mail]) -> None:
        self._publisher, self._mails = feed.publisher, mails
        self._thread = threading.Thread(target=self._play)
        self._pause = threading.Event()
        self.published = 0

    def __enter__(self) -> Playing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _play(self) -> None:
        sequences: dict[int, int] = {}
        for place, mail in enumerate(self._mails):
            sequences[mail.id] = self._publisher.publish(mail)
            if place % 8 == 7:
                old = self._mails[place - 5]
                self._publisher.reissue(old, rewritten=sequences[old.id])
                self._publisher.stale(self._mails[place - 3])
            self.published = place + 1
            self._pause.wait(1 / RATE)


@pytest.mark.timeout(120 + 3 * SECONDS)
@pytest.mark.quick_on(STACKS[1])
def test_what_the_feed_published_is_in_the_tables_and_esi_was_not_asked(
    reader: Daemon, store: Store, feed: FakeFeed, esi: FakeEsi
) -> None:
    mails = generate(130_000_001, RATE * SECONDS, DAY)
    reader.start(until="feed.reading")
    with Playing(feed, mails) as playing:
        # When the child that reads is killed, the feed goes away, and the whole daemon is killed
        wait_until(lambda: playing.published > len(mails) // 5, SECONDS, "a part")
        os.kill(feed_process(reader), signal.SIGKILL)
        wait_until(lambda: playing.published > len(mails) // 2, SECONDS, "a half")
        feed.is_away = True
        wait_until(lambda: "feed.away" in reader.log, 30, lambda: reader.log)
        feed.is_away = False
        wait_until(lambda: "feed.back" in reader.log, 60, lambda: reader.log)
        wait_until(lambda: playing.published > len(mails) * 3 // 4, SECONDS, "most of it")
        reader.end()
        reader.start(until="feed.reading")
    last = str(feed.publisher.next_sequence)
    wait_until(
        lambda: cursors.states(store)[0]["position"] == last, 60 + 2 * SECONDS, "the end of the feed: " + reader.log[-2000:]
    )
    # Then the tables hold what was published, values included; nobody was impolite
    assert mirror.table(store, Killmail) == {
        one.id: mirror.killmail(one.id, one.hash, one.body) | feed.publisher.values[one.id] for one in mails
    }
    strip_values(store)
    assert_equal(store, mails)
    assert [request.path for request in esi.log if "killmail" in request.path] == []
    assert feed.violations() == []
    assert (reader.log.count("feed.away"), reader.log.count("feed.back")) == (1, 1)
    assert "Traceback" not in reader.log
    assert json.loads(reader.ok("dead", "list", "--json")) == []
    assert reader.stop() == 0


def strip_values(store: Store) -> None:
    """Forget zKillboard's values, which the archives do not tell."""
    names = ("total_value", "destroyed_value", "dropped_value", "fitted_value", "points", "npc", "solo", "awox")
    store.run(lambda: store.rows(f"UPDATE killmails SET {', '.join(f'{name} = NULL' for name in names)}"))


@pytest.mark.parametrize("stack", STACKS[1:2], indirect=True)
def test_of_two_daemons_one_reads_and_the_other_takes_over_within_seconds(
    stack: Stack, feed: FakeFeed, esi: FakeEsi, tmp_path: Path
) -> None:
    mails = generate(130_000_001, 2, DAY)
    first, second = (daemon_of(stack, feed, esi, tmp_path / name) for name in ("one", "two"))
    store = Store(stack.database_url, pool_size=2)
    try:
        first.start(until="feed.reading")
        second.start(until="feed.standby")
        feed.publisher.publish(mails[0])
        wait_until(lambda: set(mirror.table(store, Killmail)) == {mails[0].id}, 20, lambda: first.log)
        first.end()
        wait_until(lambda: "feed.reading" in second.log, 20, lambda: second.log)
        feed.publisher.publish(mails[1])
        wait_until(lambda: set(mirror.table(store, Killmail)) == {mails[0].id, mails[1].id}, 20, lambda: second.log)
        assert second.stop() == 0
    finally:
        first.end()
        second.end()
        store.close()


@pytest.mark.parametrize("arguments", [("--no-feed",), ("--actors", "alliance")], ids=str)
@pytest.mark.takes_turns("arguments")
def test_who_is_told_to_reads_no_feed(main_stack: Stack, reader: Daemon, feed: FakeFeed, arguments: tuple[str, ...]) -> None:
    before = len(feed.log)
    reader.settings["WORKER_TYPES"] = ""
    reader.start(*arguments)
    wait_until(lambda: len(reader.children()) == 2, 20, lambda: reader.log)
    assert reader.stop() == 0
    assert len(feed.log) == before


@pytest.mark.quick_on(STACKS[1])
def test_the_status_names_the_feed_and_its_reader(main_stack: Stack, reader: Daemon, store: Store, feed: FakeFeed) -> None:
    reader.start(until="feed.reading")
    wait_until(lambda: cursors.states(store)[0]["position"], 20, lambda: reader.log)
    (state,) = json.loads(reader.ok("status", "--json"))["feeds"]
    assert (state["name"], state["position"]) == ("zkillboard", str(feed.publisher.next_sequence))
    assert f"Feed zkillboard           at {state['position']}, moved" in reader.ok("status")
    assert reader.stop() == 0
    assert json.loads(reader.ok("status", "--json"))["feeds"][0]["reader"] is None


# -- links


HASH_OF_NOBODY = "0" * 40


@pytest.fixture
def asking(reader: Daemon, store: Store) -> Daemon:
    """A daemon that does not run, on an empty database."""
    return reader


def argument(store: Store, key: int) -> Any:
    """The hash in the ledger."""
    with store.connection():
        rows = store.rows("SELECT argument FROM sync_jobs WHERE entity_type = 'killmail' AND entity_id = %s", (key,))
    return rows[0][0] if rows else None


def test_a_killmail_may_be_named_by_a_link(asking: Daemon, store: Store, feed: FakeFeed) -> None:
    mails = generate(130_000_001, 6, DAY)
    feed.publisher.add(*mails)
    links = [
        f"{mails[0].id}:{mails[0].hash.upper()}",
        f"https://esi.evetech.net/killmails/{mails[1].id}/{mails[1].hash}",
        f"https://esi.evetech.net/latest/killmails/{mails[2].id}/{mails[2].hash}/?datasource=tranquility",
        f"https://zkillboard.com/kill/{mails[3].id}/",
        f"zkillboard.com/kill/{mails[4].id}",
    ]
    assert "5 queued" in asking.ok("enqueue", "killmail", *links)
    assert [argument(store, one.id) for one in mails] == [*(one.hash for one in mails[:5]), None]
    assert [one.path for one in feed.log] == [f"/api/killID/{one.id}/" for one in mails[3:5]]
    # What the ledger knows is not asked for again.
    asking.ok("enqueue", "killmail", *links)
    assert len(feed.log) == 2


@pytest.mark.parametrize(
    ("link", "code", "words"),
    [
        ("https://zkillboard.com/kill/7/", 2, "does not know killmail 7"),
        ("https://zkillboard.com/kill/8/", 2, "made by hand"),
        ("https://zkillboard.com/character/90000001/", 2, "is no link to a killmail"),
        ("https://zkillboard.com/kill/0/", 2, "is not an id"),
        (f"https://esi.evetech.net/killmails/1/{HASH_OF_NOBODY[1:]}", 2, "is no link to a killmail"),
    ],
)
@pytest.mark.takes_turns("link")
def test_a_link_that_names_no_killmail_is_refused_with_the_cure(
    asking: Daemon, feed: FakeFeed, store: Store, link: str, code: int, words: str
) -> None:
    feed.publisher.add(Mail(8, "CCP VERIFIED", generate(8, 1, DAY)[0].body))
    ran = asking.run("enqueue", "killmail", link)
    assert ran.code == code
    assert words in ran.err
    assert len([line for line in ran.err.splitlines() if line]) == 1


def test_a_zkillboard_that_does_not_answer_is_said_with_the_cure(asking: Daemon, feed: FakeFeed) -> None:
    feed.is_away = True
    ran = asking.run("enqueue", "killmail", "https://zkillboard.com/kill/7/")
    assert ran.code == 69
    assert "HTTP 503" in ran.err
    assert "ID:HASH" in ran.err
