"""Every statement finds its rows by an index, whatever the size of the tables; few ids are found by their key."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.entities import ENTITIES
from esid.esi.budget import Budget, Limits
from esid.feeds.day import LAYOUT
from esid.queue.asking import Asking
from esid.queue.broker import PERSON, open_broker
from esid.queue.dispatch import dispatch
from esid.queue.publish import Publisher
from esid.queue.work import GATHERING
from esid.schedule import tasks
from esid.status.collect import Sources, collect
from esid.store import days, dead_letters, ledger, migrate, notes, recoveries, show, wholes
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import due
from esid.store.model import Done, Failure, Rhythm, Seen, utc_text
from esid.store.wholes import Whole

#: Tables that grow with EVE.
LARGE = {
    "alliances", "corporations", "characters", "killmails", "attackers", "killmail_items", "sync_jobs", "messages",
    "dead_letters", "unbatchable",
}  # fmt: skip
QUEUES = ("alliance", "corporation", "character", "killmail")
Statements = dict[str, tuple[Any, ...]]


@pytest.fixture
def statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Each kind of statement that was run, with parameters of one of them."""
    found: Statements = {}
    execute = store.database.execute_sql

    def record(sql: str, parameters: Any = None, *more: Any) -> Any:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", sql):
            found[re.sub(r"(%s|\?)(, (%s|\?))+", r"\1, ...", sql)] = (sql, tuple(parameters or ()))
        return execute(sql, parameters, *more)

    monkeypatch.setattr(store.database, "execute_sql", record)
    return found


def plan(store: Store, sql: str, parameters: tuple[Any, ...]) -> str:
    """How the database goes about a statement; PostgreSQL reads a whole table only if it has no other way."""
    with store.connection():
        if store.is_sqlite:
            return "\n".join(
                row[3] for row in store.database.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            )
        with store.database.atomic():
            store.database.execute_sql("SET LOCAL enable_seqscan = off")
            return "\n".join(row[0] for row in store.database.execute_sql(f"EXPLAIN {sql}", parameters).fetchall())


def whole_tables(plan: str) -> set[str]:
    """The tables of which a plan reads all rows from the table itself."""
    found = re.findall(r"Seq Scan on (\w+)|SCAN (\w+)(?! USING)(?: |$)", plan, re.MULTILINE)
    return {one or other for one, other in found} & LARGE


def test_no_statement_reads_a_large_table(store: Store, statements: Statements, tmp_path: Path) -> None:
    # Given everything that a daemon and its commands do with their database
    work(store, tmp_path)

    # Then each of it is served by an index
    assert len(statements) > 60
    unserved = {
        words: tables
        for words, (sql, parameters) in statements.items()
        if (tables := whole_tables(plan(store, sql, parameters)))
    }
    assert unserved == {}


@pytest.fixture(params=["no statistics", "statistics of another entity alone"])
def backlog(store: Store, statements: Statements, request: pytest.FixtureRequest) -> None:
    """20,000 jobs of which the database knows nothing yet."""
    if request.param != "no statistics":
        for start in range(0, 20_000, 5000):
            ledger.request(store, [Seen("killmail", key, "0" * 40) for key in range(start + 1, start + 5001)])
        store.run(lambda: store.rows("ANALYZE sync_jobs"))
    for start in range(98_000_000, 98_020_000, 5000):
        ledger.request(store, [Seen("corporation", key) for key in range(start, start + 5000)])
    statements.clear()


@pytest.mark.usefixtures("backlog")
def test_a_message_finds_its_ids_by_their_key_while_the_statistics_are_old(store: Store, statements: Statements) -> None:
    ids = list(range(98_000_000, 98_000_020))
    taken = ledger.take(store, "corporation", ids)
    ledger.defer(store, "corporation", ids, 0.0)
    ledger.give_back(store, "corporation", ids)
    ledger.queued(store, "corporation", ids, clock.now())
    ledger.finish(store, "corporation", [Done(job.id) for job in taken])
    of_jobs = {
        words: given
        for words, given in statements.items()
        if re.search(r"sync_jobs.* (IN|unnest) ?\(|unnest.*sync_jobs", words)
    }
    assert len(of_jobs) >= 5
    for sql, parameters in of_jobs.values():
        assert re.search("sync_jobs_pkey|sqlite_autoindex_sync_jobs_1|PRIMARY KEY", plan(store, sql, parameters)), sql


