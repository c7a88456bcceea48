"""Each plain page with a body, from a real answer to its tables: filled at the first look, untouched at the second."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid import clock
from esid.entities import BY_NAME
from esid.entities.base import LIST_ID
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.queue.work import Work
from esid.schedule import tasks
from esid.store import audit, ledger
from esid.store.connection import Store
from esid.store.model import Seen, utc_text
from tests.fake_esi import FakeEsi, World, fixtures
from tests.tools import mirror


@pytest.fixture
def world() -> World:
    """A world with the things of the fixtures."""
    made = World()
    for name, kind in (("alliance", made.alliances), ("corporation", made.corporations)):
        one = fixtures.BY_NAME[name]
        assert one.id is not None
        kind[one.id] = one.body
    return made


@pytest.fixture
def work(store: Store, esi: FakeEsi, tmp_path: Path) -> Iterator[Work]:
    """A unit of work beside that ESI."""
    budget = Budget(tmp_path / "budget", Limits(max_rps=0))
    client = Client(esi.base_url, budget, compatibility_date="2026-08-18")
    yield Work(store, client, Publisher(store, open_broker(store, "", "pages"), "pages"), [])
    budget.close()


@pytest.mark.parametrize("name", fixtures.BY_NAME)
def test_an_answer_fills_the_tables_and_the_same_again_moves_nothing(
    store: Store, work: Work, esi: FakeEsi, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entity, key = BY_NAME[name], fixtures.BY_NAME[name].id
    ids = [LIST_ID if key is None else key]
    # When it is asked for
    ledger.request(store, [Seen(name, ids[0])])
    work.perform(entity, ids)
    first = {table: mirror.table(store, table) for table in entity.tables}
    job = ledger.job(store, name, ids[0])
    # Then its tables have rows, and the audit finds nothing
    assert job is not None
    assert (job["status"], job["error"]) == ("completed", None)
    assert all(first.values()), first
    assert audit.look(store, [tasks.kind(entity)]) == {}
    # And a later look at the same moves nothing
    stamps = [store.rows(f"SELECT * FROM {table._meta.table_name}") for table in entity.tables]
    start = clock.now()
    later = start + dt.timedelta(days=1, hours=1)
    esi.clock.advance((later - start).total_seconds())
    monkeypatch.setattr(clock, "now", lambda: later)
    ledger.request(store, [Seen(name, ids[0])], whole=True)
    work.perform(entity, ids)
    assert [store.rows(f"SELECT * FROM {table._meta.table_name}") for table in entity.tables] == stamps
    again = ledger.job(store, name, ids[0])
    assert again is not None
    assert again["updated_at"] == utc_text(later) or again["updated_at"] == later
    assert again["changed_at"] == job["changed_at"]
    assert len(esi.log) == 2
