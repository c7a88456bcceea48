"""What the supervisor and its children tell each other, in memory that all of them share: made before the first fork.

A child says that it has started, that its main thread lives, when its slowest consumer last moved (all on the monotonic
clock), and which schema the database has. The supervisor says how often a child has been replaced.
"""

from __future__ import annotations

import mmap
import uuid

from esid import clock
from esid.queue import hands
from esid.queue.hands import Hands

_BOOTED, _BEAT_AT, _MOVED_AT, _RESTARTS, _NOTED, _SCHEMA = range(6)
_WIDTH = 6


class Cell:
    """The numbers of one child, and the hands of its threads.

    Args:
        threads: worker threads whose hands are kept; 0 for a child that is no worker.
    """

    def __init__(self, threads: int) -> None:
        #: The child's for ever, whichever process it is: no cell of any daemon has the same.
        self.name = uuid.uuid4().hex
        self._map = mmap.mmap(-1, 8 * _WIDTH + hands.size(threads))
        whole = memoryview(self._map)
        self._numbers = whole[: 8 * _WIDTH].cast("d")
        self._hands = whole[8 * _WIDTH :].cast("q")

    @property
    def hands(self) -> Hands:
        """A view of the hands; make one a process."""
        return Hands(self._hands)

    @property
    def booted(self) -> bool:
        """True once the child has all of its parts."""
        return self._numbers[_BOOTED] > 0

    @property
    def silent_s(self) -> tuple[float, float]:
        """Seconds since the main thread was last heard of, and since the slowest consumer moved."""
        now = clock.monotonic()
        return now - self._numbers[_BEAT_AT], now - self._numbers[_MOVED_AT]

    @property
    def unnoted(self) -> int:
        """All restarts so far, as long as that number is not in the database; else 0."""
        count = self._numbers[_RESTARTS]
        return int(count) if count != self._numbers[_NOTED] else 0

    @property
    def schema(self) -> int:
        """The number of the database's schema when the child last looked; 0 = it has not."""
        return int(self._numbers[_SCHEMA])

    def start(self, *, again: bool) -> None:
        """A new process is about to be started."""
        self._numbers[_BOOTED] = 0.0
        self._numbers[_BEAT_AT] = self._numbers[_MOVED_AT] = clock.monotonic()
        self._numbers[_RESTARTS] += float(again)

    def boot(self) -> None:
        """The process has all of its parts."""
        self._numbers[_BOOTED] = 1.0

    def beat(self, moved_at: float | None = None) -> None:
        """The main thread lives; `moved_at` is when the slowest consumer moved (None = there is none)."""
        self._numbers[_BEAT_AT] = clock.monotonic()
        self._numbers[_MOVED_AT] = self._numbers[_BEAT_AT] if moved_at is None else moved_at

    def saw_schema(self, number: int) -> None:
        """The database has this schema."""
        self._numbers[_SCHEMA] = number

    def note(self, count: int) -> None:
        """The database knows of so many restarts."""
        self._numbers[_NOTED] = count
