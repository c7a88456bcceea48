"""Days that lack killmails are found and healed: from archives first, from ESI what no archive has."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esid.store import ledger
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fake_feed import FakeFeed, Mail, Publisher, generate
from tests.fake_feed.publisher import archive
from tests.tools.daemon import Daemon
from tests.tools.killmail_tables import assert_equal
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

TODAY = dt.datetime.now(dt.UTC).date()
DAY, OTHER, OLD = (TODAY - dt.timedelta(days=back) for back in (2, 3, 40))


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    """Three days of history; on the first of them CCP has made a killmail by hand."""
    publisher = Publisher()
    days = [generate(130_000_001, 300, DAY), generate(129_000_001, 40, OTHER), generate(120_000_001, 40, OLD)]
    days[0][7] = Mail(days[0][7].id, "CCP VERIFIED", days[0][7].body)
    for mails in days:
        publisher.add(*mails)
    with FakeFeed(publisher) as fake:
        yield fake


@pytest.fixture
def esi(feed: FakeFeed) -> Iterator[FakeEsi]:
    """An ESI that knows the killmails that are not made by hand."""
    mails = [mail for mail in feed.publisher.mails.values() if len(mail.hash) == 40]
    with FakeEsi(World(killmails={(mail.id, mail.hash): mail.body for mail in mails})) as server:
        yield server


@pytest.fixture
def esid(main_stack: Stack, feed: FakeFeed, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that works on killmails, not started."""
    settings = {**main_stack.environment(tmp_path / "data"), **feed.settings, "ESI_BASE_URL": esi.base_url}
    made = Daemon({**settings, "WORKER_TYPES": "KILLMAIL"})
    yield made
    made.end()


