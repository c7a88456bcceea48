"""When an answer may be asked for again, from its headers. Durations come from the answer's own clock."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache

#: Seconds: no answer is asked for again sooner or (but for immutable ones) trusted longer.
FLOOR_S, CAP_S = 60.0, 86_400.0


def http_date(text: str | None) -> dt.datetime | None:
    """An aware time from an HTTP date; None where there is none or it is none."""
    return _http_date(text) if text else None


@lru_cache(maxsize=256)
def _http_date(text: str) -> dt.datetime | None:
    """Answers of one second share most of their dates."""
    try:
        time = parsedate_to_datetime(text)
    except (OverflowError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def fresh_s(headers: Mapping[str, str], cache_s: float) -> float:
    """Seconds until the answer expires, at least 60 and at most a day.

    Args:
        cache_s: the route's known cache time, used where the answer names none (a 304 without Expires) or one in
            the past.
    """
    date, expires = http_date(headers.get("Date")), http_date(headers.get("Expires"))
    seconds = cache_s
    if date and expires:
        told = (expires - date).total_seconds()
        seconds = told if told > 0 else FLOOR_S
    elif match := re.search(r"max-age=([0-9]{1,9})", headers.get("Cache-Control", "")):
        seconds = float(match[1])
    return min(max(seconds, FLOOR_S), CAP_S)


def as_of(headers: Mapping[str, str], cache_s: float, now: dt.datetime) -> dt.datetime:
    """The time that the answer speaks of, by ESI's clock: an answer out of ESI's cache is older than its Date."""
    date = http_date(headers.get("Date")) or now
    expires = http_date(headers.get("Expires"))
    if expires is None:
        return date
    # An Expires in the distant past only says "do not cache"; no answer is much older than the route's cache time.
    age = min(dt.timedelta(seconds=2 * cache_s), max(dt.timedelta(0), date - expires + dt.timedelta(seconds=cache_s)))
    return date - age
