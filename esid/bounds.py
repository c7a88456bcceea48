"""How far ahead a time may lie and be believed: beyond, it comes from a clock that was wrong, ours or another one's."""

from __future__ import annotations

import datetime as dt

#: Seconds by which clocks may differ, and for which ESI's answers are trusted at most.
SKEW_S, TRUSTED_S = 300.0, 86_400.0
_SKEW, _LATEST = dt.timedelta(seconds=SKEW_S), dt.timedelta(seconds=TRUSTED_S + SKEW_S)


def ahead(now: dt.datetime) -> dt.datetime:
    """The latest time of something that has happened."""
    return now + _SKEW


def expiry(now: dt.datetime) -> dt.datetime:
    """The latest time at which an answer that is there expires."""
    return now + _LATEST


def happened(time: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
    """A time of the past; None for one that cannot be true."""
    return None if time is None or time > ahead(now) else time


def expires(time: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
    """An answer's expiry; None for one that cannot be true: the answer counts as expired."""
    return None if time is None or time > expiry(now) else time
