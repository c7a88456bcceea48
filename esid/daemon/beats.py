"""Tells the database every few seconds that a process lives and what it does, and hears which schema it has; a thread of
its own.

The supervisor watches its children through shared memory (`cell`); this is for people and for other hosts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from esid import clock, host, log
from esid.daemon.child_loop import Life
from esid.errors import DatabaseUnavailable, EsidError
from esid.queue.middleware.doing import Doing
from esid.store import counters, migrate, processes
from esid.store.connection import Store

#: Seconds between two beats.
EVERY_S = 5.0
_log = log.get("daemon")


class Beats:
    """Of one process.

    Args:
        life: of that process.
        state: what else is to be known of it, as plain values.
        doing: what its threads do; None where it has none that work.
        also: what else is to be said with each beat.
    """

    def __init__(
        self,
        store: Store,
        life: Life,
        state: Callable[[], dict[str, Any]] = dict,
        doing: Doing | None = None,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._life, self._state, self._doing, self._also = store, life, state, doing, also
        self._name, self._since = host.me(), clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)
        self._has_failed = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """After the stop: write what is left and sign off."""
        self._thread.join()
        try:
            self._write_counts()
            processes.leave(self._store, self._name)
        except EsidError:
            return

    def _run(self) -> None:
        while True:
            self._beat()
            if self._life.stop.wait(EVERY_S):
                return

    def _beat(self) -> None:
        """Whatever goes wrong is said once and tried again: who is silent is taken for dead."""
        try:
            self._life.saw_schema(processes.beat(self._store, self._name, self._life.kind, self._words()))
            self._write_counts()
            self._also()
            self._has_failed = False
        except DatabaseUnavailable as error:
            log.outage("database").down(error)
            if error.is_partial:
                self._look_at_schema()
        except Exception as error:  # noqa: BLE001
            if not self._has_failed:
                words = f"what this process does cannot be noted: {type(error).__name__}: {error}"
                log.event(_log, "daemon.beat_failed", words, level=logging.ERROR)
            self._has_failed = True
            self._look_at_schema()

    def _look_at_schema(self) -> None:
        """A beat may fail because a newer program has changed its table."""
        with suppress(EsidError):
            self._life.saw_schema(migrate.current(self._store))

    def _words(self) -> dict[str, Any]:
        return {
            "daemon": os.getppid(),
            "up_s": round(clock.monotonic() - self._since),
            "away": next(filter(None, (log.outage(thing).words for thing in ("database", "queue", "consumer"))), ""),
            "doing": self._doing.now() if self._doing else [],
            **self._state(),
        }

    def _write_counts(self) -> None:
        counts = self._doing.counts() if self._doing else {}
        try:
            counters.add(self._store, counts)
        except EsidError:
            if self._doing:
                self._doing.put_back(counts)
            raise
