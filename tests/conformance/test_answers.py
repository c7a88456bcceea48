"""Answers are booked whole or not at all, newer wins by the times of answers alone, and what is repeated counts once."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest

from esid import clock
from esid.entities.alliance import ALLIANCE, Alliance
from esid.entities.cadence import rhythm
from esid.entities.character import CHARACTER, Character
from esid.entities.corporation import CORPORATION
from esid.entities.killmail import Killmail, rows_of
from esid.entities.killmail_body import read
from esid.errors import DAY_S
from esid.esi.answers import Answer
from esid.queue.publish import Publisher
from esid.queue.work import Work
from esid.schedule.tasks import kind
from esid.store import audit, dead_letters, ledger, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import asking, due, freshness
from esid.store.model import Done, Failure, Row, Seen, utc_text, utc_time
from tests.fake_feed import generate
from tests.tools import mirror
from tests.tools.messages import Inbox

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
KEY = 99_000_001
GONE = Failure("not_found", "HTTP 404", ask_again_after_s=21 * DAY_S, attempt=0)
Clock = list[dt.datetime]


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test sets, later than the database was made: nothing is known from before that."""
    at = [dt.datetime.now(dt.UTC).replace(hour=12, minute=0, second=0, microsecond=0) + 2 * DAY]
    monkeypatch.setattr(clock, "now", lambda: at[0])
    return at


def alliance(name: str, key: int = KEY) -> Row:
    """A row of `alliances`."""
    values = {
        "name": name, "ticker": "T", "date_founded": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "creator_corporation_id": 98_000_001, "creator_id": 90_000_001,
    }  # fmt: skip
    return Row(Alliance, {"id": key, **values, "executor_corporation_id": None, "faction_id": None})


def answer(name: str, at: dt.datetime, fresh: dt.timedelta = HOUR) -> Done:
    """A 200 of a moment."""
    return Done(KEY, (alliance(name),), etag=f'"{name}"', checked_at=at, expires_at=at + fresh)


def not_modified(name: str, at: dt.datetime) -> Done:
    """A 304 to an ETag."""
    return Done(KEY, etag=f'"{name}"', checked_at=at, expires_at=at + HOUR, is_confirmed=True, stands=Alliance.id)


def ask(store: Store, entity: str = "alliance", key: int = KEY) -> None:
    """Somebody asks, and a worker takes it."""
    ledger.request(store, [Seen(entity, key)])
    assert [job.id for job in ledger.take(store, entity, [key])] == [key]


def job(store: Store, entity: str = "alliance", key: int = KEY) -> dict[str, Any]:
    """What the ledger says, times as such."""
    found = ledger.job(store, entity, key)
    assert found
    return {name: utc_time(value) if name.endswith("_at") else value for name, value in found.items()}


def name_in_table(store: Store) -> str | None:
    """The alliance's name; None where it has no row."""
    row = mirror.table(store, Alliance).get(KEY)
    return row and str(row["name"])


def test_what_one_worker_gives_up_and_another_is_answered_is_written(store: Store) -> None:
    # Given two workers with one id, of which one gives it up on a short 404
    ask(store)
    assert ledger.retry(store, "alliance", {}, {KEY: GONE}) == {KEY}
    now = clock.now()

    # When the other brings an answer
    ledger.finish(store, "alliance", [answer("A", now)])

    # Then it is there, with its own times, and the giving-up is over
    assert name_in_table(store) == "A"
    found = job(store)
    assert (found["status"], found["etag"], found["expires_at"]) == ("completed", '"A"', now + HOUR)
    assert found["next_at"] == now + HOUR
    assert dead_letters.find(store, Filter()) == []


def test_a_giving_up_leaves_the_expiry_of_the_answer_before_alone(store: Store) -> None:
    ask(store)
    now = clock.now()
    ledger.finish(store, "alliance", [answer("A", now - 2 * HOUR)])
    ask(store)
    ledger.retry(store, "alliance", {}, {KEY: GONE})
    found = job(store)
    assert (found["status"], found["etag"], found["expires_at"]) == ("failed", '"A"', now - HOUR)
    assert found["next_at"] > now + 20 * DAY


def test_an_older_answer_leaves_etag_and_rows_of_the_newer_one_and_a_request_that_came_after(
    store: Store, moved: Clock
) -> None:
    # Given two workers with one id, of which the one that was answered later comes first
    begin = moved[0]
    ask(store)
    older = answer("A", begin)
    moved[0] += 10 * dt.timedelta(minutes=1)
    ledger.finish(store, "alliance", [answer("B", moved[0])])
    # And somebody who asks again once that has expired
    moved[0] += 2 * HOUR
    assert ledger.request(store, [Seen("alliance", KEY)]).queued == (KEY,)

    # When the other comes at last
    ledger.finish(store, "alliance", [older])

    # Then nothing has changed
    assert name_in_table(store) == "B"
    assert (job(store)["status"], job(store)["etag"]) == ("pending", '"B"')
    assert [one.etag for one in ledger.take(store, "alliance", [KEY])] == ['"B"']

    # And while somebody works on it, only that is over
    ledger.finish(store, "alliance", [older])
    found = job(store)
    assert (found["status"], found["etag"], found["expires_at"]) == ("completed", '"B"', begin + HOUR + HOUR / 6)


