"""The ledger promises the same on both databases: one live job an id, nothing forgotten, nothing asked too early."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from esid import clock
from esid.entities import BY_NAME
from esid.entities.base import is_due, standing
from esid.entities.corporation import Corporation
from esid.esi.budget.breaker import Standing
from esid.schedule import tasks
from esid.store import audit, counters, dead_letters, ledger, lies, notes, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import due
from esid.store.model import Done, Failure, Rhythm, Row, Seen, utc_text, utc_time

HOUR = dt.timedelta(hours=1)
DAY_S = 86_400.0


def ask(store: Store, *ids: int, entity: str = "corporation") -> ledger.Accepted:
    """A person asks, and the messages are published."""
    accepted = ledger.request(store, [Seen(entity, key) for key in ids])
    ledger.queued(store, entity, accepted.queued, clock.now())
    return accepted


def finish(
    store: Store, *ids: int, entity: str = "corporation", expires_in: dt.timedelta | None = HOUR, **more: object
) -> None:
    """Answers without rows."""
    now = clock.now()
    expires = now + expires_in if expires_in is not None else None
    ledger.finish(store, entity, [Done(key, checked_at=now, expires_at=expires, **more) for key in ids])  # type: ignore[arg-type]


def status(store: Store, key: int, entity: str = "corporation") -> str:
    """The status of one job."""
    job = ledger.job(store, entity, key)
    assert job
    return str(job["status"])


def test_a_second_request_of_a_pending_id_is_a_no_op_that_says_so(store: Store) -> None:
    assert ask(store, 1, 2) == ledger.Accepted((1, 2), (), ())
    assert ask(store, 1, 2, 3) == ledger.Accepted((3,), (1, 2), ())


def test_a_fresh_id_is_not_asked_again_and_an_expired_one_is(store: Store) -> None:
    ask(store, 1, 2)
    finish(store, 1)
    finish(store, 2, expires_in=-HOUR)
    assert ask(store, 1, 2) == ledger.Accepted((2,), (), (1,))


def test_an_immutable_id_is_fresh_for_ever(store: Store) -> None:
    ask(store, 1, entity="killmail")
    finish(store, 1, entity="killmail", expires_in=None)
    assert ask(store, 1, entity="killmail").fresh == (1,)
    assert due.by_schedule(store, "killmail", 100) == []


def test_taking_marks_and_returns_only_what_is_pending(store: Store) -> None:
    ask(store, 1, 2, 3)
    finish(store, 2)
    assert [job.id for job in ledger.take(store, "corporation", [3, 2, 1, 99])] == [1, 3]
    assert status(store, 1) == "processing"
    # A message that is delivered twice may run twice.
    assert [job.id for job in ledger.take(store, "corporation", [1])] == [1]


def test_a_job_hands_out_what_the_last_answer_left(store: Store) -> None:
    ask(store, 1)
    now = clock.now()
    ledger.finish(store, "corporation", [Done(1, etag='W/"x"', checked_at=now - HOUR, expires_at=now - HOUR)])
    assert due.by_schedule(store, "corporation", 100) == [1]
    (job,) = ledger.take(store, "corporation", [1])
    assert (job.etag, job.retry_count, job.checked_at, job.expires_at) == ('W/"x"', 0, now - HOUR, now - HOUR)


def test_seen_ids_become_known_once_and_only_new_ones_are_intents(store: Store) -> None:
    ask(store, 1)
    seen = (
        Seen("alliance", 10),
        Seen("character", 3_000_001, asked=False),
        Seen("corporation", 1),
        Seen("killmail", 5, "aa"),
    )
    new = ledger.finish(store, "corporation", [Done(1, seen=seen)])
    assert {(one.entity, one.id) for one in new} == {("alliance", 10), ("killmail", 5)}
    assert ledger.finish(store, "corporation", [Done(1, seen=seen)]) == []
    assert status(store, 3_000_001, "character") == "completed"
    (job,) = ledger.take(store, "killmail", [5])
    assert job.argument == "aa"


def test_new_ids_of_a_bulk_route_wait_for_company(store: Store) -> None:
    ask(store, 1)
    seen = tuple(Seen("character", 90_000_000 + n) for n in range(3))
    assert ledger.finish(store, "corporation", [Done(1, seen=seen)], {"character"}) == []
    ids, waited_s = ledger.gathered(store, "character", 100)
    assert ids == [90_000_000, 90_000_001, 90_000_002]
    assert 0 <= waited_s < 10
    assert ledger.unpublished(store, "character", 100) == []
    ledger.queued(store, "character", ids, clock.now())
    assert ledger.gathered(store, "character", 100) == ([], 0.0)


def test_what_two_schedulers_see_one_of_them_publishes(store: Store) -> None:
    # Given retries whose time has come and ids that were gathered, and two daemons that look at the same moment
    ask(store, 1, 2)
    ledger.defer(store, "corporation", [1, 2], 0.0)
    finish_with = [Done(3, seen=(Seen("character", 90_000_001), Seen("character", 90_000_002)))]
    ledger.finish(store, "corporation", finish_with, {"character"})
    retries, characters = ledger.unpublished(store, "corporation", 10), ledger.gathered(store, "character", 10)[0]
    assert (retries, characters) == ([1, 2], [90_000_001, 90_000_002])

    # Then the first gets all of them and the second none
    assert ledger.claim(store, "corporation", retries) == retries
    assert ledger.claim(store, "character", characters) == characters
    assert ledger.claim(store, "corporation", retries) == ledger.claim(store, "character", characters) == []


def test_one_look_tells_of_which_entities_ids_wait_to_be_published(store: Store) -> None:
    names = ["corporation", "character", "alliance"]
    assert ledger.waiting(store, names) == set()
    # Given an intent, which its publisher has time for, then a retry whose time has come, and ids that were gathered
    ledger.request(store, [Seen("corporation", 1)])
    assert ledger.waiting(store, names) == set()
    ledger.defer(store, "corporation", [1], 0.0)
    assert ledger.waiting(store, names) == {"corporation"}
    ledger.finish(store, "corporation", [Done(2, seen=(Seen("character", 90_000_001),))], {"character"})
    assert ledger.waiting(store, names) == {"corporation", "character"}
    assert ledger.waiting(store, names[2:]) == set()

    # Then those that are in the queue wait no more, and what was written before the clock was set back does
    ledger.queued(store, "corporation", [1], clock.now())
    assert ledger.waiting(store, names[:1]) == set()
    ledger.defer(store, "corporation", [1], 86_400.0)
    assert ledger.waiting(store, names[:1]) == {"corporation"}


def test_an_intent_that_nobody_published_comes_up_by_itself(store: Store) -> None:
    ledger.request(store, [Seen("corporation", 1)])
    assert ledger.unpublished(store, "corporation", 10) == []
    ledger.defer(store, "corporation", [1], -1.0)
    assert ledger.unpublished(store, "corporation", 10) == [1]
    ledger.queued(store, "corporation", [1], clock.now())
    assert ledger.unpublished(store, "corporation", 10) == []


def test_a_job_that_failed_before_its_publisher_was_done_keeps_the_time_of_its_retry(store: Store) -> None:
    # Given a publisher that is slow to note that its message was confirmed
    ledger.request(store, [Seen("corporation", 1), Seen("corporation", 2)])
    since = clock.now()
    ledger.take(store, "corporation", [1])
    ledger.retry(store, "corporation", {1: 0.0}, {1: Failure("unavailable", "HTTP 502")})

    ledger.queued(store, "corporation", [1, 2], since)

    assert ledger.unpublished(store, "corporation", 10) == [1]


def test_a_job_that_waits_for_long_keeps_its_time_though_its_publishers_clock_is_ahead(store: Store) -> None:
    # Given a publisher whose clock is a minute ahead of the workers'
    ledger.request(store, [Seen("corporation", 1), Seen("corporation", 2), Seen("corporation", 3)])
    since = clock.now() + dt.timedelta(seconds=60)
    ledger.take(store, "corporation", [1, 2])
    ledger.retry(store, "corporation", {1: 300.0}, {1: Failure("unavailable", "HTTP 502")})
    ledger.defer(store, "corporation", [2], 120.0)

    # When it notes late that its message was confirmed
    ledger.queued(store, "corporation", [1, 2, 3], since)

    # Then only what no worker has put off has a message
    assert [key for key in (1, 2, 3) if (ledger.job(store, "corporation", key) or {})["due_at"] is None] == [3]


def test_a_job_that_is_taken_before_its_publisher_was_done_is_not_published_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a message that a worker gets before its publisher has noted that it is in the queue
    since = clock.now()
    ledger.request(store, [Seen("corporation", 1)])
    ledger.take(store, "corporation", [1])
    ledger.queued(store, "corporation", [1], since)

    # Then work that takes longer than the publisher is given is left to that worker
    monkeypatch.setattr(clock, "now", lambda: since + dt.timedelta(seconds=2 * ledger.PUBLISH_GRACE_S))
    assert ledger.unpublished(store, "corporation", 10) == []


def test_no_id_waits_for_a_time_from_before_the_clock_was_set_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an id whose worker died while the clock was a day ahead
    ledger.request(store, [Seen("corporation", 1)])
    ledger.take(store, "corporation", [1])
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        recoveries.book(store, "corporation", [1])
        recoveries.isolate(store, "corporation", [1])

    # Then it is taken now, and its death is forgotten with the others
    assert [job.id for job in ledger.take(store, "corporation", [1])] == [1]
    assert recoveries.prune(store) == 1


@pytest.mark.parametrize("noted_first", [False, True], ids=["taken first", "noted first"])
def test_a_job_that_is_left_out_of_its_message_stays_the_schedulers_whenever_its_publisher_is_done(
    store: Store, monkeypatch: pytest.MonkeyPatch, noted_first: bool
) -> None:
    # Given an id whose worker may have died, with a message that a worker gets before its time has come
    ledger.request(store, [Seen("corporation", 1)])
    ledger.take(store, "corporation", [1])
    recoveries.isolate(store, "corporation", [1])
    ledger.defer(store, "corporation", [1], 10.0)
    since = clock.now()
    if noted_first:
        ledger.queued(store, "corporation", [1], since)

    # When the message is done with without it, before or after its publisher has noted that it is in the queue
    assert ledger.take(store, "corporation", [1]) == []
    if not noted_first:
        ledger.queued(store, "corporation", [1], since)

    # Then the scheduler publishes it
    later = clock.now() + dt.timedelta(seconds=11)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert ledger.unpublished(store, "corporation", 10) == [1]


def test_a_retry_is_counted_and_waits_and_a_hold_is_not_counted(store: Store) -> None:
    ask(store, 1)
    ledger.retry(store, "corporation", {1: 60.0}, {1: Failure("unavailable", "HTTP 502")})
    ledger.defer(store, "corporation", [1], 0.0)
    (job,) = ledger.take(store, "corporation", [1])
    assert job.retry_count == 1
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert shown["error"] == "unavailable: HTTP 502"


def test_success_forgets_the_attempts_and_the_dead_letter(store: Store) -> None:
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: Failure("http_403", "HTTP 403", status=403, sample="no\0way")})
    assert status(store, 1) == "failed"
    (letter,) = dead_letters.find(store, Filter())
    assert (letter.entity_id, letter.reason, letter.attempts, letter.answer_status) == (1, "http_403", 1, 403)

    assert ask(store, 1).queued == (1,)
    finish(store, 1)

    assert dead_letters.find(store, Filter()) == []
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert (shown["status"], shown["retry_count"], shown["error"]) == ("completed", 0, None)


def test_a_dead_letter_of_the_same_id_is_updated_not_doubled(store: Store) -> None:
    for reason in ("http_403", "http_400"):
        ask(store, 1)
        ledger.retry(store, "corporation", {}, {1: Failure(reason, reason)})
    (letter,) = dead_letters.find(store, Filter())
    assert letter.reason == "http_400"
    assert letter.first_at < letter.last_at


def test_what_was_not_found_is_due_again_after_its_time(store: Store) -> None:
    ask(store, 1, 2)
    ledger.retry(
        store, "corporation", {}, {1: Failure("not_found", "404", ask_again_after_s=-1.0), 2: Failure("http_400", "")}
    )
    assert due.by_schedule(store, "corporation", 100) == [1]
    # And once found, it expires like any other.
    finish(store, 1)
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert dt.datetime.fromisoformat(str(shown["expires_at"])) < clock.now() + 2 * HOUR


@pytest.mark.parametrize("failure", [Failure("bad_field", ""), Failure("unavailable", "", 10, DAY_S, 7 * DAY_S)])
def test_a_dead_id_is_not_due_again_because_an_old_answer_is(store: Store, failure: Failure) -> None:
    # Given an id whose answer has expired, and whose next answer is a dead letter
    ask(store, 1)
    finish(store, 1, expires_in=-HOUR)
    assert due.by_schedule(store, "corporation", 100) == [1]
    ledger.retry(store, "corporation", {}, {1: failure})

    # Then the next sync does not ask; a person may
    assert due.by_schedule(store, "corporation", 100) == []
    assert ask(store, 1) == ledger.Accepted((1,), (), ())


def test_an_id_that_is_unavailable_is_asked_again_daily_for_a_week(store: Store) -> None:
    failure = Failure("unavailable", "", 10, DAY_S, 7 * DAY_S)
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: failure})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    again_s = (dt.datetime.fromisoformat(str(shown["next_at"])) - clock.now()).total_seconds()
    assert DAY_S - 60 < again_s <= DAY_S
    # After a week of that once a week, where it never had an answer.
    long_ago = utc_text(clock.now() - dt.timedelta(days=8))
    store.run(lambda: store.rows("UPDATE dead_letters SET first_at = %s", (long_ago,)))
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: failure})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    again_s = (dt.datetime.fromisoformat(str(shown["next_at"])) - clock.now()).total_seconds()
    assert 7 * DAY_S - 60 < again_s <= 7 * DAY_S


@pytest.mark.parametrize("reason", ["bad_field", "too_large", "http_400", "crash", "killed_worker", "unavailable"])
def test_an_id_that_ever_had_an_answer_is_asked_again_within_a_day_whatever_it_failed_for(store: Store, reason: str) -> None:
    ask(store, 1)
    finish(store, 1, expires_in=-HOUR)
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: Failure(reason, "odd")})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert dt.datetime.fromisoformat(str(shown["next_at"])) <= clock.now() + dt.timedelta(days=1)
    # and its expiry is still that of its answer
    assert dt.datetime.fromisoformat(str(shown["expires_at"])) < clock.now()


def test_who_gives_up_and_who_is_answered_late_do_not_spoil_each_other(store: Store) -> None:
    # Given two workers with one id: one gives it up for three weeks, then the other brings its row
    now = clock.now()
    ask(store, 1)
    (first,) = ledger.take(store, "corporation", [1])
    (second,) = ledger.take(store, "corporation", [1])
    ledger.retry(store, "corporation", {}, {1: Failure("not_found", "404", ask_again_after_s=21 * DAY_S, attempt=0)})
    row = Row(Corporation, {"id": 1, "name": "A", "ticker": "A", "member_count": 1})
    ledger.finish(store, "corporation", [Done(1, (row,), etag="A", checked_at=now, expires_at=now + HOUR)])
    # Then the row is there, with its own expiry, and nobody is dead
    assert (first.id, second.id, status(store, 1)) == (1, 1, "completed")
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert dt.datetime.fromisoformat(str(shown["next_at"])) == now + HOUR
    assert dead_letters.find(store, Filter()) == []


def test_an_older_answer_changes_nothing_and_ends_no_request_that_came_after_it(store: Store) -> None:
    now = clock.now()

    def answer(name: str, at: dt.datetime) -> Done:
        row = Row(Corporation, {"id": 1, "name": name, "ticker": "A", "member_count": 1})
        return Done(1, (row,), etag=name, checked_at=at, expires_at=at + HOUR)

    ask(store, 1)
    ledger.finish(store, "corporation", [answer("B", now - 2 * HOUR)])
    assert ask(store, 1).queued == (1,)
    ledger.finish(store, "corporation", [answer("A", now - 3 * HOUR)])
    assert status(store, 1) == "pending"
    (job,) = ledger.take(store, "corporation", [1])
    assert (job.etag, job.checked_at) == ("B", now - 2 * HOUR)
    # What was taken up for the older answer is done
    ledger.finish(store, "corporation", [answer("A", now - 3 * HOUR)])
    assert status(store, 1) == "completed"


def test_an_answer_that_has_changed_under_its_old_etag_is_counted_and_its_route_is_asked_without_for_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()

    def answer(name: str, etag: str) -> None:
        row = Row(Corporation, {"id": 1, "name": name, "ticker": "A", "member_count": 1})
        ask(store, 1)
        ledger.finish(store, "corporation", [Done(1, (row,), etag=etag, checked_at=now, expires_at=now - HOUR)])

    for name, etag in (("A", "x"), ("B", "y"), ("B", "y")):
        answer(name, etag)
        assert (lies.counted(counters.values(store)), lies.has_lied(store, "corporation")) == ({}, False)
    answer("C", "y")
    assert lies.counted(counters.values(store)) == {"corporation": 1}
    assert lies.has_lied(store, "corporation")
    assert not lies.has_lied(store, "alliance")
    monkeypatch.setattr(clock, "now", lambda: now + dt.timedelta(seconds=lies.DISTRUST_S + 5))
    assert not lies.has_lied(store, "corporation")


def test_a_304_whose_row_is_not_there_is_asked_for_whole(store: Store) -> None:
    now = clock.now()
    ask(store, 1)
    ledger.finish(store, "corporation", [Done(1, etag="A", checked_at=now, expires_at=now - HOUR)])
    ask(store, 1)
    ledger.take(store, "corporation", [1])
    same = Done(1, etag="A", checked_at=now, expires_at=now + HOUR, is_confirmed=True, stands=Corporation.id)
    assert ledger.finish(store, "corporation", [same]) == [Seen("corporation", 1)]
    (job,) = ledger.take(store, "corporation", [1])
    assert job.etag is None


def test_an_id_that_was_dead_and_is_asked_again_is_known_to_have_failed(store: Store) -> None:
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: Failure("unavailable", "HTTP 500", ask_again_after_s=-1.0)})
    assert due.by_schedule(store, "corporation", 10) == [1]
    assert [job.has_failed for job in ledger.take(store, "corporation", [1])] == [True]
    finish(store, 1, expires_in=-HOUR)
    ask(store, 1)
    assert [job.has_failed for job in ledger.take(store, "corporation", [1])] == [False]


def test_a_failure_whose_commit_was_repeated_is_one_attempt(store: Store) -> None:
    ask(store, 1)
    (job,) = ledger.take(store, "corporation", [1])
    failure = Failure("unavailable", "HTTP 500", attempt=job.retry_count)
    for _ in range(2):
        ledger.retry(store, "corporation", {1: 5.0}, {1: failure})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert shown["retry_count"] == 1


@pytest.mark.parametrize("ahead", [dt.timedelta(days=1), dt.timedelta(days=30), dt.timedelta(days=3650)])
def test_what_was_answered_while_a_clock_was_ahead_is_not_fresh(store: Store, ahead: dt.timedelta) -> None:
    now = clock.now()
    ask(store, 1)
    ledger.finish(store, "corporation", [Done(1, etag="A", checked_at=now + ahead, expires_at=now + ahead + HOUR)])
    assert list(due.by_person(store, "corporation", None, 10)) == [[1]]
    (job,) = ledger.take(store, "corporation", [1])
    assert (job.checked_at, job.expires_at) == (None, None)
    # and the next answer is not older than it
    row = Row(Corporation, {"id": 1, "name": "now", "ticker": "A", "member_count": 1})
    ledger.finish(store, "corporation", [Done(1, (row,), checked_at=now, expires_at=now + HOUR)])
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert dt.datetime.fromisoformat(str(shown["checked_at"])) == now
    assert dt.datetime.fromisoformat(str(shown["next_at"])) == now + HOUR


def test_what_had_an_answer_is_known_to_have_had_one_while_the_clock_is_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "alliance_corporations"
    # Given an answer, and a clock that is set back for a while, in which the audit mends what lies ahead of it
    ask(store, 1, 2, entity=name)
    finish(store, 1, 2, entity=name)
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() - dt.timedelta(days=3650))
    ask(store, 1, entity=name)
    for audited in (False, True):
        if audited:
            audit.look(store, [tasks.kind(BY_NAME[name])])
            ask(store, 2, entity=name)
        (job,) = ledger.take(store, name, [2 if audited else 1])
        assert standing(job) is Standing.KNOWN
        assert is_due(job)
        ledger.retry(store, name, {}, {job.id: Failure("unavailable", "HTTP 500")})
        again = ledger.job(store, name, job.id)
        assert again
        assert utc_time(again["next_at"]) <= clock.now() + dt.timedelta(days=1)  # type: ignore[operator]


@pytest.mark.parametrize(("behind_days", "is_known"), [(30, True), (3653, False)], ids=["changed", "first seen"])
def test_what_was_seen_while_the_clock_was_behind_does_not_sleep(
    store: Store, monkeypatch: pytest.MonkeyPatch, behind_days: int, is_known: bool
) -> None:
    rhythm, real = Rhythm(3600.0, None, ((0.0, 1), (7 * DAY_S, 6))), clock.now
    if is_known:
        ask(store, 1, entity="alliances")
        finish(store, 1, entity="alliances")
    # Given a change that was seen, or a first answer that came before this database was there, by a clock that was behind
    monkeypatch.setattr(clock, "now", lambda: real() - dt.timedelta(days=behind_days))
    if not is_known:
        ask(store, 1, entity="alliances")
    finish(store, 1, entity="alliances", changed=True)
    # When the clock is right again, then it is asked for as what has changed lately
    monkeypatch.setattr(clock, "now", real)
    now = clock.now()
    ledger.finish(store, "alliances", [Done(1, checked_at=now, expires_at=now + HOUR)], rhythm=rhythm)
    job = ledger.job(store, "alliances", 1)
    assert job
    assert utc_time(job["next_at"]) == now + HOUR


def test_due_ids_are_claimed_once(store: Store) -> None:
    ask(store, *range(1, 31))
    finish(store, *range(1, 21), expires_in=-HOUR)
    assert due.by_schedule(store, "corporation", 15) == list(range(1, 16))
    assert due.by_schedule(store, "corporation", 15) == list(range(16, 21))
    assert due.by_schedule(store, "corporation", 100) == []


def test_affiliations_are_due_by_the_last_look_but_not_for_ids_that_break_a_batch(store: Store) -> None:
    ask(store, 1, 2, 3, entity="character")
    now = clock.now()
    ledger.finish(store, "character", [Done(key, checked_at=now - 2 * HOUR, expires_at=now + HOUR) for key in (1, 2)])
    ledger.finish(store, "character", [Done(3, checked_at=now, expires_at=now + HOUR)])
    notes.add_unbatchable(store, "character", [2])
    assert list(due.by_person(store, "character", now - HOUR, 100)) == [[1]]
    assert notes.unbatchable(store, "character", [1, 2, 3]) == {2}

    # And after three weeks they may have been right all along
    long_ago = (utc_text(now - dt.timedelta(days=22)),)
    store.run(lambda: store.rows("UPDATE unbatchable SET created_at = %s", long_ago))
    assert notes.unbatchable(store, "character", [1, 2, 3]) == set()
    assert list(due.by_person(store, "character", now - HOUR, 100)) == [[2]]
    notes.add_unbatchable(store, "character", [2])
    assert notes.unbatchable(store, "character", [1, 2, 3]) == {2}


@pytest.mark.parametrize("by", ["enqueue", "sync"])
@pytest.mark.parametrize("state", ["pending", "processing"])
def test_a_person_who_asks_while_affiliations_are_looked_up_is_told_the_details_too(
    store: Store, state: str, by: str
) -> None:
    # Given a character that has slept so long that the schedule is patient with its details, and is looked up in bulk
    rhythm = Rhythm(DAY_S, 3600.0, ((0.0, 3),))
    ask(store, 1, entity="character")
    now = clock.now()
    looked = Done(1, checked_at=now - 4 * HOUR, expires_at=now - HOUR, etag="e")
    ledger.finish(store, "character", [looked], rhythm=rhythm)
    assert due.by_schedule(store, "character", 10) == []
    assert due.to_refresh(store, "character", 10) == [1]
    jobs = [] if state == "pending" else ledger.take(store, "character", [1])
    assert not any(map(is_due, jobs))

    # When a person asks before that is answered
    if by == "enqueue":
        ask(store, 1, entity="character")
    else:
        list(due.by_person(store, "character", now - HOUR, 100))
    jobs = jobs or ledger.take(store, "character", [1])
    ledger.finish(store, "character", [Done(1, checked_at=now, unfinished=is_due(jobs[0]))], rhythm=rhythm)

    # Then it is still open, for its details
    assert status(store, 1, "character") == "pending"
    assert is_due(ledger.take(store, "character", [1])[0])


def test_a_look_at_affiliations_alone_leaves_the_plan_for_the_details_as_it_was(store: Store) -> None:
    ask(store, 1, entity="character")
    now = clock.now()
    rhythm = Rhythm(DAY_S, 3600.0, ((0.0, 3),))
    ledger.finish(store, "character", [Done(1, checked_at=now - 4 * HOUR, expires_at=now - HOUR)], rhythm=rhythm)
    assert due.to_refresh(store, "character", 10) == [1]
    (job,) = ledger.take(store, "character", [1])
    # And it survives a failure, a wait and an outage
    ledger.retry(store, "character", {1: 300.0}, {1: Failure("unavailable", "HTTP 502")})
    ledger.revive(store, ["character"], now - HOUR)
    (again,) = ledger.take(store, "character", [1])
    assert again.next_at == job.next_at == now - HOUR + dt.timedelta(days=2)
    ledger.finish(store, "character", [Done(1, checked_at=now)], rhythm=rhythm)
    found = ledger.job(store, "character", 1)
    assert found
    assert (found["status"], utc_time(found["next_at"])) == ("completed", job.next_at)


def test_the_sweep_finds_what_has_no_message(store: Store) -> None:
    ask(store, 1, 2)
    assert ledger.orphaned(store, "corporation", 60.0, 10) == []
    assert ledger.orphaned(store, "corporation", -1.0, 10) == [1, 2]
    ledger.defer(store, "corporation", [1], 60.0)
    assert ledger.orphaned(store, "corporation", -1.0, 10) == [2]
    assert ledger.adopt(store, "corporation", [1, 2], 60.0) == []
    assert ledger.adopt(store, "corporation", [1, 2], -1.0) == [2]
    # One sweep publishes them
    assert ledger.adopt(store, "corporation", [2], -1.0) == ledger.orphaned(store, "corporation", -1.0, 10) == []


def test_the_sweep_leaves_alone_what_was_published_after_a_long_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(store, 1)
    ledger.retry(store, "corporation", {1: 300.0}, {1: Failure("unavailable", "HTTP 502")})
    later = clock.now() + dt.timedelta(seconds=301)
    monkeypatch.setattr(clock, "now", lambda: later)
    # Its age tells for how long it waits, until the broker has confirmed it
    assert ledger.claim(store, "corporation", [1]) == [1]
    assert (later - ledger.oldest_open(store, ["corporation"])["corporation"]).total_seconds() > 300
    ledger.queued(store, "corporation", [1], later)
    assert ledger.orphaned(store, "corporation", 300.0, 10) == []


def test_purged_jobs_are_due_again(store: Store) -> None:
    ask(store, 1, 2)
    finish(store, 1)
    assert ledger.purge(store, "corporation") == 1
    assert status(store, 2) == "failed"
    assert due.by_schedule(store, "corporation", 100) == [2]


def test_a_purge_leaves_the_expiry_of_an_answer_alone(store: Store) -> None:
    # Given a character whose details are good for an hour, and which waits for its affiliation
    now = clock.now()
    ask(store, 1, entity="character")
    ledger.finish(store, "character", [Done(1, checked_at=now - 2 * HOUR, expires_at=now + HOUR)])
    assert list(due.by_person(store, "character", now - HOUR, 100)) == [[1]]

    # When its queue is purged and synced again
    assert ledger.purge(store, "character") == 1
    assert due.by_schedule(store, "character", 100) == []
    assert list(due.by_person(store, "character", now - HOUR, 100)) == [[1]]

    # Then its details are still good for that hour
    (job,) = ledger.take(store, "character", [1])
    assert job.expires_at
    assert job.expires_at > now


def test_a_person_may_ask_for_what_is_known_and_was_never_asked(store: Store) -> None:
    finish(store, 1, seen=(Seen("character", 3_019_001, asked=False),))
    assert list(due.by_person(store, "character", clock.now(), 100)) == []
    assert ask(store, 3_019_001, entity="character") == ledger.Accepted((3_019_001,), (), ())


def test_another_hash_replaces_one_that_failed(store: Store) -> None:
    ledger.request(store, [Seen("killmail", 1, "bad")])
    ledger.retry(store, "killmail", {}, {1: Failure("wrong_pair", "422")})
    assert ledger.request(store, [Seen("killmail", 1, "good")]).queued == (1,)
    (job,) = ledger.take(store, "killmail", [1])
    assert job.argument == "good"


def test_a_new_compatibility_date_forgets_the_etags(store: Store) -> None:
    ask(store, 1)
    finish(store, 1, etag="x")
    notes.use_compatibility_date(store, "2026-08-18")
    finish(store, 1, etag="x")
    notes.use_compatibility_date(store, "2026-08-18")
    assert (ledger.job(store, "corporation", 1) or {})["etag"] == "x"
    notes.use_compatibility_date(store, "2026-09-30")
    assert (ledger.job(store, "corporation", 1) or {})["etag"] is None


def test_unknown_fields_are_counted_by_name(store: Store) -> None:
    counter = notes.UnknownFields()
    counter.add("corporation", ["colour", "colour", "mood"])
    counter.flush(store)
    counter.add("corporation", ["mood"])
    counter.flush(store)
    counter.flush(store, now=True)
    assert notes.unknown_fields(store) == [("corporation", "colour", 2), ("corporation", "mood", 2)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), {1, 2, 3}),
        (Filter(entities=("character",)), {3}),
        (Filter(reason="http_400"), {2}),
        (Filter(since=dt.datetime(2100, 1, 1, tzinfo=dt.UTC)), set()),
        (Filter(entities=("corporation",), reason="http_403", since=dt.datetime(2000, 1, 1, tzinfo=dt.UTC)), {1}),
    ],
)
def test_dead_letters_are_found_by_their_filters(store: Store, wanted: Filter, found: set[int]) -> None:
    ask(store, 1, 2)
    ask(store, 3, entity="character")
    ledger.retry(store, "corporation", {}, {1: Failure("http_403", ""), 2: Failure("http_400", "")})
    ledger.retry(store, "character", {}, {3: Failure("http_403", "")})
    assert {letter.entity_id for letter in dead_letters.find(store, wanted)} == found
    assert dead_letters.drop(store, wanted) == len(found)


def test_a_message_that_cannot_be_read_keeps_its_body(store: Store) -> None:
    dead_letters.add_message(store, "bad_message", "not JSON", "\x80\0 bytes \ud800")
    (letter,) = dead_letters.find(store, Filter())
    assert letter.body == "\x80\\0 bytes \\ud800"
    assert letter.entity_type is None


def test_dead_letters_are_read_in_pages_however_many(store: Store) -> None:
    ask(store, *range(1, 26))
    ledger.retry(store, "corporation", {}, {key: Failure("http_400", "") for key in range(1, 26)})
    found = list(dead_letters.pages(store, Filter(entities=("corporation",)), size=10))
    assert [len(page) for page in found] == [10, 10, 5]
    assert sorted(one.entity_id or 0 for page in found for one in page) == list(range(1, 26))


def test_two_that_look_for_what_is_due_at_one_moment_divide_it(store: Store) -> None:
    ask(store, 1, 2, 3, 4)
    finish(store, 1, 2, 3, 4, expires_in=-HOUR)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.extend(due.by_schedule(store, "corporation", 2)))

    def first() -> list[int]:
        mine = due.by_schedule(store, "corporation", 2)
        other.start()
        if not store.is_sqlite:
            # SQLite has one writer: there the other waits for the end of this transaction.
            other.join(5)
        return mine

    assert store.run(first) == [1, 2]
    other.join()
    assert found == [3, 4]


def test_what_a_person_asks_for_has_no_source_in_common_and_waits_no_longer(store: Store) -> None:
    # Given ids that one answer has named, of which some were put off
    named = [Seen("corporation", key) for key in range(1, 7)]
    store.run(lambda: ledger.discover(store, named, clock.now()))
    ledger.take(store, "corporation", [1, 2, 3])
    ledger.defer(store, "corporation", [1, 2, 3], 3000.0)
    ledger.take(store, "corporation", [4])
    ledger.retry(store, "corporation", {4: 300.0}, {4: Failure("unavailable", "502")})
    # When the schedule asks for some of them, and a person for others and for new ones
    assert ledger.request(store, named[:1]).queued == ()
    asked = ledger.request(store, [*named[1:4], Seen("corporation", 8), Seen("corporation", 9)], by_person=True)
    # Then those that were only put off are to be published, and an attempt that failed keeps its wait
    assert asked.queued == (2, 3, 8, 9)
    assert asked.pending == (4,)
    # And whom the answer has named go on as one source, the others each by itself
    sources = {job.id: job.source for job in ledger.take(store, "corporation", [1, 2, 3, 5, 6, 8, 9])}
    assert sources[1] == sources[5] == sources[6]
    assert len({sources[key] for key in (1, 2, 3, 8, 9)}) == 5
    # Once one was answered it has none
    ledger.finish(store, "corporation", [Done(5, checked_at=clock.now(), expires_at=clock.now())])
    ledger.reopen(store, "corporation", [5])
    ledger.request(store, [Seen("corporation", 5)])
    assert [job.source for job in ledger.take(store, "corporation", [5])] == [""]
