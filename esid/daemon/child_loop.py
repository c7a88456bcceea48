"""A child's own part in staying alive: it says that it lives, notices that its parent is gone, keeps small, and waits for a
stop.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

from esid import clock, host
from esid.clock import Stop
from esid.daemon import signals
from esid.daemon.cell import Cell
from esid.errors import EsidError
from esid.queue.hands import Hands
from esid.store import notes
from esid.store.connection import Store

#: Seconds between two times that memory which is free goes back to the kernel.
_TRIM_S = 60.0


class Life:
    """Of one child process, made after the fork.

    Args:
        kind: worker, scheduler or web: what its restarts are counted under.
    """

    def __init__(self, kind: str, cell: Cell) -> None:
        self.kind, self._cell, self._parent = kind, cell, os.getppid()
        self.stop = Stop()
        self.hands: Hands = cell.hands

    def saw_schema(self, number: int) -> None:
        """The database has this schema; the supervisor knows what that means."""
        self._cell.saw_schema(number)

    def wait_a_second(self) -> bool:
        """For a start that has to wait: still here; True when a stop was asked for."""
        signals.check_parent(self._parent)
        self._cell.beat()
        if signals.wait(1.0) in signals.STOPPING:
            self.stop.set()
        return self.stop.is_set()

    def wait_for_stop(
        self, store: Store, moved_at: Callable[[], float] | None = None, every_second: Callable[[], None] | None = None
    ) -> None:
        """The child has started; return when a stop was asked for, and tell all threads.

        Args:
            moved_at: when the slowest consumer last moved, on the monotonic clock.
            every_second: what else is to be done each second; it takes less than a few seconds.
        """
        self._cell.boot()
        # What a child is made of is no garbage, and need not be looked through for it.
        gc.freeze()
        trimmed_at = clock.monotonic()
        while not self.stop.is_set() and signals.wait(1.0) not in signals.STOPPING:
            signals.check_parent(self._parent)
            self._cell.beat(moved_at() if moved_at else None)
            self._note_restarts(store)
            if every_second:
                # Each of the two may have waited for a database that says nothing: together they take too long.
                self._cell.beat(moved_at() if moved_at else None)
                every_second()
            if clock.monotonic() - trimmed_at >= _TRIM_S:
                host.give_memory_back()
                trimmed_at = clock.monotonic()
        self.stop.set()

    def _note_restarts(self, store: Store) -> None:
        """Write to the database how often this child was replaced, as soon as that can be written.

        The total and not what came since: who is killed before it is noted here leaves it to the next one to say again.
        """
        if count := self._cell.unnoted:
            try:
                notes.note_restarts(store, self.kind, self._cell.name, count)
                self._cell.note(count)
            except EsidError:
                return
