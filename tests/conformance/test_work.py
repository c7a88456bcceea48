"""The unit of work: when answers are written that come slowly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from esid import clock
from esid.entities import BY_NAME, ENTITIES
from esid.entities.base import LIST_ID, Edges, Entity, Failed
from esid.entities.corporation import CORPORATION, Corporation
from esid.errors import DatabaseUnavailable, DataRefused, EsiUnavailable, Held, NotFound
from esid.esi.answers import Answer
from esid.esi.routes import Route
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.queue.work import Harvest, Work
from esid.store import dead_letters, ledger, notes
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import Booked, Ends
from esid.store.model import Done, Failure, Job, Row, Seen, utc_time


def test_answers_that_come_slowly_are_not_written_one_by_one_beside_a_slow_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given answers that come 0.3 s apart and a database that takes 3 s to write some
    moved, written, book = [0.0], list[int](), ledger.book
    monkeypatch.setattr(clock, "monotonic", lambda: moved[0])

    def book_slowly(of: Store, entity: str, ends: Ends, *more: Any) -> Booked:
        moved[0] += 3.0
        written.append(len(ends.done))
        return book(of, entity, ends, *more)

    def sync(_: Entity, jobs: Sequence[Job], __: Edges) -> Iterator[Done]:
        for job in jobs:
            moved[0] += 0.3
            yield Done(job.id)

    monkeypatch.setattr(ledger, "book", book_slowly)
    nobody: Any = None
    work = Work(store, nobody, Publisher(store, open_broker(store, "", "work"), "work"), ["corporation"])
    ids = list(range(98_000_001, 98_000_021))
    ledger.request(store, [Seen("corporation", key) for key in ids])

    work.perform(replace(CORPORATION, sync=sync), ids)

    # Then the first is there at once, and the others in parts
    assert written == [1, 7, 7, 5]
    assert ledger.counts(store) == {"corporation": {"completed": 20}}


def test_what_is_written_is_not_kept_until_the_end_of_its_message() -> None:
    jobs = [Job("corporation", key) for key in (1, 2)]
    harvest = Harvest(jobs, 0.0, [Done(1, (Row(Corporation, {"id": 1}),))])
    (part,) = harvest.hand_over()
    assert part.rows
    assert harvest.done == []
    assert [job.id for job in harvest.open_jobs()] == [2]
    assert harvest.hand_over() == []


def test_an_answer_that_the_database_refuses_keeps_no_other_from_being_written(store: Store) -> None:
    # Given twenty answers, one of them with a value that no column takes
    nobody: Any = None
    work = Work(store, nobody, Publisher(store, open_broker(store, "", "work"), "work"), ["corporation"])
    ids = list(range(98_000_001, 98_000_021))
    ledger.request(store, [Seen("corporation", key) for key in ids])

    def sync(_: Entity, jobs: Sequence[Job], __: Edges) -> Iterator[Done]:
        for job in jobs:
            members = 2**70 if job.id == 98_000_007 else 7
            yield Done(job.id, (Row(Corporation, {"id": job.id, "name": "Ж", "ticker": "T", "member_count": members}),))

    with pytest.raises((DataRefused, OverflowError)):
        work.perform(replace(CORPORATION, sync=sync), ids)

    # Then the others are written, and only that one is left to be booked
    assert ledger.counts(store) == {"corporation": {"completed": 19, "processing": 1}}
    job = ledger.job(store, "corporation", 98_000_007)
    assert job
    assert job["status"] == "processing"


class Esi:
    """ESI, as far as it is asked what failed."""

    def __init__(self) -> None:
        self.is_outage = False

    def was_outage(self, *_: Any) -> bool:
        """As it may be."""
        return self.is_outage

    def retry_wait_s(self, _: Route, wait_s: float) -> float:
        """Nobody else waits."""
        return wait_s

    def has_answered(self, _: str) -> bool:
        """Always."""
        return True


def done_failed_and_open(_: Entity, jobs: Sequence[Job], __: Edges) -> Iterator[Done | Failed]:
    """Of five ids the third is done, the first and the fourth fail, and the others wait for a limit."""
    yield Done(jobs[2].id, (Row(Corporation, {"id": jobs[2].id, "name": "Ж", "ticker": "T", "member_count": 7}),))
    yield Failed(jobs[0], NotFound("HTTP 404", status=404))
    yield Failed(jobs[3], EsiUnavailable("HTTP 502", status=502))
    raise Held(30.0, "bucket")


def unit(store: Store, esi: Esi) -> Work:
    """A unit of work beside that ESI."""
    client: Any = esi
    ledger.request(store, [Seen("corporation", key) for key in FIVE])
    return Work(store, client, Publisher(store, open_broker(store, "", "work"), "work"), ["corporation"])


def booked(store: Store) -> list[tuple[Any, ...]]:
    """What the ledger says of five ids: state, attempts, whether they wait."""
    jobs = [ledger.job(store, "corporation", key) or {} for key in FIVE]
    return [(one["status"], one["retry_count"], one["due_at"] is not None) for one in jobs]


FIVE = list(range(98_000_001, 98_000_006))
BOOKED = [("failed", 1, False), ("pending", 0, True), ("completed", 0, False), ("pending", 1, True), ("pending", 0, True)]


def test_what_is_done_failed_and_open_is_booked_in_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a unit of work with ids of all three kinds
    work, transactions, run_once = unit(store, Esi()), list[Any](), store._run_once
    monkeypatch.setattr(store, "_run_once", lambda act: transactions.append(act) or run_once(act))  # type: ignore[func-returns-value]

    # When it is performed
    outcome = work.perform(replace(CORPORATION, sync=done_failed_and_open), FIVE)

    # Then one transaction has booked each, and the message is done with
    assert booked(store) == BOOKED
    assert len(transactions) == 1
    assert (outcome.failed, outcome.put_back, outcome.goes_back, str(outcome.held)) == (
        2,
        2,
        False,
        str(Held(30.0, "bucket")),
    )
    assert [(one.entity_id, one.reason) for one in dead_letters.find(store, Filter())] == [(FIVE[0], "not_found")]


def test_what_fails_while_the_database_is_away_is_judged_again_once_it_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database that is away when a unit of work is to be booked, and an outage of ESI that is known only then
    esi, book = Esi(), ledger.book
    work = unit(store, esi)

    def away(*_: Any) -> Any:
        esi.is_outage = True
        monkeypatch.setattr(ledger, "book", book)
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(ledger, "book", away)

    # When it comes back
    outcome = work.perform(replace(CORPORATION, sync=done_failed_and_open), FIVE)

    # Then the answer is written, and the outage has cost nobody an attempt
    waits = ("pending", 0, True)
    assert booked(store) == [waits, waits, ("completed", 0, False), waits, waits]
    assert (outcome.failed, outcome.put_back) == (0, 4)
    assert dead_letters.find(store, Filter()) == []


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), DataRefused("no such words")])
def test_what_fails_after_all_is_booked_gives_no_message_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # Given ids that an answer has named, and a database that is away when they are to be published
    def named(_: Entity, jobs: Sequence[Job], edges: Edges) -> Iterator[Done | Failed]:
        for result in done_failed_and_open(CORPORATION, jobs, edges):
            yield replace(result, seen=(Seen("corporation", 98_000_900),)) if isinstance(result, Done) else result

    def away(*_: Any, **__: Any) -> Any:
        raise error

    work = unit(store, Esi())
    monkeypatch.setattr(Publisher, "publish", away)
    monkeypatch.setattr(work._unknown, "flush", away)
    # Then the message is done with: its ids have their times, and what it named is an intent
    outcome = work.perform(replace(CORPORATION, sync=named), FIVE)
    assert not outcome.goes_back
    assert booked(store) == BOOKED
    intent = ledger.job(store, "corporation", 98_000_900)
    assert intent
    assert (intent["status"], intent["due_at"] is not None) == ("pending", True)


def test_a_failure_that_cannot_be_booked_keeps_no_answer_from_being_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> int:
        raise DataRefused("no such words")

    monkeypatch.setattr(dead_letters, "add", refused)
    with pytest.raises(DataRefused):
        unit(store, Esi()).perform(replace(CORPORATION, sync=done_failed_and_open), FIVE)
    open_job = ("processing", 0, False)
    assert booked(store) == [open_job, open_job, ("completed", 0, False), open_job, open_job]


def test_units_of_work_on_the_same_ids_never_wait_for_one_another_in_a_circle(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two units of work that have the same ids, each of them done in one and failed or open in the other
    keys, spoiled, run_once = list(range(98_000_001, 98_000_041)), list[Exception](), store._run_once

    def run(act: Callable[[], Any]) -> Any:
        try:
            return run_once(act)
        except Exception as error:
            spoiled.append(error)
            raise

    def book(done: list[int], others: list[int]) -> None:
        failures = {key: Failure("unavailable", "HTTP 502") for key in others[::2]}
        ends = Ends([Done(key) for key in done], failures, dict.fromkeys(failures, 0.0), ((others[1::2], 0.0),))
        for _ in range(25):
            ledger.take(store, "corporation", keys)
            ledger.book(store, "corporation", ends)

    ledger.request(store, [Seen("corporation", key) for key in keys])
    monkeypatch.setattr(store, "_run_once", run)

    # When both are booked at the same time, again and again
    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(book, keys[::2], keys[1::2]), threads.submit(book, keys[1::2], keys[::2])]:
            future.result(60)

    # Then the database has had to end none of them
    assert spoiled == []


class Lists(Esi):
    """ESI, as far as a list is asked of it: `count` ids."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get(self, _: Route, *, read: Callable[[Answer], Done], **__: Any) -> Done:
        """What the answer means."""
        now = clock.now()
        return read(Answer(list(range(99_000_000, 99_000_000 + self.count)), True, '"etag"', now, now))