@pytest.fixture
def store(main_stack: Stack, esid: Daemon, feed: FakeFeed, tmp_path: Path) -> Iterator[Store]:
    """Its database, with the three days in it."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for day in (DAY, OTHER, OLD):
        (folder / f"killmails-{day}.tar.bz2").write_bytes(archive(feed.publisher.of(day)))
    esid.ok("import", "killmails", "--dir", str(folder))
    opened = Store(main_stack.database_url, pool_size=2)
    yield opened
    opened.close()


def spoil(store: Store, feed: FakeFeed) -> None:
    """Take 100 killmails of a day away, one of them by hand of CCP, and spoil 5 others, each in another way."""
    mails = feed.publisher.of(DAY)
    gone = [mail.id for mail in mails[:100]]
    crowded = [mail for mail in mails[100:] if len(mail.body["attackers"]) > 1 and mail.body["victim"].get("items")]

    def work() -> None:
        marks = ", ".join(["%s"] * len(gone))
        for table, column in (("killmails", "id"), ("attackers", "killmail_id"), ("killmail_items", "killmail_id")):
            store.rows(f"DELETE FROM {table} WHERE {column} IN ({marks})", gone)
        one, two, three, four, five = (mail.id for mail in crowded[:5])
        store.rows("DELETE FROM attackers WHERE killmail_id = %s AND seq = 0", (one,))
        store.rows("UPDATE attackers SET damage_done = 7 WHERE killmail_id = %s AND seq = 1", (two,))
        store.rows("DELETE FROM killmail_items WHERE killmail_id = %s", (three,))
        store.rows("UPDATE killmails SET solar_system_id = 1 WHERE id = %s", (four,))
        store.rows("UPDATE killmails SET hash = 'spoiled' WHERE id = %s", (five,))

    store.run(work)


def all_mails(feed: FakeFeed) -> list[Mail]:
    """Every killmail that there is."""
    return list(feed.publisher.mails.values())


def by_day(esid: Daemon) -> dict[str, dict[str, Any]]:
    """Have, expected and missing of each day in the status."""
    return {day["day"]: day for day in json.loads(esid.ok("status", "--json"))["killmail_days"]}


@pytest.mark.quick_on(STACKS[1])
def test_a_day_with_lost_and_spoiled_killmails_is_found_and_healed(
    esid: Daemon, store: Store, feed: FakeFeed, esi: FakeEsi
) -> None:
    spoil(store, feed)
    # One day is healed, from its archive, without a request to ESI
    (day,) = json.loads(esid.ok("heal", "--json"))
    assert (day["day"], day["expected"], day["fetched"], day["asked"], day["missing"]) == (str(DAY), 300, 105, 0, 0)
    assert day["have"] == 199
    assert_equal(store, all_mails(feed))
    # And nothing is left to do
    assert "no day lacks a killmail" in esid.ok("heal")
    assert esi.log == []
    assert feed.violations() == []
    status = by_day(esid)
    assert (status[str(DAY)]["have"], status[str(DAY)]["expected"], status[str(DAY)]["missing"]) == (300, 300, 0)
    assert f"  {DAY}                       300         300           0" in esid.ok("status")


@pytest.mark.quick_on(STACKS[0])
def test_the_daemon_finds_and_heals_it_by_itself(esid: Daemon, store: Store, feed: FakeFeed, esi: FakeEsi) -> None:
    spoil(store, feed)
    esid.settings["ESID_SCHEDULE_HEAL"] = "2s"
    esid.start()
    wait_until(lambda: "heal.done" in esid.log, 60, lambda: esid.log)
    assert_equal(store, all_mails(feed))
    assert "1 day lacked killmails: 105 fetched from archives, 0 asked of ESI" in esid.log
    assert [request for request in esi.log if "killmails" in request.path] == []
    assert esid.stop() == 0


@pytest.mark.quick_on(STACKS[1])
def test_what_no_archive_has_is_asked_of_esi_but_for_what_esi_cannot_know(
    esid: Daemon, store: Store, feed: FakeFeed, esi: FakeEsi
) -> None:
    # Given that neither archive has the lost killmails, and one body in EVE Ref's is spoiled
    spoil(store, feed)
    mails = feed.publisher.of(DAY)
    path = f"/killmails/{DAY:%Y}/killmails-{DAY}.tar.bz2"
    feed.publisher.spoiled[path] = archive(mails[100:])
    feed.publisher.spoiled[f"/history/raw/{DAY:%Y%m%d}.json"] = b"{}"
    ran = esid.run("heal", "--json")
    # Then the spoiled are healed from the archive, the lost are jobs, and the one by hand is named
    assert ran.code == 1
    (day,) = json.loads(ran.out)
    assert (day["fetched"], day["asked"], day["missing"]) == (5, 99, 1)
    assert f"without a hash that ESI knows, like {mails[7].id}" in " ".join(day["errors"])
    assert ledger.open_count(store, ["killmail"]) == 99
    assert by_day(esid)[str(DAY)]["missing"] == 100
    # And arrive
    esid.settings["ESID_SCHEDULE_HEAL"] = "off"
    esid.start("--no-feed")
    wait_until(lambda: ledger.open_count(store, ["killmail"]) == 0, 60, lambda: esid.log)
    assert_equal(store, [mail for mail in all_mails(feed) if mail.id != mails[7].id])
    assert len(esi.requests("/killmails")) == 99
    assert not [request for request in esi.log if str(mails[7].id) in request.path]
    assert esid.stop() == 0


@pytest.mark.quick_on(STACKS[0])
def test_older_days_are_healed_when_asked_for(esid: Daemon, store: Store, feed: FakeFeed) -> None:
    gone = [mail.id for mail in feed.publisher.of(OLD)[:5]]
    store.run(lambda: store.rows(f"DELETE FROM killmails WHERE id IN ({', '.join(['%s'] * 5)})", gone))
    assert "no day lacks a killmail" in esid.ok("heal")
    out = esid.ok("heal", "--since", str(OLD))
    assert f"{OLD}  have 35 of 40, 5 fetched from archives" in out
    assert_equal(store, all_mails(feed))


@pytest.mark.quick_on(STACKS[1])
def test_killmails_that_zkillboard_does_not_have_hide_no_missing_one(esid: Daemon, store: Store, feed: FakeFeed) -> None:
    # Given that the numbers agree although one is lost, for one is here that zKillboard lacks
    mails = feed.publisher.of(OTHER)
    ours = generate(129_500_000, 1, OTHER)
    feed.publisher.add(*ours)
    esid.ok("import", "killmails", "--from", str(OTHER), "--again")
    for mail in ours:
        del feed.publisher.mails[mail.id]
    store.run(lambda: store.rows("DELETE FROM killmails WHERE id = %s", (mails[0].id,)))
    # Then it is found all the same, and while no number moves nothing is compared again
    esid.ok("heal")
    assert_equal(store, [*all_mails(feed), *ours])
    before = feed.count("/history/2")
    esid.ok("heal")
    assert feed.count("/history/2") == before
    # When zKillboard learns of another one, the numbers agree once more
    feed.publisher.add(*generate(129_600_000, 1, OTHER))
    esid.ok("heal")
    assert_equal(store, [*all_mails(feed), *ours])


@pytest.mark.quick_on(STACKS[0])
def test_a_wrong_hash_at_zkillboard_neither_overwrites_a_right_one_nor_is_asked(
    esid: Daemon, store: Store, feed: FakeFeed, esi: FakeEsi
) -> None:
    # Given that zKillboard has another hash for two killmails; of one of them the tables have words alone
    mails = feed.publisher.of(OTHER)
    hashes = {str(mail.id): mail.hash for mail in mails} | {str(mail.id): "f" * 40 for mail in mails[:2]}
    feed.publisher.spoiled[f"/history/{OTHER:%Y%m%d}.json"] = json.dumps(hashes).encode()
    store.run(lambda: store.rows("UPDATE killmails SET hash = 'CCP VERIFIED' WHERE id = %s", (mails[1].id,)))
    # Then a hash takes the place of the words, and the other one stands
    (day,) = json.loads(esid.ok("heal", "--json"))
    assert (day["day"], day["fetched"], day["asked"], day["missing"]) == (str(OTHER), 1, 0, 0)
    assert_equal(store, all_mails(feed))
    assert ledger.open_count(store, ["killmail"]) == 0
    assert "no day lacks a killmail" in esid.ok("heal")
    assert esi.log == []


@pytest.mark.quick_on(STACKS[0])
def test_totals_that_are_away_are_said_and_cost_nothing(esid: Daemon, store: Store, feed: FakeFeed) -> None:
    spoil(store, feed)
    for command in (("heal",), ("schedule", "run", "heal")):
        feed.fail("/history/totals.json", 503)
        ran = esid.run(*command)
        assert ran.code == 69
        assert "totals of killmails by day cannot be had" in ran.err
        assert "HTTP 503" in ran.err


@pytest.mark.quick_on(STACKS[1])
def test_hashes_that_are_away_keep_no_archive_from_healing(esid: Daemon, store: Store, feed: FakeFeed) -> None:
    spoil(store, feed)
    path = f"/history/{DAY:%Y%m%d}.json"
    feed.fail(path, 503)
    ran = esid.run("heal")
    assert ran.code == 0
    assert "HTTP 503" in ran.out
    assert_equal(store, all_mails(feed))
    # And the day, whose numbers agree now, is compared once they are back
    assert "no day lacks a killmail" in esid.ok("heal")
    assert feed.count(path, 200) == 1
