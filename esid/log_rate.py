"""Keeps a log readable: an event that comes again and again is said so many times a minute, and then counted."""

from __future__ import annotations

import logging
import threading

from esid import clock

#: Lines of one event and level that a process writes within the seconds; the rest is told as a number afterwards.
MOST, WITHIN_S = 20, 60.0


class Rate(logging.Filter):
    """Lets a bounded number of lines of each event through. The next one after a flood says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True for a line that is to be written."""
        now, key = clock.monotonic(), (record.getMessage()[:80], record.levelno)
        with self._lock:
            since, count = self._seen.get(key, (now, 0))
            left_out = 0
            if now - since >= WITHIN_S:
                since, count, left_out = now, 0, max(0, count - MOST)
            if len(self._seen) > 1000:
                self._seen.clear()
            self._seen[key] = (since, count + 1)
        if left_out:
            record.esid_fields = {**getattr(record, "esid_fields", {}), "left_out": left_out}
        return count < MOST
