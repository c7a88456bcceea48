"""What the processes of one daemon know together of an outage, so that only one of them says it."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_SINCE, _FAILED_AT, _BACK_AT, _IS_PARTIAL = range(4)
_WIDTH = 4
#: The kernel's locks are those of processes. Two threads that held one each would look like a deadlock to it (EDEADLK).
_one_thread = threading.Lock()


class Known:
    """Of one outage. Times are monotonic; 0 = never.

    Args:
        numbers: in memory that all processes share; None = this process is alone.
        file: a descriptor that all of them have inherited, and the byte in it that is locked.
    """

    def __init__(self, numbers: memoryview[float] | None = None, file: int = -1, byte: int = 0) -> None:
        self._numbers = memoryview(bytearray(8 * _WIDTH)).cast("d") if numbers is None else numbers
        self._file, self._byte = file, byte

    @property
    def is_shared(self) -> bool:
        """Whether other processes tell of the same outage."""
        return self._file >= 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other thread and no other process reads or writes in here. The kernel takes the lock from a process that is
        killed."""
        with _one_thread:
            if not self.is_shared:
                yield
                return
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._byte)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._byte)

    @property
    def since(self) -> float:
        """When it was said that it is away; 0 = it was not, or is over."""
        return self._numbers[_SINCE]

    @property
    def back_at(self) -> float:
        """When it was last said that it is back."""
        return self._numbers[_BACK_AT]

    @property
    def failed_at(self) -> float:
        """When a process last met it."""
        return self._numbers[_FAILED_AT]

    @property
    def is_partial(self) -> bool:
        """Whether somebody met a fault that others need not meet."""
        return self._numbers[_IS_PARTIAL] > 0

    def fail(self, now: float, *, is_partial: bool) -> None:
        """A process meets it."""
        self._numbers[_FAILED_AT] = now
        self._numbers[_IS_PARTIAL] = float(is_partial or self.is_partial)

    def begin(self, now: float) -> None:
        """It is said."""
        self._numbers[_SINCE] = now

    def end(self, now: float) -> None:
        """Its end is said."""
        self._numbers[_SINCE] = self._numbers[_IS_PARTIAL] = 0.0
        self._numbers[_BACK_AT] = now


def shared(names: Sequence[str]) -> dict[str, Known]:
    """One for each name, for this process and all that are forked from it."""
    file = os.memfd_create("esid outages")
    numbers = memoryview(mmap.mmap(-1, 8 * _WIDTH * len(names))).cast("d")
    return {name: Known(numbers[place * _WIDTH : (place + 1) * _WIDTH], file, place) for place, name in enumerate(names)}
