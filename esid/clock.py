"""The one place that reads a clock, sleeps, or says in words how long something takes.

Seconds everywhere; wall-clock times are aware and UTC. Waits use the monotonic clock, so that a step of the wall clock
neither shortens nor lengthens them.
"""

from __future__ import annotations

import datetime as dt
import threading
import time


def now() -> dt.datetime:
    """The wall clock, aware, UTC."""
    return dt.datetime.now(dt.UTC)


def monotonic() -> float:
    """Seconds since boot: the same in all processes of one host (Linux), never set back."""
    return time.monotonic()


def slept_s() -> float:
    """Seconds that this host was suspended since boot: in those the monotonic clock stands still, and others go on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def sleep(seconds: float) -> None:
    """Sleep without a way to be woken: only for loops that nobody has to stop."""
    time.sleep(max(0.0, seconds))


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


class Stop:
    """A stop signal that every wait in a process listens to."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask everybody to stop. Twice is harmless."""
        self._event.set()

    def is_set(self) -> bool:
        """True once stopping was asked for."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; True at once when stopping was asked for."""
        return self._event.wait(max(0.0, seconds))
