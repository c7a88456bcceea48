"""Transactions that collide, wait, are refused or lose their connection: repeated where that helps, named where not."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playhouse.pool import PooledPostgresqlDatabase

from esid import clock, log
from esid.entities.corporation import Corporation
from esid.errors import DatabaseForbids, DatabaseUnavailable
from esid.store import dead_letters, drivers, ledger, migrate, notes, pg_deadline, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Done, Failure, Row, Seen
from tests.tools.servers import Postgres
from tests.tools.waiting import wait_until

spawn = multiprocessing.get_context("spawn")


def test_a_thread_in_a_hurry_waits_for_no_answer_any_longer(pg_store: Store) -> None:
    with pg_deadline.at_most(1.0):
        with pg_deadline.at_most(5.0):
            assert pg_deadline.patience_s() == 1.0
        with pytest.raises(DatabaseUnavailable, match="no answer within 1 s"):
            pg_store.change("SELECT pg_sleep(20)", ())
    assert pg_deadline.patience_s() > 30
    assert pg_store.change("SELECT 1", ()) == [(1,)]


def test_nobody_waits_long_for_a_dead_connection_that_somebody_else_looks_at(
    pg_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a connection that was idle for so long that it is asked whether it lives, under the lock of all connections
    pg_store.change("SELECT 1", ())
    monkeypatch.setattr(drivers, "_IDLE_S", 0.0)
    patience = list[float]()

    def asked(*_: object) -> bool:
        patience.append(pg_deadline.patience_s())
        return False

    monkeypatch.setattr(PooledPostgresqlDatabase, "_is_closed", asked)
    assert pg_store.change("SELECT 1", ()) == [(1,)]
    assert patience == [pg_deadline.CONNECT_S]
    assert pg_deadline.patience_s() > 30


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_forced_collision_is_repeated_and_given_up_after_three(pg_store: Store, code: str) -> None:
    tries: list[int] = []

    def work(fails: int) -> int:
        tries.append(1)
        if len(tries) <= fails:
            pg_store.rows(f"DO $$ BEGIN RAISE EXCEPTION 'collision' USING ERRCODE = '{code}'; END $$")
        return len(tries)

    assert pg_store.run(lambda: work(2)) == 3
    tries.clear()
    with pytest.raises(DatabaseUnavailable, match="collision"):
        pg_store.run(lambda: work(9))
    assert len(tries) == 3


def test_a_lost_connection_in_a_transaction_is_repeated_on_a_new_one(pg_store: Store) -> None:
    # Given a pool of connections, all of which the server ends
    def touch() -> None:
        pg_store.run(lambda: pg_store.rows("SELECT pg_sleep(0.2)"))

    threads = [threading.Thread(target=touch) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tries: list[int] = []

    def work() -> int:
        tries.append(1)
        if len(tries) == 1:
            pg_store.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()")
        return int(pg_store.rows("SELECT 7")[0][0])

    # Then the transaction is done, not by trying one dead connection after the other
    assert pg_store.run(work) == 7
    assert len(tries) == 2


def _finish(url: str, order: list[int], rounds: int) -> None:
    store = Store(url, pool_size=1)
    for number in range(rounds):
        ledger.finish(store, "corporation", [done(key, number) for key in order])
    store.close()


def done(key: int, number: int) -> Done:
    """An answer about a corporation."""
    return Done(id=key, rows=(Row(Corporation, {"id": key, "name": f"n{number}", "ticker": "T", "member_count": number}),))


def test_batches_in_opposite_order_do_not_deadlock(pg_url: str, pg_store: Store, postgres: Postgres) -> None:
    keys = list(range(1, 30))
    ledger.request(pg_store, [Seen("corporation", key) for key in keys])
    processes = [spawn.Process(target=_finish, args=(pg_url, order, 40)) for order in (keys, keys[::-1])]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert "deadlock detected" not in postgres.log_of(urlsplit(pg_url).path[1:])


def _publish(url: str, keys: list[int], rounds: int) -> None:
    store = Store(url, pool_size=1)
    for _ in range(rounds):
        ledger.queued(store, "corporation", keys, clock.now())
        ledger.adopt(store, "corporation", keys, -1.0)
        ledger.claim(store, "corporation", keys)
    store.close()


def _take_and_give_back(url: str, keys: list[int], rounds: int) -> None:
    store = Store(url, pool_size=1)
    for _ in range(rounds):
        for start in range(0, len(keys), 50):
            part = [job.id for job in ledger.take(store, "corporation", keys[start : start + 50])]
            ledger.give_back(store, "corporation", part)
            ledger.defer(store, "corporation", part, 0.0)
            recoveries.isolate(store, "corporation", [job.id for job in ledger.take(store, "corporation", part)])
    store.close()


def test_publishers_and_workers_of_the_same_ids_do_not_deadlock(pg_url: str, pg_store: Store, postgres: Postgres) -> None:
    # Given jobs that lie in the table in another order than that of their ids
    keys = list(range(1, 3001))
    mixed = sorted(keys, key=lambda key: key * 7919 % 3001)
    for start in range(0, 3000, 30):
        ledger.request(pg_store, [Seen("corporation", key) for key in mixed[start : start + 30]])
    pg_store.run(lambda: pg_store.rows("ANALYZE sync_jobs"))

    # When some mark all of them while others work on a few at a time
    works = [(_publish, 15), (_publish, 15), (_take_and_give_back, 3), (_take_and_give_back, 3)]
    processes = [spawn.Process(target=work, args=(pg_url, keys, rounds)) for work, rounds in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    # Then nobody waited in a circle
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert "deadlock detected" not in postgres.log_of(urlsplit(pg_url).path[1:])


def test_a_letter_that_is_written_while_an_answer_waits_goes_with_it(pg_store: Store) -> None:
    ledger.request(pg_store, [Seen("corporation", 7)])
    answered = threading.Thread(target=lambda: ledger.finish(pg_store, "corporation", [done(7, 1)]))

    def give_up() -> None:
        ledger.retry(pg_store, "corporation", {}, {7: Failure("unavailable", "no answer")})
        answered.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        look = "SELECT pg_stat_clear_snapshot()"
        wait_until(lambda: pg_store.rows(look) and pg_store.rows(waiting), 10, "an answer that waits for the job")

    pg_store.run(give_up)
    answered.join(10)
    assert ledger.counts(pg_store) == {"corporation": {"completed": 1}}
    assert dead_letters.find(pg_store, Filter()) == []


def _count_up(url: str, times: int) -> None:
    store = Store(url)
    for _ in range(times):

        def work() -> None:
            (value,) = store.rows("SELECT retry_count FROM sync_jobs WHERE entity_id = 1")[0]
            store.rows("UPDATE sync_jobs SET retry_count = %s WHERE entity_id = 1", (value + 1,))

        store.run(work)
    store.close()


def test_three_processes_that_read_and_write_one_sqlite_row_lose_no_update(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'esid.db'}"
    store = Store(url)
    migrate.migrate(store)
    ledger.request(store, [Seen("corporation", 1)])
    processes = [spawn.Process(target=_count_up, args=(url, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    job = ledger.job(store, "corporation", 1)
    assert job
    assert job["retry_count"] == 600
    store.close()


def test_a_file_that_another_program_holds_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "BUSY_S", 0.2)
    url = f"sqlite:///{tmp_path / 'esid.db'}"
    store, other = Store(url), Store(url)
    migrate.migrate(store)
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        other.run(lambda: (held.set(), release.wait(30)))
        other.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(DatabaseUnavailable, match=r"esid\.db .*database is locked"):
        ledger.request(store, [Seen("corporation", 1)])
    release.set()
    holder.join()
    assert ledger.request(store, [Seen("corporation", 1)]).queued == (1,)
    store.close()


def test_a_role_that_may_not_write_is_named(pg_store: Store, pg_url: str) -> None:
    pg_store.run(lambda: pg_store.rows("CREATE ROLE reader LOGIN"))
    pg_store.run(lambda: pg_store.rows("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    try:
        with pytest.raises(DatabaseForbids, match="permission denied"):
            pg_store.run(lambda: (pg_store.rows("SET LOCAL ROLE reader"), pg_store.rows("DELETE FROM memos")))
    finally:
        pg_store.run(lambda: pg_store.rows("DROP OWNED BY reader"))
        pg_store.run(lambda: pg_store.rows("DROP ROLE reader"))


def test_a_server_that_is_read_only_for_a_while_is_away_until_somebody_has_written(
    pg_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a server that has become a standby and has left its sessions alone
    caplog.set_level(logging.INFO)
    pg_store.run(lambda: pg_store.rows("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(DatabaseUnavailable, match=r"read-only \(cannot execute DELETE .*make it writable") as caught:
        pg_store.run(lambda: pg_store.rows("DELETE FROM memos"))

    # Then who reads, or finds nothing to write, does not say that it is back
    log.outage("database").down(caught.value)
    assert ledger.counts(pg_store) == {}
    pg_store.run(lambda: pg_store.rows("DELETE FROM memos WHERE name = 'none'"))
    assert [record.message for record in caplog.records if record.name == "esid.daemon"] == ["database.away"]

    # And the next connection is a new one, maybe to another server
    notes.set_memo(pg_store, "name", "value")
    assert "database.back" in caplog.text


def test_a_pool_that_is_used_up_is_waited_for_and_then_named(pg_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "POOL_WAIT_S", 1)
    store = Store(pg_url, pool_size=1)
    release, held = threading.Event(), threading.Event()
    holder = threading.Thread(target=lambda: store.run(lambda: (held.set(), release.wait(30))))
    holder.start()
    held.wait(10)
    with pytest.raises(DatabaseUnavailable, match="Max connections exceeded"):
        ledger.counts(store)
    release.set()
    holder.join()
    wait_until(lambda: ledger.counts(store) == {}, 5, "a connection")
    store.close()
