"""What the worker threads of a process have in hand, in memory that outlives the process.

The supervisor makes the memory before the fork; the process that replaces a dead worker reads there which ids it worked
on when it died. Written without locks: each thread has a cell of its own, and the count of ids is written last.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

#: Most ids of a message, and numbers of a cell: the entity's place, how many ids (negative in quarantine), the ids.
MOST_IDS = 1000
_CELL = MOST_IDS + 2
InHand = tuple[int, list[int], bool]


class Hands:
    """The cells of one worker process.

    Args:
        numbers: a view of signed 64-bit integers, `size(threads)` bytes long.
    """

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers
        self._cells = len(numbers) // _CELL
        self._mine = threading.local()
        self._given = 0
        self._lock = threading.Lock()

    def take(self, place: int, ids: Sequence[int], *, quarantined: bool = False) -> None:
        """The calling thread begins to work on these ids of the entity at `place`."""
        cell = self._cell()
        if cell is None or len(ids) > MOST_IDS:
            return
        for number, key in enumerate(ids):
            self._numbers[cell + 2 + number] = key
        self._numbers[cell] = place
        self._numbers[cell + 1] = -len(ids) if quarantined else len(ids)

    def drop(self) -> None:
        """The calling thread has nothing in hand any more."""
        cell = self._cell()
        if cell is not None:
            self._numbers[cell + 1] = 0

    def held(self) -> list[InHand]:
        """(the entity's place, ids, whether in quarantine) of every message that somebody holds, or held who is gone."""
        found = []
        for cell in range(0, self._cells * _CELL, _CELL):
            if count := self._numbers[cell + 1]:
                ids = list(self._numbers[cell + 2 : cell + 2 + min(MOST_IDS, abs(count))])
                found.append((self._numbers[cell], ids, count < 0))
        return found

    def clear(self) -> None:
        """Forget what is left."""
        for cell in range(0, self._cells * _CELL, _CELL):
            self._numbers[cell + 1] = 0

    def _cell(self) -> int | None:
        """Where the calling thread's cell begins; None for a thread too many."""
        mine: int | None = getattr(self._mine, "cell", None)
        if mine is None:
            with self._lock:
                mine, self._given = self._given, self._given + 1
            self._mine.cell = mine
        return mine * _CELL if mine < self._cells else None


def size(threads: int) -> int:
    """Bytes for the hands of one process."""
    return 8 * _CELL * threads
