"""Tells the database every few seconds that a process lives and what it does; a thread of its own.

The supervisor watches its children through shared memory (`board`); this is for people and for other hosts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from esid import clock, host
from esid.clock import Stop
from esid.errors import EsidError
from esid.queue.middleware.doing import Doing
from esid.store import counters, processes
from esid.store.connection import Store

#: Seconds between two beats.
EVERY_S = 5.0


class Beats:
    """Of one process.

    Args:
        kind: worker, scheduler, feed or web.
        state: what else is to be known of it, as plain values.
        doing: what its threads do; None where it has none that work.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        stop: Stop,
        state: Callable[[], dict[str, Any]] = dict,
        doing: Doing | None = None,
    ) -> None:
        self._store, self._kind, self._stop, self._state, self._doing = store, kind, stop, state, doing
        self._name, self._since = f"{host.NAME}:{os.getpid()}", clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)

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
            try:
                processes.beat(self._store, self._name, self._kind, self._words())
                self._write_counts()
            except EsidError:
                # Whoever works has said that the database is away; we are silent meanwhile, as is true.
                pass
            if self._stop.wait(EVERY_S):
                return

    def _words(self) -> dict[str, Any]:
        return {
            "daemon": os.getppid(),
            "up_s": round(clock.monotonic() - self._since),
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