def test_a_304_to_another_answer_than_the_one_that_is_there_changes_nothing(store: Store, moved: Clock) -> None:
    ask(store)
    ledger.finish(store, "alliance", [answer("A", moved[0])])
    moved[0] += 2 * HOUR
    ask(store)
    confirmed = not_modified("A", moved[0] + HOUR)
    # Meanwhile somebody else was answered anew
    ledger.finish(store, "alliance", [answer("B", moved[0])])
    ledger.finish(store, "alliance", [confirmed])
    assert (name_in_table(store), job(store)["etag"]) == ("B", '"B"')
    assert job(store)["expires_at"] == moved[0] + HOUR


def test_what_is_learned_in_part_leaves_the_etag_of_the_details_alone(store: Store) -> None:
    # Given a character of which two workers learn: one its affiliation, the other its details, under a new ETag
    now, key = clock.now(), 90_000_001
    ask(store, "character", key)
    ledger.finish(store, "character", [Done(key, etag='"A"', checked_at=now - 2 * HOUR, expires_at=now - HOUR)])
    ask(store, "character", key)
    ledger.finish(store, "character", [Done(key, etag='"B"', checked_at=now, expires_at=now + HOUR)])
    in_part = Done(key, (Row(Character, {"id": key, "corporation_id": 98_000_001}, guard="checked_at"),), checked_at=now)

    ledger.finish(store, "character", [in_part])
    ledger.finish(store, "character", [Done(key, unfinished=True)])

    found = job(store, "character", key)
    assert (found["status"], found["etag"], found["expires_at"]) == ("completed", '"B"', now + HOUR)