@pytest.mark.usefixtures("backlog")
def test_hundreds_of_ids_are_looked_up_by_their_key_while_the_statistics_are_old(
    store: Store, statements: Statements
) -> None:
    store.run(
        lambda: ledger.discover(store, [Seen("corporation", key) for key in range(98_019_000, 98_020_000)], clock.now())
    )
    ((sql, parameters),) = [given for words, given in statements.items() if "sync_jobs" in words]
    assert re.search(r"Index Cond: .*entity_id = |entity_type=\? AND entity_id=\?", plan(store, sql, parameters)), sql


def test_the_few_killmails_that_are_due_are_found_by_their_time(store: Store, statements: Statements) -> None:
    # Given many jobs that never expire, and others of which all have expired, known to the statistics
    for start in range(0, 30_000, 5000):
        jobs_ = [Seen("killmail", key, "0" * 40, asked=False) for key in range(start + 1, start + 5001)]
        store.run(lambda jobs_=jobs_: ledger.discover(store, jobs_, clock.now()))  # type: ignore[misc]
    long_ago = clock.now().replace(year=2020)
    ledger.finish(store, "corporation", [Done(98_000_000 + one, expires_at=long_ago) for one in range(3000)])
    store.run(lambda: store.rows("ANALYZE sync_jobs"))
    statements.clear()
    assert due.by_schedule(store, "killmail", 50) == []
    ((sql, parameters),) = statements.values()
    assert "sync_jobs_next_at" in plan(store, sql, parameters)


def test_the_tick_passes_over_none_that_is_patient(store: Store, statements: Statements) -> None:
    # Given very many answers that have expired and are not due yet, since they have slept for long
    now, n = clock.now(), 20_000
    expired = now - dt.timedelta(hours=2)
    rhythm = Rhythm(3600.0, None, ((0.0, 6),))
    for start in range(0, n, 5000):
        ids = range(98_000_001 + start, 98_000_001 + start + 5000)
        store.run(lambda ids=ids: ledger.discover(store, [Seen("corporation", key) for key in ids], now))  # type: ignore[misc]
        ledger.finish(store, "corporation", [Done(key, checked_at=expired, expires_at=expired) for key in ids], (), rhythm)
    # ... of which three are due
    few = [98_000_001, 98_000_007, 98_010_000]
    ledger.finish(store, "corporation", [Done(key, checked_at=now, expires_at=expired) for key in few], (), Rhythm())
    store.run(lambda: store.rows("ANALYZE sync_jobs"))
    statements.clear()
    assert due.by_schedule(store, "corporation", 100) == few
    ((sql, parameters),) = statements.values()
    text = plan(store, sql, parameters)
    assert "sync_jobs_next_at" in text
    # The range of the index ends at now: no other condition is left that reads on.
    assert re.search(r"Index Cond: .*next_at <= |entity_type=\? AND next_at<\?", text), text


#: Jobs of the ledger of millions.
JOBS = int(os.environ.get("ESID_TEST_JOBS", "3000000"))


@pytest.mark.long
@pytest.mark.timeout(1400)
def test_a_look_at_what_is_due_costs_no_more_in_a_ledger_of_millions(database_url: str) -> None:
    # Given characters that have all expired and lie for longer, corporations that wait to be asked again after they were
    # given up, and killmails
    count = JOBS
    store = Store(database_url, statement_s=3600)
    migrate.migrate(store)
    now = clock.now()
    stamp, over, soon = (utc_text(now + dt.timedelta(hours=hours)) for hours in (-2000, -3, 2))
    kinds = [
        ("character", "completed", over, soon, soon), ("corporation", "failed", None, soon, None),
        ("killmail", "completed", None, None, None),
    ]  # fmt: skip
    for entity, status, expires, next_at, refresh_at in kinds:
        _many(store, count // 3, entity, status, stamp, stamp, expires, over, next_at, refresh_at)
    store.run(lambda: store.rows("ANALYZE sync_jobs"))

    # Then a look at what is due takes as long as in an empty one, and what comes is found as soon
    def tick() -> int:
        found = [due.by_schedule(store, name, 5000) for name in ("character", "corporation", "killmail")]
        return len([key for ids in [*found, due.to_refresh(store, "character", 5000)] for key in ids])

    took = []
    for _ in range(5):
        began = clock.monotonic()
        assert tick() == 0
        took.append(clock.monotonic() - began)
    print(f"{count:,} jobs: a tick takes {min(took) * 1000:.1f} ms")
    assert min(took) < 0.05, took
    ledger.finish(store, "character", [Done(7, checked_at=now, expires_at=now - dt.timedelta(minutes=1))])
    began = clock.monotonic()
    assert tick() == 1
    assert clock.monotonic() - began < 0.1
    # And what a person asks for is looked for in parts of which each is short, while others write
    nobody: Any = None
    requests = Asking(store, Publisher(store, nobody, "x"), "x")
    began = clock.monotonic()
    assert requests.sync("killmail", PERSON) == 0
    assert clock.monotonic() - began < 0.1
    slowest, looked = 0.0, began
    store.run(lambda: store.rows("UPDATE sync_jobs SET expires_at = %s WHERE entity_type = 'character'", (soon,)))
    execute = store.database.execute_sql

    def timed(*args: Any, **named: Any) -> Any:
        nonlocal slowest
        began = clock.monotonic()
        found = execute(*args, **named)
        slowest = max(slowest, clock.monotonic() - began)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.database, "execute_sql", timed)
        looked = clock.monotonic()
        assert list(due.by_person(store, "character", None, 5000)) == []
    looked = clock.monotonic() - looked
    print(
        f"a person's look at {count // 3:,} fresh characters takes {looked:.1f} s, its longest part {slowest * 1000:.0f} ms"
    )
    assert slowest < 0.2
    store.close()


