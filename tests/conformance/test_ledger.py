"""The ledger promises the same on both databases: one live job an id, nothing forgotten, nothing asked too early."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from esid import clock
from esid.store import dead_letters, due, ledger, notes, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Done, Failure, Seen, utc_text

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
    assert due.due(store, "killmail") == []


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
    assert due.due(store, "corporation") == [1]
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


def test_a_job_that_is_taken_before_its_publisher_was_done_is_not_published_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PUBLISH_GRACE_S", 0.0)
    # Given a message that a worker gets before its publisher has noted that it is in the queue
    since = clock.now()
    ledger.request(store, [Seen("corporation", 1)])
    ledger.take(store, "corporation", [1])
    ledger.queued(store, "corporation", [1], since)

    # Then work that takes longer than the publisher is given is left to that worker
    assert ledger.unpublished(store, "corporation", 10) == []


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
    assert due.due(store, "corporation") == [1]
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
    assert due.due(store, "corporation") == [1]
    ledger.retry(store, "corporation", {}, {1: failure})

    # Then the next sync does not ask; a person may
    assert due.due(store, "corporation") == []
    assert ask(store, 1) == ledger.Accepted((1,), (), ())


def test_an_id_that_is_unavailable_is_asked_again_daily_for_a_week(store: Store) -> None:
    failure = Failure("unavailable", "", 10, DAY_S, 7 * DAY_S)
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: failure})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    again_s = (dt.datetime.fromisoformat(str(shown["expires_at"])) - clock.now()).total_seconds()
    assert DAY_S - 60 < again_s <= DAY_S
    # After a week of that only a person asks again.
    long_ago = utc_text(clock.now() - dt.timedelta(days=8))
    store.run(lambda: store.rows("UPDATE dead_letters SET first_at = %s", (long_ago,)))
    ask(store, 1)
    ledger.retry(store, "corporation", {}, {1: failure})
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert shown["expires_at"] is None


def test_due_ids_are_claimed_once(store: Store) -> None:
    ask(store, *range(1, 31))
    finish(store, *range(1, 21), expires_in=-HOUR)
    assert due.due(store, "corporation", limit=15) == list(range(1, 16))
    assert due.due(store, "corporation", limit=15) == list(range(16, 21))
    assert due.due(store, "corporation") == []


def test_affiliations_are_due_by_the_last_look_but_not_for_ids_that_break_a_batch(store: Store) -> None:
    ask(store, 1, 2, 3, entity="character")
    now = clock.now()
    ledger.finish(store, "character", [Done(key, checked_at=now - 2 * HOUR, expires_at=now + HOUR) for key in (1, 2)])
    ledger.finish(store, "character", [Done(3, checked_at=now, expires_at=now + HOUR)])
    notes.add_unbatchable(store, "character", [2])
    assert due.due(store, "character", looked_before=now - HOUR) == [1]
    assert notes.unbatchable(store, "character", [1, 2, 3]) == {2}

    # And after three weeks they may have been right all along
    long_ago = (utc_text(now - dt.timedelta(days=22)),)
    store.run(lambda: store.rows("UPDATE unbatchable SET created_at = %s", long_ago))
    assert notes.unbatchable(store, "character", [1, 2, 3]) == set()
    assert due.due(store, "character", looked_before=now - HOUR) == [2]
    notes.add_unbatchable(store, "character", [2])
    assert notes.unbatchable(store, "character", [1, 2, 3]) == {2}


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
    assert due.due(store, "corporation") == [2]


def test_a_purge_leaves_the_expiry_of_an_answer_alone(store: Store) -> None:
    # Given a character whose details are good for an hour, and which waits for its affiliation
    now = clock.now()
    ask(store, 1, entity="character")
    ledger.finish(store, "character", [Done(1, checked_at=now - 2 * HOUR, expires_at=now + HOUR)])
    assert due.due(store, "character", looked_before=now - HOUR) == [1]

    # When its queue is purged and synced again
    assert ledger.purge(store, "character") == 1
    assert due.due(store, "character") == []
    assert due.due(store, "character", looked_before=now - HOUR) == [1]

    # Then its details are still good for that hour
    (job,) = ledger.take(store, "character", [1])
    assert job.expires_at
    assert job.expires_at > now


def test_a_person_may_ask_for_what_is_known_and_was_never_asked(store: Store) -> None:
    finish(store, 1, seen=(Seen("character", 3_019_001, asked=False),))
    assert due.due(store, "character", looked_before=clock.now()) == []
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
        (Filter(entity="character"), {3}),
        (Filter(reason="http_400"), {2}),
        (Filter(since=dt.datetime(2100, 1, 1, tzinfo=dt.UTC)), set()),
        (Filter(entity="corporation", reason="http_403", since=dt.datetime(2000, 1, 1, tzinfo=dt.UTC)), {1}),
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
    found = list(dead_letters.pages(store, Filter(entity="corporation"), size=10))
    assert [len(page) for page in found] == [10, 10, 5]
    assert sorted(one.entity_id or 0 for page in found for one in page) == list(range(1, 26))


def test_two_that_look_for_what_is_due_at_one_moment_divide_it(store: Store) -> None:
    ask(store, 1, 2, 3, 4)
    finish(store, 1, 2, 3, 4, expires_in=-HOUR)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.extend(due.due(store, "corporation", limit=2)))

    def first() -> list[int]:
        mine = due.due(store, "corporation", limit=2)
        other.start()
        if not store.is_sqlite:
            # SQLite has one writer: there the other waits for the end of this transaction.
            other.join(5)
        return mine

    assert store.run(first) == [1, 2]
    other.join()
    assert found == [3, 4]
