"""What an idle daemon and a look at its state cost: as many statements for forty entities as for seven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from esid import clock
from esid.entities import ENTITIES
from esid.entities.corporation import CORPORATION
from esid.esi.budget import Budget, Limits
from esid.queue import dispatch as dispatching
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.status import collect as collecting
from esid.status import history
from esid.status import progress as saying
from esid.status.progress import Progress
from esid.store import ledger
from esid.store.connection import Store
from esid.store.ledger import freshness
from esid.store.model import Done, Seen

LANES = tuple(f"lane_{number}" for number in range(12))
#: Twelve lanes with forty entities.
MANY = (*ENTITIES, *(replace(CORPORATION, name=f"one_{n}", lane=LANES[n % 12]) for n in range(40 - len(ENTITIES))))


@pytest.fixture
def count(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """How many statements something takes."""
    statements: list[str] = []
    execute = store.database.execute_sql
    monkeypatch.setattr(store.database, "execute_sql", lambda sql, *more: [statements.append(sql), execute(sql, *more)][1])

    def counted(what: Callable[[], object]) -> int:
        statements.clear()
        what()
        return len([sql for sql in statements if sql.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT"))])

    return counted


def test_statements_of_status_and_idle_scheduler_do_not_grow_with_entities(
    store: Store, tmp_path: Path, count: Callable[[Callable[[], object]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = open_broker(store, "", "x")
    for name in LANES:
        broker.declare_queue(f"x.{name}")
    budget, publisher = Budget(tmp_path / "budget", Limits()), Publisher(store, broker, "x")
    found = {}
    for entities in (ENTITIES, MANY):
        for module in (collecting, dispatching, saying):
            monkeypatch.setattr(module, "ENTITIES", entities)
        lanes = sorted({entity.lane for entity in entities})
        sources = collecting.Sources(store, broker, budget, {}, "1", "here")
        found[len(entities)] = {
            "status": count(lambda sources=sources: collecting.collect(sources)),  # type: ignore[misc]
            "dispatch": count(lambda lanes=lanes: dispatching.dispatch(store, publisher, lanes)),  # type: ignore[misc]
            "sweep": count(lambda lanes=lanes: dispatching.sweep(store, publisher, lanes, 300.0)),  # type: ignore[misc]
            "progress": count(Progress(store, budget, lanes).say),
            "sample": count(lambda: history.sample(store, broker, budget)),
        }
    assert found[len(MANY)] == found[len(ENTITIES)]
    assert found[len(MANY)]["dispatch"] == 1
    budget.close()


def test_one_statement_tells_of_each_entity_what_is_its_own(store: Store) -> None:
    # Given one entity with a job whose message was lost, one with an answer that is due, and one with nothing
    now = clock.now()
    ledger.request(store, [Seen("corporation", 98_000_001)])
    ledger.queued(store, "corporation", [98_000_001], clock.now())
    ledger.finish(store, "alliance", [Done(99_000_001, checked_at=now, expires_at=now)])
    names = ["character", "alliance", "corporation"]

    assert ledger.with_orphans(store, names, -1.0) == ["corporation"]
    assert ledger.with_orphans(store, names, 60.0) == []
    assert ledger.oldest_open(store, names).keys() == {"corporation"}
    looked = freshness.looked(store, names)
    assert list(looked) == names
    assert (looked["character"], looked["corporation"]) == ((0, None), (0, None))
    due, oldest = looked["alliance"]
    assert due == 1
    assert oldest is not None
    assert abs((oldest - now).total_seconds()) < 0.001
