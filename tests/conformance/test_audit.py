"""The audit finds everything that is planted, mends it, and finds nothing where nothing is wrong."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from esid import clock
from esid.entities import BY_NAME, ENTITIES
from esid.entities.corporation import Corporation
from esid.queue.asking import Asking
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.schedule import tasks
from esid.store import audit, counters, ledger
from esid.store.connection import Store
from esid.store.model import Done, Failure, Row, Seen, utc_text
from esid.store.upsert import upsert

KINDS = [tasks.kind(entity) for entity in ENTITIES]
HOUR = dt.timedelta(hours=1)


def corporation(key: int) -> Row:
    """A row."""
    return Row(Corporation, {"id": key, "name": f"N{key}", "ticker": "T", "member_count": 1})


@pytest.fixture
def filled(store: Store) -> Store:
    """Ten corporations in good order, one dead, one open, one that is only known; a list and a killmail."""
    now = clock.now()
    ledger.request(store, [Seen("corporation", key) for key in range(1, 13)])
    done = [Done(key, (corporation(key),), etag="e", checked_at=now, expires_at=now + HOUR) for key in range(1, 11)]
    ledger.finish(store, "corporation", [*done[:9], Done(10, done[9].rows, (Seen("corporation", 99, asked=False),),
                  etag="e", checked_at=now, expires_at=now + HOUR)])  # fmt: skip
    ledger.retry(store, "corporation", {}, {11: Failure("not_found", "404", ask_again_after_s=21 * 86_400.0)})
    ledger.request(store, [Seen("alliances", 1)])
    ledger.finish(store, "alliances", [Done(1, changed=True, checked_at=now, expires_at=now + HOUR)])
    return store


def change(store: Store, sql: str, *values: Any) -> None:
    """Spoil something."""
    store.run(lambda: store.rows(sql, values))


def test_where_nothing_is_wrong_nothing_is_found(filled: Store) -> None:
    before = {key: ledger.job(filled, "corporation", key) for key in (*range(1, 13), 99)}
    assert audit.look(filled, KINDS) == {}
    assert {key: ledger.job(filled, "corporation", key) for key in (*range(1, 13), 99)} == before


PLANTED = {
    "no_time": "UPDATE sync_jobs SET next_at = NULL WHERE entity_type = 'corporation' AND entity_id IN (3, 11)",
    "far_time": "UPDATE sync_jobs SET updated_at = {later}, expires_at = {later}, next_at = {later} WHERE entity_id = 4",
    "forgotten": "UPDATE sync_jobs SET due_at = NULL, updated_at = {earlier} WHERE entity_id = 12",
    "not_theirs": "UPDATE sync_jobs SET error = 'http_403: HTTP 403' WHERE entity_id = 11",
    "no_row": "DELETE FROM corporations WHERE id IN (6, 7)",
    "no_job": "DELETE FROM sync_jobs WHERE entity_type = 'corporation' AND entity_id = 8",
}


def test_an_answer_without_any_time_is_found_too(filled: Store) -> None:
    change(
        filled, "UPDATE sync_jobs SET next_at = NULL, expires_at = NULL WHERE entity_type = 'corporation' AND entity_id = 3"
    )
    assert audit.look(filled, KINDS) == {"no_time": 1}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_and_mended_and_found_no_more(filled: Store, what: str) -> None:
    times = {"later": clock.now() + dt.timedelta(days=30), "earlier": clock.now() - dt.timedelta(days=2)}
    sql = PLANTED[what].format(**{name: f"'{utc_text(time)}'" for name, time in times.items()})
    change(filled, sql)
    found = audit.look(filled, KINDS)
    assert set(found) == {what}
    assert audit.counted(counters.values(filled))[what] == found[what] > 0
    assert audit.look(filled, KINDS) == {}
    # and whatever it was, each id has a time, or is open, again
    with filled.connection():
        ((lost,),) = filled.rows(
            "SELECT COUNT(*) FROM sync_jobs WHERE status IN ('completed', 'failed') AND next_at IS NULL "
            "AND checked_at IS NOT NULL"
        )
    assert lost == 0


def test_a_killmail_without_its_ledger_is_known_again_and_asked_no_more(store: Store) -> None:
    assert BY_NAME["killmail"].argument == "hash"
    now = clock.now()
    values = dict.fromkeys(("solar_system_id", "victim_ship_type_id", "victim_damage_taken", "attacker_count"), 1)
    table = BY_NAME["killmail"].tables[0]
    row = Row(table, {"id": 7, "hash": "a" * 40, "killmail_time": now, **values})
    store.run(lambda: upsert(store, [row], now))
    assert audit.look(store, KINDS) == {"no_job": 1}
    assert ledger.request(store, [Seen("killmail", 7, "a" * 40)]).fresh == (7,)
    assert audit.look(store, KINDS) == {}


def test_it_goes_on_where_it_stopped(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more ids than a step takes, and no time for more than one
    monkeypatch.setattr(audit, "STEP", 4)
    change(filled, "DELETE FROM corporations WHERE id IN (2, 9)")
    kinds = [kind for kind in KINDS if kind.entity == "corporation"]
    found = [sum(audit._step(filled, kinds[0])[0].values()) for _ in range(4)]
    assert found == [1, 0, 1, 0]


def test_after_the_clock_was_set_back_all_that_was_written_with_the_later_one_is_asked_again(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a mirror that was filled while the clock was a day ahead
    real = clock.now
    requests = Asking(filled, Publisher(filled, open_broker(filled, "", "t"), "t"), "t")
    works = tasks.works(filled, requests._publisher, requests)
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(days=1))
    works["sweep"]()
    now = clock.now()
    ledger.request(filled, [Seen("corporation", 20)])
    ledger.finish(filled, "corporation", [Done(20, (corporation(20),), checked_at=now, expires_at=now + HOUR)])
    # When it is right again
    monkeypatch.setattr(clock, "now", real)
    works["sweep"]()
    # Then it is due, and what was written at the right time is not
    assert requests.sync("corporation") >= 1
    assert dict(ledger.states(filled, "corporation", [1, 20])) == {1: "completed", 20: "pending"}
