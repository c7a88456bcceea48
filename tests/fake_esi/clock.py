"""The fake's own clock, and the two date formats of HTTP and ESI."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

DAY_S = 86400


class Clock:
    """Real time plus an offset that a test can enlarge."""

    def __init__(self) -> None:
        self._offset_s = 0.0

    def now(self) -> float:
        """The fake's time in seconds since 1970."""
        return time.time() + self._offset_s

    def advance(self, seconds: float) -> None:
        """Move the fake's time forward; call it from one thread at a time."""
        self._offset_s += seconds


@lru_cache(maxsize=4096)
def http_date(second: int) -> str:
    """A second since 1970 as RFC 1123 wants it, e.g. "Sun, 28 Dec 2025 19:22:40 GMT"."""
    return formatdate(second, usegmt=True)


def next_daily_expiry(now: float) -> int:
    """The next 11:05:00 UTC after `now`, in seconds since 1970."""
    daily = int(now) // DAY_S * DAY_S + 11 * 3600 + 5 * 60
    return daily if daily > now else daily + DAY_S
