"""What the parts can do by themselves on this machine: requests alone, the queue alone, the database alone.

Each is as many processes as the daemon has, for some seconds; the cost is processor time for one corporation, that of
the servers among it.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dramatiq
import psycopg2
import requests

from bench.processes import cpu_s
from bench.standin import CHARACTER, CORPORATION, corporation
from esid import clock
from esid.entities import BY_NAME
from esid.entities.base import IDS_PER_MESSAGE
from esid.esi.answers import Answer
from esid.queue.broker import open_broker, queue_name
from esid.queue.publish import Publisher
from esid.store import ledger
from esid.store.connection import Store
from esid.store.drivers import sqlite_path
from esid.store.model import Seen

_fork = multiprocessing.get_context("fork")
#: Messages that are published before their consumers begin, for each second: more than they get through.
MESSAGES_PER_S = {"rabbitmq": 8_000, "database": 15_000}
_PREFIX, _ENTITY = "limit", "corporation"


@dataclass(frozen=True, slots=True)
class Rate:
    """Corporations a second, and milliseconds of processor for each."""

    per_s: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.per_s:,.0f}/s at {self.cpu_ms:.2f} ms"


def measured(work: Callable[[float, int], int], processes: int, seconds: float, servers: Sequence[int] = ()) -> Rate:
    """Run `work(ends_at, which)` in each of some processes; it returns how many it did until its end."""
    counts: Any = _fork.Queue()

    def child(which: int) -> None:
        before = cpu_s([_pid()])
        done = work(time.monotonic() + seconds, which)
        counts.put((done, cpu_s([_pid()]) - before))

    before, started = cpu_s(servers), time.monotonic()
    running = [_fork.Process(target=child, args=(which,)) for which in range(processes)]
    for one in running:
        one.start()
    found = [counts.get() for _ in running]
    took_s, served_s = time.monotonic() - started, cpu_s(servers) - before
    for one in running:
        one.join()
    done = sum(count for count, _ in found)
    return Rate(done / took_s, 1000 * (sum(used for _, used in found) + served_s) / done)


def _pid() -> int:
    return multiprocessing.current_process().pid or 0


def http(base_url: str, processes: int, threads: int, seconds: float, *, conditional: bool = False) -> Rate:
    """The same GETs by `requests` alone, as many in flight as the daemon may have; `conditional` = all are answered 304."""

    def work(ends_at: float, which: int) -> int:
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))
        done = [0] * threads

        def ask(place: int) -> None:
            while time.monotonic() < ends_at:
                path = f"/corporations/{CORPORATION + (which * threads + place) * 1000 + done[place] % 1000}"
                headers = {"If-None-Match": f'"{path}"'} if conditional else {}
                answer = session.get(base_url + path, headers=headers, timeout=10, allow_redirects=False)
                assert answer.status_code == 304 if conditional else "name" in answer.json()
                done[place] += 1

        _in_threads(ask, threads)
        return sum(done)

    return measured(work, processes, seconds)


def queue(url: str, rabbitmq_url: str, processes: int, threads: int, seconds: float, servers: Sequence[int]) -> Rate:
    """An actor that does nothing, on the same broker, with as many ids in a message."""
    store, most_per_s = Store(url), MESSAGES_PER_S["rabbitmq" if rabbitmq_url else "database"]
    publisher = Publisher(store, open_broker(store, rabbitmq_url, _PREFIX), _PREFIX)
    messages = [
        publisher._message(BY_NAME[_ENTITY], range(first, first + IDS_PER_MESSAGE), 0, False)
        for first in range(CORPORATION, CORPORATION + int(seconds) * most_per_s * IDS_PER_MESSAGE, IDS_PER_MESSAGE)
    ]
    publisher.broker.enqueue_many(messages)
    publisher.broker.close()
    store.close()

    def work(ends_at: float, _: int) -> int:
        own = Store(url)
        broker: Any = open_broker(own, rabbitmq_url, _PREFIX)
        done: list[int] = []

        @dramatiq.actor(broker=broker, actor_name=_ENTITY, queue_name=queue_name(_PREFIX, _ENTITY))
        def nothing(ids: list[int]) -> None:
            done.append(len(ids))

        worker = dramatiq.Worker(broker, queues={queue_name(_PREFIX, _ENTITY)}, worker_threads=threads)
        worker.start()
        threading.Event().wait(ends_at - time.monotonic())
        count = sum(done)
        worker.stop()
        broker.close()
        return count

    rate = measured(work, processes, seconds, servers)
    own = Store(url)
    open_broker(own, rabbitmq_url, _PREFIX).purge(queue_name(_PREFIX, _ENTITY))
    own.close()
    return rate


def write(url: str, processes: int, seconds: float, servers: Sequence[int]) -> Rate:
    """The statements of one message, in its transactions, again and again by the driver alone for other ids.

    The ids must be known to the ledger: see `known`.
    """
    statements = _recorded(url)

    def work(ends_at: float, which: int) -> int:
        connection = _connect(url)
        cursor, done = connection.cursor(), 0
        while time.monotonic() < ends_at:
            done += 1
            shift = IDS_PER_MESSAGE * (done * processes + which)
            for sql, parameters in statements:
                cursor.execute(sql, _shifted(parameters, shift))
                if cursor.description:
                    cursor.fetchall()
        connection.close()
        return done * IDS_PER_MESSAGE

    return measured(work, processes, seconds, servers)


def known(url: str, entity: str, first: int, count: int, *, asked: bool = True) -> None:
    """Make ids known in the ledger: pending, as after an answer has named them, or done."""
    store = Store(url)

    def discover(start: int) -> None:
        ids = range(start, min(start + 5000, first + count))
        ledger.discover(store, [Seen(entity, key, None if asked else "0" * 40, asked) for key in ids], clock.now())

    for start in range(first, first + count, 5000):
        store.run(partial(discover, start))
    store.close()


def _recorded(url: str) -> list[tuple[str, list[Any]]]:
    """The statements of one message of corporations, those that begin and end transactions among them, with parameters."""
    store, statements = Store(url), list[tuple[str, list[Any]]]()
    execute, run_once = store.database.execute_sql, store._run_once

    def record(sql: str, parameters: Sequence[Any] | None = None, *more: Any) -> Any:
        statements.append((sql, list(parameters or ())))
        return execute(sql, parameters, *more)

    def run(work: Callable[[], Any]) -> Any:
        statements.append(("BEGIN IMMEDIATE" if store.is_sqlite else "BEGIN", []))
        result = run_once(work)
        statements.append(("COMMIT", []))
        return result

    with store.connection():  # its pragmas are none of the message's
        store.database.execute_sql, store._run_once = record, run  # type: ignore[method-assign]
        jobs = ledger.take(store, _ENTITY, range(CORPORATION, CORPORATION + IDS_PER_MESSAGE))
        now = clock.now()
        parse = BY_NAME[_ENTITY].parse
        done = [parse(job, Answer(corporation(job.id - CORPORATION), True, "etag", now, now)) for job in jobs]
        ledger.finish(store, _ENTITY, done, {"character"})
    store.close()
    return statements


def _shifted(parameters: Iterable[Any], shift: int) -> tuple[Any, ...]:
    return tuple(
        [key + shift for key in one]
        if isinstance(one, list)
        else one + shift
        if isinstance(one, int) and one >= CHARACTER
        else one
        for one in parameters
    )


def _connect(url: str) -> Any:
    if not url.startswith("sqlite:"):
        connection = psycopg2.connect(url)
        connection.autocommit = True
        return connection
    connection = sqlite3.connect(sqlite_path(url), timeout=60, isolation_level=None)
    for pragma in ("journal_mode = wal", "synchronous = normal", "cache_size = -16000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _in_threads(work: Callable[[int], None], threads: int) -> None:
    running = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
