"""The pace of one host that is asked: requests keep their distance, whichever process with this file sends them.

The time of the next request lies in a small file, locked by flock (the kernel takes the lock back from a killed
process), so that the feed, healing and imports together stay below the source's limit, and a wait that the source has
asked for outlives a restart. Times are monotonic; a file from before the last boot is worth nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from esid import clock
from esid.clock import Stop
from esid.errors import NotPermitted, Stopping

#: zKillboard permits 15 requests a second: with this distance no second holds more, even where one is delayed.
ZKILLBOARD_S = 1 / 13.8
#: EVE Ref names no limit; this is what politeness asks of a program that downloads day after day.
EVEREF_S = 0.5
#: Seconds that are believed at most when a source asks for a wait, and what a file may hold at all.
LONGEST_WAIT_S = 900.0


class Pace:
    """Lets one request go every `distance_s` seconds.

    Args:
        path: the file that all processes share.
        stop: ends every wait at once.

    Raises:
        NotPermitted: the file cannot be made or opened.
    """

    def __init__(self, path: Path, distance_s: float, stop: Stop | None = None) -> None:
        self._path, self._distance_s, self._stop = path, distance_s, stop or Stop()
        self._change(lambda _: None)

    def wait(self) -> None:
        """Return when the next request may leave.

        Raises:
            Stopping: the process stops; the place in the row is lost, no request has left.
        """
        wait_s = self._change(lambda next_at: max(next_at, clock.monotonic()) + self._distance_s)
        if self._stop.wait(wait_s):
            raise Stopping("stopping")

    def check(self) -> None:
        """Raise Stopping where the process stops: a long answer is not read to its end then."""
        if self._stop.is_set():
            raise Stopping("stopping")

    def hold(self, seconds: float) -> None:
        """Let nothing leave for so long: the source has asked for it."""
        until = clock.monotonic() + min(seconds, LONGEST_WAIT_S)
        self._change(lambda next_at: max(next_at, until))

    def _change(self, change: Callable[[float], float | None]) -> float:
        """Move the time of the next request; seconds until the one that stood there before."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotPermitted(f"{self._path} cannot be opened: {error.strerror}; set ESID_DATA_DIR") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            now, next_at = clock.monotonic(), _number(os.pread(file, 64, 0))
            # More than any wait means another boot's clock.
            next_at = next_at if next_at < now + 2 * LONGEST_WAIT_S else 0.0
            changed = change(next_at)
            if changed is not None:
                os.pwrite(file, f"{changed:.6f}\n".encode().ljust(64), 0)
            return max(0.0, next_at - now)
        finally:
            os.close(file)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
