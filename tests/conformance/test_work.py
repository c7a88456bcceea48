"""The unit of work: when answers are written that come slowly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from esid import clock
from esid.entities.base import Edges, Entity
from esid.entities.corporation import CORPORATION
from esid.queue.actors import Work
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Done, Job, Seen


def test_answers_that_come_slowly_are_not_written_one_by_one_beside_a_slow_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given answers that come 0.3 s apart and a database that takes 3 s to write some
    moved, written, finish = [0.0], list[int](), ledger.finish
    monkeypatch.setattr(clock, "monotonic", lambda: moved[0])

    def finish_slowly(of: Store, entity: str, done: Sequence[Done], gathering: Collection[str]) -> list[Seen]:
        moved[0] += 3.0
        written.append(len(done))
        return finish(of, entity, done, gathering)

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
