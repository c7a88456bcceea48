"""Who owns the schedule: PostgreSQL's session advisory locks, one a queue, which die with their connection.

On SQLite the one daemon of the file owns all of it (the instance lock sees to that).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from esid import log
from esid.store import pg_deadline
from esid.store.connection import DRIVER_ERRORS, Store, connect
from esid.store.faults import translated

#: Seconds without a word after which the server ends the session that holds our locks (from PostgreSQL 14 on): of a process
#: that stands still the kernel answers the keepalives. We ask each second, and wait for nothing for as long.
SILENT_S = 20
_END_SILENT = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = 'idle_session_timeout'"
#: First half of the locks' keys: the letters "esid".
_CLASS = 0x65736964
_log = log.get("schedule")


class Leadership:
    """The queues whose schedule is ours. Safe to ask from several threads.

    Args:
        queues: names of the queues that this daemon works on; it schedules no others.
    """

    def __init__(self, store: Store, queues: Sequence[str]) -> None:
        self._store, self._queues = store, tuple(queues)
        self._held: frozenset[str] = frozenset(queues) if store.is_sqlite else frozenset()
        self._connection: Any = None
        self._lock = threading.Lock()

    def renew(self) -> frozenset[str]:
        """What is ours now: what we had, if the connection still stands, and what nobody else has.

        Nothing is ours while the database cannot be reached; no error is raised.
        """
        if self._store.is_sqlite:
            return self._held
        with self._alone():
            try:
                self._held = self._renewed()
            except DRIVER_ERRORS as error:
                self._lose(error)
            return self._held

    def holds(self) -> bool:
        """True when the connection that holds our locks has just answered."""
        if self._store.is_sqlite:
            return True
        with self._alone():
            try:
                return bool(self._held) and bool(self._ask("SELECT 1"))
            except DRIVER_ERRORS as error:
                self._lose(error)
                return False

    def close(self) -> None:
        """Give all of it up: the others take over at once."""
        with self._lock:
            self._forget()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Whoever asks, the main thread may wait behind it, and is to be heard of."""
        with self._lock, pg_deadline.at_most(pg_deadline.SOON_S):
            yield

    def _renewed(self) -> frozenset[str]:
        if self._connection is None:
            self._connection = connect(self._store)
            with self._connection.cursor() as cursor:
                cursor.execute(_END_SILENT, (f"{SILENT_S}s",))
        self._ask("SELECT 1")
        taken = set(self._held)
        for queue in self._queues:
            if queue not in taken and self._ask("SELECT pg_try_advisory_lock(%s, %s)", (_CLASS, _key(queue))):
                taken.add(queue)
        return frozenset(taken)

    def _ask(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchone()[0]

    def _lose(self, error: Exception) -> None:
        log.outage("database").down(translated(error, self._store.where))
        if self._held:
            log.event(_log, "schedule.lost", "the connection that holds the schedule's lock is gone; no tick without it")
        self._forget()

    def _forget(self) -> None:
        self._held = frozenset() if not self._store.is_sqlite else self._held
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DRIVER_ERRORS):
                connection.close()


def _key(queue: str) -> int:
    return zlib.crc32(queue.encode()) & 0x7FFFFFFF