class Esi:
    """Answers 304 to the ETag of what it has."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body, self.asked = body, list[str | None]()

    def get(self, *_: Any, etag: str | None, read: Callable[[Answer], Any], **__: Any) -> Any:
        """One answer."""
        self.asked.append(etag)
        now = clock.now()
        return read(Answer(None if etag else self.body, etag is None, '"e"', now, now + HOUR))


def lose_alliance(store: Store) -> None:
    """Its row is gone."""
    store.run(lambda: store.rows("DELETE FROM alliances"))


def lose_details(store: Store) -> None:
    """Its row is gone, and there again with what a bulk route tells."""
    store.run(lambda: store.rows("UPDATE characters SET birthday = NULL, gender = NULL"))


@pytest.mark.parametrize(
    ("entity", "key", "lose"), [(ALLIANCE, KEY, lose_alliance), (CHARACTER, 90_000_001, lose_details)], ids=["whole", "part"]
)
def test_a_304_to_a_row_that_is_not_there_is_asked_for_whole_at_once(
    store: Store, moved: Clock, monkeypatch: pytest.MonkeyPatch, entity: Any, key: int, lose: Callable[[Store], None]
) -> None:
    monkeypatch.setattr("esid.entities.base.wants_whole", lambda _: False)
    founded = {"date_founded": "2020-01-01T00:00:00Z", "creator_corporation_id": 98_000_001, "creator_id": 90_000_002}
    born = {
        "birthday": "2015-03-24T11:37:00Z", "bloodline_id": 3, "race_id": 2, "gender": "male", "corporation_id": 98_000_001,
    }  # fmt: skip
    esi, inbox = Esi({"name": "N", "ticker": "T"} | founded | born), Inbox()
    work = Work(store, esi, Publisher(store, inbox, "t"), [entity.lane])  # type: ignore[arg-type]
    ledger.request(store, [Seen(entity.name, key)])
    work.perform(entity, [key])
    table = entity.tables[0]
    whole = mirror.table(store, table)
    moved[0] += 2 * DAY
    lose(store)
    inbox.messages.clear()

    ledger.request(store, [Seen(entity.name, key)])
    work.perform(entity, [key])

    # Then what ESI says has not changed is not believed, and there is a message for it
    assert (job(store, entity.name, key)["status"], job(store, entity.name, key)["etag"]) == ("pending", None)
    (message,) = (one for one in inbox.messages if one.actor_name == entity.name)
    work.perform(entity, message.args[0])
    assert mirror.table(store, table) == whole
    assert job(store, entity.name, key)["status"] == "completed"
    assert esi.asked == [None, '"e"', None]
    # And when it is there the next 304 is
    moved[0] += 2 * DAY
    ledger.request(store, [Seen(entity.name, key)])
    work.perform(entity, [key])
    assert job(store, entity.name, key)["status"] == "completed"


def test_what_is_answered_while_somebody_asks_stays_answered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given ids that have expired, and somebody who asks for them and has just looked
    now, ids = clock.now(), range(1, 101)
    ledger.request(store, [Seen("corporation", key) for key in ids])
    ledger.finish(store, "corporation", [Done(key, checked_at=now, expires_at=now - HOUR) for key in ids])
    fresh = [Done(key, checked_at=now, expires_at=now + HOUR) for key in ids]
    answering = threading.Thread(target=lambda: ledger.finish(store, "corporation", fresh))
    look = asking.known

    def look_and_lose_time(*args: Any) -> list[Any]:
        found = look(*args)
        if not answering.is_alive():
            answering.start()
            if not store.is_sqlite:  # whose writer is alone: there the answers come after the request
                answering.join(10)
        return found

    monkeypatch.setattr(asking, "known", look_and_lose_time)
    accepted = ledger.request(store, [Seen("corporation", key) for key in ids])
    answering.join(10)

    assert {state for _, state in ledger.states(store, "corporation", list(ids))} == {"completed"}
    assert len(accepted.queued) == (100 if store.is_sqlite else 0)


@pytest.mark.parametrize("wait_s", [60.0, None], ids=["waits", "is given up"])
def test_a_failure_whose_commit_was_done_and_its_answer_lost_counts_once(
    store: Store, lose_an_answer: Callable[[], None], wait_s: float | None
) -> None:
    ask(store)
    lose_an_answer()
    waits = {} if wait_s is None else {KEY: wait_s}
    # Its caller hears of it, and says it
    assert ledger.retry(store, "alliance", waits, {KEY: GONE}) == {KEY}
    assert job(store)["retry_count"] == 1
    letters = [(one.reason, one.attempts) for one in dead_letters.find(store, Filter())]
    assert letters == ([] if waits else [("not_found", 1)])


def test_one_failure_that_two_workers_tell_of_counts_once(store: Store) -> None:
    ask(store)
    assert ledger.retry(store, "alliance", {KEY: 60.0}, {KEY: GONE}) == {KEY}
    assert ledger.retry(store, "alliance", {KEY: 60.0}, {KEY: GONE}) == set()
    assert job(store)["retry_count"] == 1


def test_a_death_whose_commit_was_done_and_its_answer_lost_counts_once(
    store: Store, lose_an_answer: Callable[[], None]
) -> None:
    ask(store)
    for number, wait_s in enumerate(recoveries.WAITS_S, 1):
        lose_an_answer()
        assert recoveries.book(store, "alliance", [KEY], quarantined=True).waits == {KEY: wait_s}
        assert recoveries.counted(store) == [("alliance", KEY, number)]
    lose_an_answer()
    # Its caller hears that it is given up, and says it
    assert recoveries.book(store, "alliance", [KEY], quarantined=True).dead == (KEY,)
    assert job(store)["status"] == "failed"
    assert [one.reason for one in dead_letters.find(store, Filter())] == ["killed_worker"]
    # And a death of later is no death of what is given up
    assert recoveries.book(store, "alliance", [KEY], quarantined=True) == recoveries.Booked({}, ())


def test_a_message_whose_letter_was_written_and_the_answer_lost_has_one(
    store: Store, lose_an_answer: Callable[[], None]
) -> None:
    lose_an_answer()
    dead_letters.add_message(store, "bad_message", "not JSON", "{")
    assert [one.count for one in dead_letters.find(store, Filter())] == [1]
    dead_letters.add_message(store, "bad_message", "not JSON", "{")
    assert [one.count for one in dead_letters.find(store, Filter())] == [2]


def affiliation(key: int, corporation: int, at: dt.datetime) -> Done:
    """What a bulk route says."""
    row = Row(Character, {"id": key, "corporation_id": corporation}, guard="checked_at")
    return Done(key, (row,), checked_at=at)


@pytest.mark.parametrize("stored", ["by an answer", "by a release before"])
def test_a_look_of_a_time_to_come_hides_no_look_of_now(store: Store, stored: str) -> None:
    key, now = 90_000_001, clock.now()
    ahead = now + 3650 * DAY
    ask(store, "character", key)
    first = Done(key, (Row(Character, {"id": key, "corporation_id": 1}, guard="checked_at"),), checked_at=ahead)
    ledger.finish(store, "character", [first], rhythm=rhythm(CHARACTER))
    if stored == "by a release before":
        store.run(lambda: store.rows("UPDATE sync_jobs SET checked_at = %s, refresh_at = %s", (utc_text(ahead),) * 2))
        audit.look(store, [kind(CHARACTER)])
    ledger.request(store, [Seen("character", key)], looked_before=now - HOUR)
    (taken,) = ledger.take(store, "character", [key])
    assert taken.checked_at is None

    ledger.finish(store, "character", [affiliation(key, 2, now)], rhythm=rhythm(CHARACTER))

    assert mirror.table(store, Character)[key]["corporation_id"] == 2
    assert job(store, "character", key)["checked_at"] == now


def test_a_killmail_file_of_a_time_to_come_freezes_no_values(store: Store) -> None:
    (mail,) = generate(130_000_001, 1, dt.date(2026, 11, 24))
    body = read(mail.id, mail.hash, mail.body)
    for value, uploaded in ((1.0, dt.datetime(2100, 1, 1, tzinfo=dt.UTC)), (2.0, clock.now())):
        done = Done(mail.id, tuple(rows_of(body, {"total_value": value})), argument=mail.hash, checked_at=uploaded)
        ledger.finish(store, "killmail", [done])
    assert mirror.table(store, Killmail)[mail.id]["total_value"] == 2.0


def test_what_was_written_while_our_clock_was_a_month_ahead_is_asked_for_again(store: Store, moved: Clock) -> None:
    # Given answers of a time when the clock was ahead, and an id that was given up then
    real, keys = moved[0], (KEY, KEY + 1, KEY + 2, KEY + 3)
    moved[0] = real + 30 * DAY
    for key in keys:
        ask(store, key=key)
    done = [Done(key, (alliance("C", key),), checked_at=real, expires_at=moved[0] + HOUR) for key in keys[1:3]]
    ledger.finish(store, "alliance", [answer("A", moved[0]), *done], rhythm=rhythm(ALLIANCE))
    ledger.retry(store, "alliance", {}, {keys[3]: GONE})

    # When it is right again, whoever asks gets them: the schedule, a sync, a person
    moved[0] = real
    assert ledger.request(store, [Seen("alliance", keys[0])]).queued == (keys[0],)
    assert next(due.by_person(store, "alliance", None, 2)) == [keys[1]]
    audit.look(store, [kind(ALLIANCE)])
    assert freshness.looked(store, ["alliance"])["alliance"][0] == 1
    assert due.by_schedule(store, "alliance", 10) == list(keys[2:])
    taken = ledger.take(store, "alliance", keys)
    assert [one.id for one in taken if one.expires_at is None or one.expires_at <= real] == list(keys)

    # And what they are answered stands
    ledger.finish(store, "alliance", [answer("B", real)], rhythm=rhythm(ALLIANCE))
    assert (name_in_table(store), job(store)["expires_at"]) == ("B", real + HOUR)


def test_the_schedule_spares_what_has_slept_and_a_person_does_not(store: Store, moved: Clock) -> None:
    # Given an id that has not changed for 40 days, and one that has just changed
    begin, asks = moved[0], rhythm(CORPORATION)
    ledger.request(store, [Seen("corporation", key) for key in (1, 2)])
    moved[0] += 40 * DAY

    def look(*changed: int) -> None:
        done = [
            Done(key, checked_at=moved[0], expires_at=moved[0] + HOUR, changed=key in changed)
            for key in (one.id for one in ledger.take(store, "corporation", [1, 2]))
        ]
        ledger.finish(store, "corporation", done, rhythm=asks)

    look(2)
    looked = moved[0]
    assert job(store, "corporation", 1)["next_at"] == looked + 4 * HOUR
    assert job(store, "corporation", 2)["next_at"] == looked + HOUR

    # Then the schedule asks for the one after four hours and for the other after one
    moved[0] = looked + HOUR
    assert due.by_schedule(store, "corporation", 10) == [2]
    look(2)
    moved[0] = looked + 4 * HOUR
    assert due.by_schedule(store, "corporation", 10) == [1, 2]
    look(1)
    assert begin + 40 * DAY + 5 * HOUR == job(store, "corporation", 1)["next_at"]
    # A person asks for all that has expired
    store.run(lambda: store.rows("UPDATE sync_jobs SET changed_at = %s", (utc_text(begin),)))
    moved[0] += 20 * HOUR
    assert due.by_schedule(store, "corporation", 10) == [1, 2]
    look()
    moved[0] += HOUR
    assert due.by_schedule(store, "corporation", 10) == []
    assert list(due.by_person(store, "corporation", None, 1)) == [[1], [2]]


def test_a_purge_gives_back_the_time_of_the_next_look(store: Store, moved: Clock) -> None:
    ask(store)
    ledger.finish(store, "alliance", [answer("A", moved[0])], rhythm=rhythm(ALLIANCE))
    moved[0] += 2 * HOUR
    assert due.by_schedule(store, "alliance", 10) == [KEY]
    ledger.purge(store, "alliance")
    assert due.by_schedule(store, "alliance", 10) == [KEY]