@pytest.mark.parametrize(("entity", "known", "first"), [("alliances", "alliance", 3_533), ("npccorps", "corporation", 283)])
def test_a_list_that_is_far_longer_than_before_is_believed_when_it_says_so_again_an_hour_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, entity: str, known: str, first: int
) -> None:
    # Given a list of a plausible length that was believed at the first look
    esi: Any = Lists()
    work = Work(store, esi, Publisher(store, open_broker(store, "", "work"), "work"), [])
    start = clock.now()

    def ask(count: int, hours: float) -> str:
        """What is wrong, when ESI says so many."""
        monkeypatch.setattr(clock, "now", lambda: start + dt.timedelta(hours=hours))
        esi.count = count
        ledger.request(store, [Seen(entity, LIST_ID)])
        ledger.reopen(store, entity, [LIST_ID])
        work.perform(BY_NAME[entity], [LIST_ID])
        return str(job()["error"] or "")

    def job() -> dict[str, Any]:
        return ledger.job(store, entity, LIST_ID) or {}

    def jobs() -> int:
        return sum(ledger.counts(store).get(known, {}).values())

    assert ask(first, 0) == ""
    assert jobs() == first
    # When it grows a little, or becomes empty, then that is so
    assert ask(first + 900, 2) == ask(0, 4) == ask(first + 1000, 6) == ""
    assert jobs() == first + 1000
    # When it is far longer, then nothing of it is known, however often it is said within the hour
    far = 3 * first + 4000
    for hours in (8.0, 8.5, 8.9):
        words = ask(far, hours)
        assert words.startswith("bad_field: ")
        assert f"{far:,} ids, where {max(2 * (first + 1000), first + 2000):,} are plausible" in words
    assert utc_time(job()["next_at"]) == clock.now() + dt.timedelta(seconds=3660)
    assert jobs() == first + 1000
    # And another number begins anew, but the same an hour later is believed
    assert ask(3 * far, 10)
    assert ask(far, 12)
    assert ask(far + 5, 13.1) == ""
    assert jobs() == far + 5


def test_the_first_list_is_believed_up_to_a_bound_of_its_kind(store: Store) -> None:
    for entity in (one for one in ENTITIES if one.most is not None):
        most = entity.most or 0
        assert notes.disbelieved(store, entity.name, 1, most + 1, most) == most
        assert notes.disbelieved(store, entity.name, 2, most, most) is None
    assert {entity.name for entity in ENTITIES if entity.most} == {"alliances", "alliance_corporations", "npccorps"}