def _many(store: Store, count: int, entity: str, status: str, *times: str | None) -> None:
    """So many jobs of one kind, in one statement."""
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "expires_at", "checked_at",
        "next_at", "refresh_at",
    )  # fmt: skip
    numbers = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < %s)"
    values = ["%s", "id", "%s", "0", *["%s"] * 6]
    if not store.is_sqlite:
        numbers = "WITH n AS (SELECT generate_series(1, %s) AS id)"
        values = [value if value != "%s" else f"CAST(%s AS {kind})" for value, kind in zip(values, _TYPES, strict=True)]
    sql = f"INSERT INTO sync_jobs ({', '.join(columns)}) {numbers} SELECT {', '.join(values)} FROM n"
    store.run(lambda: store.rows(sql, (count, entity, status, *times)))


_TYPES = ("TEXT", "", "TEXT", "", *["TIMESTAMPTZ"] * 6)


def work(store: Store, directory: Path) -> None:
    """Pass every path to the tables once."""
    broker = open_broker(store, "", "plans")
    publisher = Publisher(store, broker, "plans")
    requests = Asking(store, publisher, "plans")
    now = clock.now()
    failure = Failure("http_403", "HTTP 403")
    for entity in ENTITIES:
        ids = list(range(90_000_001, 90_000_006))
        list(requests.enqueue(entity, [(key, "0" * 40) for key in ids]))
        taken = ledger.take(store, entity.name, ids)
        seen = (Seen("character", 90_000_099), Seen("corporation", 98_000_099))
        ledger.finish(store, entity.name, [Done(taken[0].id, seen=seen, checked_at=now, expires_at=now)], {"character"})
        ledger.retry(store, entity.name, {taken[1].id: 0.0}, {job.id: failure for job in taken[1:3]})
        ledger.defer(store, entity.name, [taken[3].id], 0.0)
        ledger.give_back(store, entity.name, [taken[4].id])
        ledger.reopen(store, entity.name, [taken[0].id])
        ledger.orphaned(store, entity.name, -1.0, 10)
        ledger.adopt(store, entity.name, [taken[4].id], -1.0)
        ledger.job(store, entity.name, taken[0].id)
        due.by_schedule(store, entity.name, 100)
        due.to_refresh(store, entity.name, 100)
        recoveries.book(store, entity.name, [taken[4].id])
        recoveries.isolate(store, entity.name, [taken[4].id])
        notes.unbatchable(store, entity.name, ids)
        notes.add_unbatchable(store, entity.name, ids[:1])
        requests.sync(entity.lane)
    requests.refresh("character")
    dispatch(store, publisher, QUEUES)
    for run in tasks.works(store, publisher, requests).values():
        run()
    for wanted in (Filter(), Filter(entities=("corporation",), reason="http_403", since=now)):
        dead_letters.find(store, wanted)
        list(dead_letters.pages(store, wanted))
    requests.retry_dead(Filter(entities=("corporation",)))
    dead_letters.drop(store, Filter(ids=(1,)))
    ledger.counts(store)
    ledger.open_count(store, QUEUES)
    ledger.failed_since(store, QUEUES, clock.now())
    ledger.is_open(store, QUEUES)
    wholes.write(store, LAYOUT, [Whole(1, "0" * 40, ([], [], []))], [], GATHERING, lambda: None)
    for entity in ENTITIES:
        show.rows_of(store, entity.tables, 1)
    today = now.date()
    days.whole_ids(store, today)
    days.count(store, today)
    days.compared(store, [today])
    budget = Budget(directory / "budget", Limits())
    collect(Sources(store, broker, budget, {}, "1", "here"))
    budget.close()
    requests.purge("corporation")
    broker.close()
