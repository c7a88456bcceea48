"""Rows are written the same way on both databases: newer wins, unchanged rows stay, absent is NULL and 0 is 0."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import threading
from typing import Any

import pytest

from esid import clock
from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.entities.killmail import Attacker, Killmail
from esid.errors import StoreError
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Done, Row, Seen
from esid.store.upsert import upsert
from tests.tools import mirror

NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
TEXTS = [
    'O\'Brien "Q"; DROP TABLE alliances;--',
    "emoji 🚀 and \u202eright to left",
    "two\nlines\r\n",
    "",
    "%s %d ? :1 {x}",
    "ß" * 500,
]


def alliance(key: int, **changes: Any) -> Row:
    """A row of `alliances`."""
    values = {
        "id": key,
        "name": "name",
        "ticker": "T",
        "date_founded": NOW,
        "creator_corporation_id": 98_000_001,
        "creator_id": 90_000_001,
        "executor_corporation_id": 98_000_001,
        "faction_id": None,
    }
    return Row(Alliance, values | changes)


def write(store: Store, *rows: Row, now: dt.datetime = NOW) -> set[Any]:
    """Upsert in a transaction of its own."""
    return store.run(lambda: upsert(store, rows, now))


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_as_it_was(store: Store, text: str) -> None:
    write(store, alliance(99_000_001, name=text))
    assert mirror.table(store, Alliance)[99_000_001]["name"] == text


def test_zero_is_a_value_and_absent_is_null(store: Store) -> None:
    write(store, Row(Character, {"id": 90_000_001, "security_status": 0.0, "description": "", "title": None}))
    row = mirror.table(store, Character)[90_000_001]
    assert (row["security_status"], row["description"], row["title"]) == (0.0, "", None)


def test_the_largest_id_fits_and_true_stays_true(store: Store) -> None:
    write(store, Row(Corporation, corporation(2**63 - 1, war_eligible=True, shares=0)))
    row = mirror.table(store, Corporation)[2**63 - 1]
    assert (row["war_eligible"], row["shares"]) == (True, 0)


def test_an_unchanged_row_is_not_rewritten(store: Store) -> None:
    later = NOW + dt.timedelta(hours=1)
    assert write(store, alliance(99_000_001), alliance(99_000_002)) == {(Alliance, (99_000_001,)), (Alliance, (99_000_002,))}
    assert write(store, alliance(99_000_001), alliance(99_000_002, ticker="NEW"), now=later) == {(Alliance, (99_000_002,))}
    with store.connection():
        stamps = {row.id: (row.created_at, row.updated_at) for row in Alliance.select()}
    assert stamps == {99_000_001: (NOW, NOW), 99_000_002: (NOW, later)}


def test_a_field_that_goes_away_becomes_null(store: Store) -> None:
    write(store, alliance(99_000_001))
    write(store, alliance(99_000_001, executor_corporation_id=None))
    assert mirror.table(store, Alliance)[99_000_001]["executor_corporation_id"] is None


def test_columns_that_are_not_named_are_left_alone(store: Store) -> None:
    write(store, Row(Character, {"id": 90_000_001, "name": "A", "corporation_id": 98_000_001}))
    write(store, Row(Character, {"id": 90_000_001, "corporation_id": 98_000_002}))
    row = mirror.table(store, Character)[90_000_001]
    assert (row["name"], row["corporation_id"]) == ("A", 98_000_002)


def test_the_same_key_twice_in_one_write_takes_the_last(store: Store) -> None:
    write(store, alliance(99_000_001, name="first"), alliance(99_000_001, name="last"))
    assert mirror.table(store, Alliance)[99_000_001]["name"] == "last"


def test_many_rows_go_in_at_once(store: Store) -> None:
    rows = [
        Row(Attacker, {"killmail_id": 1, "seq": seq, "damage_done": seq, "final_blow": seq == 0, "security_status": -0.5})
        for seq in range(5000)
    ]
    write(store, *rows)
    assert len(mirror.table(store, Attacker)) == 5000


def test_half_a_unit_is_never_seen(store: Store) -> None:
    # Given a killmail whose second row the database refuses
    broken = Row(Attacker, {"killmail_id": 1, "seq": 0, "damage_done": None, "final_blow": True, "security_status": 0.0})
    killmail = {name: None for name in Killmail._meta.fields if name not in {"created_at", "updated_at"}}
    killmail |= {"id": 1, "hash": "a", "killmail_time": NOW, "solar_system_id": 1, "attacker_count": 1}
    killmail |= {"victim_ship_type_id": 670, "victim_damage_taken": 0}

    with pytest.raises(StoreError):
        write(store, Row(Killmail, killmail), broken)

    assert mirror.table(store, Killmail) == {}


def answer(key: int, name: str, *, expires: dt.datetime, checked: dt.datetime) -> Done:
    """An alliance as one answer told it."""
    return Done(key, (alliance(key, name=name),), etag=name, checked_at=checked, expires_at=expires)


def test_an_older_answer_never_overwrites_a_newer_one(store: Store) -> None:
    ledger.request(store, [Seen("alliance", 99_000_001)])
    hour = dt.timedelta(hours=1)
    now = clock.now()

    # When the answers of two workers are written in the wrong order
    ledger.finish(store, "alliance", [answer(99_000_001, "newer", expires=now + hour, checked=now)])
    ledger.finish(store, "alliance", [answer(99_000_001, "older", expires=now, checked=now - hour)])

    assert mirror.table(store, Alliance)[99_000_001]["name"] == "newer"
    job = ledger.job(store, "alliance", 99_000_001)
    assert job
    assert str(job["expires_at"])[:19] == str(now + hour)[:19]


def test_an_older_look_leaves_a_newer_affiliation_alone(store: Store) -> None:
    ledger.request(store, [Seen("character", 90_000_001)])
    now = clock.now()
    new = Row(Character, {"id": 90_000_001, "corporation_id": 2_000_002}, guard="checked_at")
    old = Row(Character, {"id": 90_000_001, "corporation_id": 2_000_001}, guard="checked_at")
    details = Row(Character, {"id": 90_000_001, "gender": "female"})

    ledger.finish(store, "character", [Done(90_000_001, (new,), checked_at=now, unfinished=True)])
    day_old = Done(90_000_001, (details, old), checked_at=now - dt.timedelta(days=1), expires_at=now)
    ledger.finish(store, "character", [day_old])

    row = mirror.table(store, Character)[90_000_001]
    assert (row["corporation_id"], row["gender"]) == (2_000_002, "female")


def corporation(key: int, **changes: Any) -> dict[str, Any]:
    """Values of a row of `corporations`."""
    values = {name: None for name in Corporation._meta.fields if name not in {"created_at", "updated_at"}}
    return values | {"id": key, "name": "c", "ticker": "C", "member_count": 1} | changes


def test_two_writers_in_opposite_order_never_wait_for_each_other(store: Store) -> None:
    failures: list[BaseException] = []

    def many(keys: list[int], name: str) -> None:
        try:
            for turn in range(100):
                write(store, *(alliance(key, name=f"{name}{turn}") for key in keys))
        except BaseException as error:
            failures.append(error)

    keys = list(range(99_000_001, 99_000_021))
    threads = [
        threading.Thread(target=many, args=(keys, "up")),
        threading.Thread(target=many, args=(keys[::-1], "down")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(mirror.table(store, Alliance)) == 20


def count_up(url: str, times: int) -> None:
    """Read, add one, write, in one transaction each."""
    store = Store(url, pool_size=1)

    def work() -> None:
        lock = "" if store.is_sqlite else " FOR UPDATE"
        value = int(store.rows(f"SELECT value FROM memos WHERE name = 'n'{lock}")[0][0])
        store.rows("UPDATE memos SET value = %s WHERE name = 'n'", (str(value + 1),))

    for _ in range(times):
        store.run(work)
    store.close()


def test_processes_that_read_and_write_lose_nothing(store: Store) -> None:
    store.run(lambda: store.insert("memos", ("name", "value"), [("n", "0")]))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(store.url, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    with store.connection():
        assert store.rows("SELECT value FROM memos")[0][0] == "600"
