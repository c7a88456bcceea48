"""When an answer may be asked for again, from its headers. Durations come from the answer's own clock."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache

from esid import bounds

#: Seconds: no answer is asked for again sooner or (but for immutable ones) trusted longer.
FLOOR_S, CAP_S = 60.0, bounds.TRUSTED_S
_FIRST_YEAR, _LAST_YEAR = 1900, 9000


def http_date(text: str | None) -> dt.datetime | None:
    """An aware time from an HTTP date; None where there is none or it is none."""
    return _http_date(text) if text else None


@lru_cache(maxsize=256)
def _http_date(text: str) -> dt.datetime | None:
    """Answers of one second share most of their dates."""
    try:
        time = parsedate_to_datetime(text)
        time = time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
    except (OverflowError, ValueError):
        return None
    # What lies at either end of the calendar is no date that anybody reckons with, or could.
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def times(headers: Mapping[str, str], cache_s: float, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The time that an answer speaks of, by ESI's clock, and that until which it holds, by ours.

    Args:
        cache_s: the route's known cache time.
    """
    date, expires = http_date(headers.get("Date")), http_date(headers.get("Expires"))
    return _as_of(date, expires, cache_s, now), now + dt.timedelta(seconds=_fresh_s(date, expires, headers, cache_s))


def _fresh_s(date: dt.datetime | None, expires: dt.datetime | None, headers: Mapping[str, str], cache_s: float) -> float:
    """Seconds until the answer expires, at least 60 and at most a day; the route's cache time where the answer names none
    (a 304 without Expires)."""
    seconds = cache_s
    if date and expires:
        told = (expires - date).total_seconds()
        seconds = told if told > 0 else FLOOR_S
    elif match := re.search(r"max-age=([0-9]{1,9})", headers.get("Cache-Control", "")):
        seconds = float(match[1])
    return min(max(seconds, FLOOR_S), CAP_S)


def _as_of(date: dt.datetime | None, expires: dt.datetime | None, cache_s: float, now: dt.datetime) -> dt.datetime:
    """An answer out of ESI's cache is older than its Date.

    A Date that is far ahead of our own clock is not believed: what is stored with it would be newer than all that follows.
    """
    date = min(date or now, bounds.ahead(now))
    if expires is None:
        return date
    # An Expires in the distant past only says "do not cache"; no answer is much older than the route's cache time.
    age = min(2 * cache_s, max(0.0, (date - expires).total_seconds() + cache_s))
    return date - dt.timedelta(seconds=age) if age else date
