"""The unit of work: when answers are written that come slowly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from esid import clock
from esid.entities import BY_NAME, ENTITIES
from esid.entities.base import LIST_ID, Edges, Entity, Failed
from esid.entities.corporation import CORPORATION, Corporation
from esid.errors import DataRefused
from esid.esi.answers import Answer
from esid.esi.routes import Route
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.queue.work import Unfinished, Work
from esid.store import ledger, notes
from esid.store.connection import Store
from esid.store.model import Done, Job, Row, Seen


def test_answers_that_come_slowly_are_not_written_one_by_one_beside_a_slow_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given answers that come 0.3 s apart and a database that takes 3 s to write some
    moved, written, finish = [0.0], list[int](), ledger.finish
    monkeypatch.setattr(clock, "monotonic", lambda: moved[0])

    def finish_slowly(of: Store, entity: str, done: Sequence[Done], *more: Any) -> list[Seen]:
        moved[0] += 3.0
        written.append(len(done))
        return finish(of, entity, done, *more)

    def sync(_: Entity, jobs: Sequence[Job], __: Edges) -> Iterator[Done]:
        for job in jobs:
            moved[0] += 0.3
            yield Done(job.id)

    monkeypatch.setattr(ledger, "finish", finish_slowly)
    nobody: Any = None
    work = Work(store, nobody, Publisher(store, open_broker(store, "", "work"), "work"), ["corporation"])
    ids = list(range(98_000_001, 98_000_021))
    ledger.request(store, [Seen("corporation", key) for key in ids])

    work.perform(replace(CORPORATION, sync=sync), ids)

    # Then the first is there at once, and the others in parts
    assert written == [1, 7, 7, 5]
    assert ledger.counts(store) == {"corporation": {"completed": 20}}


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


class Lists:
    """ESI, as far as a list is asked of it: `count` ids."""

    def __init__(self) -> None:
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

    def ask(count: int, hours: float) -> list[Failed]:
        """What failed, when ESI says so many."""
        monkeypatch.setattr(clock, "now", lambda: start + dt.timedelta(hours=hours))
        esi.count = count
        ledger.request(store, [Seen(entity, LIST_ID)])
        ledger.reopen(store, entity, [LIST_ID])
        try:
            work.perform(BY_NAME[entity], [LIST_ID])
        except Unfinished as unfinished:
            ledger.give_back(store, entity, [LIST_ID])
            return list(unfinished.failed)
        return []

    def jobs() -> int:
        return sum(ledger.counts(store).get(known, {}).values())

    assert ask(first, 0) == []
    assert jobs() == first
    # When it grows a little, or becomes empty, then that is so
    assert ask(first + 900, 2) == ask(0, 4) == ask(first + 1000, 6) == []
    assert jobs() == first + 1000
    # When it is far longer, then nothing of it is known, however often it is said within the hour
    far = 3 * first + 4000
    for hours in (8.0, 8.5, 8.9):
        (failed,) = ask(far, hours)
        assert failed.error.reason == "bad_field"
        assert f"{far:,} ids, where {max(2 * (first + 1000), first + 2000):,} are plausible" in str(failed.error)
        assert failed.error.ask_again_after_s
    assert jobs() == first + 1000
    # And another number begins anew, but the same an hour later is believed
    assert ask(3 * far, 10) != []
    assert ask(far, 12) != []
    assert ask(far + 5, 13.1) == []
    assert jobs() == far + 5


def test_the_first_list_is_believed_up_to_a_bound_of_its_kind(store: Store) -> None:
    for entity in (one for one in ENTITIES if one.most is not None):
        most = entity.most or 0
        assert notes.disbelieved(store, entity.name, 1, most + 1, most) == most
        assert notes.disbelieved(store, entity.name, 2, most, most) is None
    assert {entity.name for entity in ENTITIES if entity.most} == {"alliances", "alliance_corporations", "npccorps"}
