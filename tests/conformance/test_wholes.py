"""Writing in bulk promises the same on both databases: whole things, once, beside the live flow."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import pytest

from esid import clock
from esid.entities.killmail import Attacker, Killmail, KillmailItem, rows_of
from esid.entities.killmail_body import Body, read
from esid.errors import StoreError
from esid.feeds.day import LAYOUT
from esid.queue.work import GATHERING
from esid.store import copying, dead_letters, ledger, migrate, wholes
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Done, Failure, Seen, utc_text
from esid.store.wholes import Whole, Written
from tests.fake_feed import Mail, generate
from tests.tools import mirror

DAY = dt.date(2026, 11, 24)


@pytest.fixture(params=[False, True], ids=["live", "by COPY"])
def store(request: pytest.FixtureRequest, database_url: str) -> Iterator[Store]:
    """A database with its schema, as the feed has it and as imports do."""
    opened = Store(database_url, pool_size=8, for_import=request.param)
    migrate.migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def mails() -> list[Mail]:
    """Killmails of one day."""
    return generate(130_000_001, 40, DAY)


def bodies(mails: list[Mail]) -> list[Body]:
    """Their rows."""
    return [read(mail.id, mail.hash, mail.body) for mail in mails]


def write(store: Store, mails: list[Mail], also: Any = lambda: None) -> Written:
    """Write a batch."""
    found = bodies(mails)
    batch = [Whole(one.id, one.killmail[1], (one.attackers, [one.killmail], one.items)) for one in found]
    seen = [seen for one in found for seen in one.seen()]
    return wholes.write(store, LAYOUT, batch, seen, GATHERING, also)


def finish(store: Store, mail: Mail) -> None:
    """The same killmail in live flow."""
    (body,) = bodies([mail])
    done = Done(mail.id, tuple(rows_of(body)), tuple(body.seen()), argument=mail.hash)
    ledger.finish(store, "killmail", [done], GATHERING)


def assert_stored(store: Store, mails: list[Mail]) -> None:
    """The tables hold these killmails and nothing else."""
    assert mirror.table(store, Killmail) == {one.id: mirror.killmail(one.id, one.hash, one.body) for one in mails}
    assert mirror.table(store, Attacker) == {k: v for one in mails for k, v in mirror.attackers(one.id, one.body).items()}
    assert mirror.table(store, KillmailItem) == {k: v for one in mails for k, v in mirror.items(one.id, one.body).items()}


def stamps(store: Store) -> dict[int, Any]:
    """When each killmail was made and changed."""
    with store.connection():
        return {key: times for key, *times in store.rows("SELECT id, created_at, updated_at FROM killmails")}


def test_a_batch_is_written_once_and_the_second_time_nothing_is(store: Store, mails: list[Mail]) -> None:
    written = write(store, mails)
    assert (written.new, written.repaired, written.same) == (tuple(one.id for one in mails), (), 0)
    assert_stored(store, mails)
    before = stamps(store)
    assert write(store, list(reversed(mails))) == Written((), (), len(mails))
    assert stamps(store) == before


def test_a_hash_that_esi_knows_stands_whatever_another_archive_says(store: Store, mails: list[Mail]) -> None:
    # Given an archive in which CCP has made one killmail by hand
    by_hand = Mail(mails[1].id, "CCP VERIFIED", mails[1].body)
    write(store, [mails[0], by_hand, mails[2]])
    # When another one has other hashes, and the first one comes again
    others = [Mail(mails[0].id, "f" * 40, mails[0].body), mails[1], Mail(mails[2].id, "CCP VERIFIED", mails[2].body)]
    assert write(store, others) == Written((), (mails[1].id,), 2)
    assert write(store, [mails[0], by_hand, mails[2]]) == Written((), (), 3)
    # Then hashes stand, and words alone have made room for one
    assert_stored(store, mails[:3])
    assert [ledger.job(store, "killmail", one.id)["argument"] for one in mails[:3]] == [one.hash for one in mails[:3]]  # type: ignore[index]
    # And a killmail that is spoiled is written anew with the hash that it has
    store.run(lambda: store.rows("UPDATE killmails SET solar_system_id = 1 WHERE id = %s", (mails[0].id,)))
    assert write(store, others[:1]) == Written((), (mails[0].id,), 0)
    assert_stored(store, mails[:3])


def test_the_ledger_has_a_row_for_each_that_is_never_due(store: Store, mails: list[Mail]) -> None:
    write(store, mails)
    job = ledger.job(store, "killmail", mails[0].id)
    assert job
    assert (job["status"], job["argument"], job["expires_at"], job["checked_at"]) == ("completed", mails[0].hash, None, None)
    accepted = ledger.request(store, [Seen("killmail", one.id, one.hash) for one in mails])
    assert (accepted.queued, len(accepted.fresh)) == ((), len(mails))


def test_whoever_is_on_them_becomes_known_characters_in_company(store: Store, mails: list[Mail]) -> None:
    write(store, mails)
    counts = ledger.counts(store)
    characters, corporations, _ = map(set, zip(*chain.from_iterable(body.people() for body in bodies(mails)), strict=True))
    assert counts["character"]["pending"] == len(characters - {None})
    assert counts["corporation"]["pending"] == len(corporations - {None})
    assert len(ledger.gathered(store, "character", 1000)[0]) == len(characters - {None})


SPOILING = {
    "an attacker lost": "DELETE FROM attackers WHERE killmail_id = %s AND seq = 0",
    "an attacker too many": "INSERT INTO attackers SELECT killmail_id, 9999, character_id, corporation_id, alliance_id, "
    "faction_id, ship_type_id, weapon_type_id, damage_done, final_blow, security_status FROM attackers "
    "WHERE killmail_id = %s AND seq = 0",
    "a value of an attacker": "UPDATE attackers SET damage_done = damage_done + 1 WHERE killmail_id = %s",
    "an item lost": "DELETE FROM killmail_items WHERE killmail_id = %s AND seq = 0",
    "a value of an item": "UPDATE killmail_items SET flag = flag + 1 WHERE killmail_id = %s",
    "a value": "UPDATE killmails SET solar_system_id = 1 WHERE id = %s",
    "the hash": "UPDATE killmails SET hash = 'x' WHERE id = %s",
}


@pytest.mark.parametrize("how", SPOILING)
def test_what_differs_is_written_anew_and_the_others_are_left_alone(store: Store, mails: list[Mail], how: str) -> None:
    write(store, mails)
    before = stamps(store)
    spoiled = next(one for one in mails if one.body["victim"].get("items"))
    store.run(lambda: store.rows(SPOILING[how], (spoiled.id,)))
    assert write(store, mails) == Written((), (spoiled.id,), len(mails) - 1)
    assert_stored(store, mails)
    after = stamps(store)
    assert {key for key in before if before[key] != after[key]} <= {spoiled.id}
    assert after[spoiled.id][0] == before[spoiled.id][0]


@pytest.mark.parametrize("is_known", [True, False], ids=["the ledger knows it", "the ledger has lost it"])
def test_rows_that_a_lost_killmail_left_behind_are_replaced(store: Store, mails: list[Mail], is_known: bool) -> None:
    write(store, mails)
    store.run(lambda: store.rows("DELETE FROM killmails WHERE id = %s", (mails[0].id,)))
    if not is_known:
        store.run(lambda: store.rows("DELETE FROM sync_jobs WHERE entity_id = %s", (mails[0].id,)))
    store.run(lambda: store.rows("UPDATE attackers SET damage_done = 7 WHERE killmail_id = %s", (mails[0].id,)))
    assert write(store, mails).new == (mails[0].id,)
    assert_stored(store, mails)


def test_a_dead_letter_and_a_job_are_done_with_the_killmail(store: Store, mails: list[Mail]) -> None:
    keys = [one.id for one in mails[:2]]
    ledger.request(store, [Seen("killmail", key, "f" * 40) for key in keys])
    ledger.retry(store, "killmail", {}, {keys[0]: Failure("wrong_pair", "no")})
    write(store, mails)
    assert dead_letters.find(store, Filter()) == []
    assert ledger.open_count(store, ["killmail"]) == 0
    assert {str((ledger.job(store, "killmail", one.id) or {})["argument"]) for one in mails[:2]} == {
        one.hash for one in mails[:2]
    }


def test_zkillboards_values_stay_where_an_archive_comes_after_the_feed(store: Store, mails: list[Mail]) -> None:
    (body,) = bodies(mails[:1])
    ledger.finish(store, "killmail", [Done(body.id, tuple(rows_of(body, {"total_value": 5.5, "npc": False})))])
    assert write(store, mails[:1]) == Written((), (), 1)
    store.run(lambda: store.rows("DELETE FROM attackers"))
    assert write(store, mails[:1]).repaired == (body.id,)
    row = mirror.table(store, Killmail)[body.id]
    assert (row["total_value"], row["npc"]) == (5.5, False)


def test_what_belongs_to_the_transaction_fails_with_it(store: Store, mails: list[Mail]) -> None:
    def refuse() -> None:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        write(store, mails, refuse)
    assert_stored(store, [])
    assert ledger.counts(store) == {}


def test_imports_and_live_flow_write_the_same_killmails_at_the_same_time(store: Store) -> None:
    # Given two imports and two live flows over the same killmails and the same people, in different orders
    mails = generate(130_000_001, 160, DAY, people=40)
    problems: list[BaseException] = []

    def guarded(work: Any, order: list[Mail]) -> threading.Thread:
        def run() -> None:
            try:
                work(order)
            except BaseException as error:
                problems.append(error)

        return threading.Thread(target=run)

    def in_batches(order: list[Mail]) -> None:
        for start in range(0, len(order), 20):
            write(store, order[start : start + 20])

    def one_by_one(order: list[Mail]) -> None:
        for mail in order:
            finish(store, mail)

    backwards = list(reversed(mails))
    threads = [guarded(in_batches, mails), guarded(in_batches, backwards)]
    threads += [guarded(one_by_one, backwards[:80]), guarded(one_by_one, mails[:80])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then nobody was stopped and nothing is there twice or in part
    assert problems == []
    assert_stored(store, mails)


def test_live_flow_gets_in_between_batches(store: Store) -> None:
    mails = generate(130_000_001, 1500, DAY)
    live = generate(140_000_001, 15, DAY)
    slowest = 0.0
    done = threading.Event()

    def import_all() -> None:
        for start in range(0, len(mails), 250):
            write(store, mails[start : start + 250])
        done.set()

    thread = threading.Thread(target=import_all)
    thread.start()
    for mail in live:
        started = clock.monotonic()
        finish(store, mail)
        slowest = max(slowest, clock.monotonic() - started)
    thread.join()
    # A batch holds SQLite's writer for about a tenth of a second; ten times that is a slow machine, more is a lock.
    assert slowest < 5.0
    assert len(mirror.table(store, Killmail)) == len(mails) + len(live)


@pytest.mark.parametrize(
    "texts",
    [
        [None, "CCP VERIFIED", "é", "null", "None", "", "a,b", "a],[b", "'", "[", "]"],
        ["a", 'say "x"', "a\\b", "a\tb", "a\nb", "]\n[", "\\N", "\\."],
    ],
    ids=["as they are", "to be escaped"],
)
def test_copy_writes_what_the_database_gives_back(store: Store, texts: list[str | None]) -> None:
    now = clock.now()
    rows = [("killmail", key, "completed", 0, now, now, text) for key, text in enumerate(texts, 1)]
    columns = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "argument")
    store.run(lambda: copying.copy(store, "sync_jobs", columns, rows))
    with store.connection():
        found = store.rows(f"SELECT {', '.join(columns)} FROM sync_jobs ORDER BY entity_id")
    assert found == [copying.as_stored(store, row) for row in rows]


def test_many_rows_are_written_as_few_are(store: Store) -> None:
    now = utc_text(clock.now())
    texts = [None, "é", "null", "", 'say "x"', "a\\b", "a\nb", "\U0001f680"]
    columns = ("id", "hash", "killmail_time", "solar_system_id", "victim_ship_type_id", "victim_damage_taken", "npc",
               "victim_position_x", "attacker_count", "created_at", "updated_at")  # fmt: skip
    numbers = [None, 0.1, -1.7e17, 1e-300, 5e-324, 123456789.123456789, 2.0**53 + 2, 1 / 3]

    def rows(first: int, count: int) -> list[tuple[Any, ...]]:
        return [
            (first + place, texts[place % 8] or "-", now, 2**63 - 1, 1, -(2**63), [None, True, False][place % 3],
             numbers[place % 8], 0, now, now)
            for place in range(count)
        ]  # fmt: skip

    def stored(first: int, count: int) -> list[tuple[Any, ...]]:
        names = ", ".join(columns[1:])
        return store.rows(f"SELECT {names} FROM killmails WHERE id >= %s AND id < %s ORDER BY id", (first, first + count))

    tail = "ON CONFLICT (id) DO NOTHING RETURNING id"
    # Enough for the way that PostgreSQL reads many rows, and so few that it is not taken.
    many = store.run(lambda: store.insert("killmails", columns, rows(1, 240), tail))
    parts = [rows(first, 24) for first in range(1001, 1241, 24)]
    few = [store.run(partial(store.insert, "killmails", columns, part, tail)) for part in parts]
    assert sorted(many) == [(key,) for key in range(1, 241)]
    assert sorted(row for part in few for row in part) == [(key,) for key in range(1001, 1241)]
    with store.connection():
        assert stored(1, 240) == stored(1001, 240)
        assert [row[6] for row in stored(1, 8)] == numbers
    assert store.run(lambda: store.insert("killmails", columns, rows(1, 241), tail)) == [(241,)]


def test_copy_onto_a_row_that_is_there_writes_nothing(store: Store) -> None:
    now = clock.now()
    columns = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at")
    rows = [("killmail", key, "completed", 0, now, now) for key in (1, 2)]
    store.run(lambda: copying.copy(store, "sync_jobs", columns, rows[:1]))
    with pytest.raises(StoreError):
        store.run(lambda: copying.copy(store, "sync_jobs", columns, list(reversed(rows))))
    assert ledger.counts(store) == {"killmail": {"completed": 1}}
