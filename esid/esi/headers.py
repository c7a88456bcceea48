"""Reads the headers that speak of limits and pages, each within its range. Garbage is as good as nothing: no wait is
shorter for it, and no number from outside is so large that nobody ever asks again, and so learns better.

| header | range |
|---|---|
| X-Esi-Error-Limit-Remain | 0 to 100 errors |
| X-Esi-Error-Limit-Reset | 0 to 60 s |
| Retry-After | 0 to 900 s |
| X-Ratelimit-Limit | 1 to 10^9 tokens in 1 s to a day |
| X-Ratelimit-Used, X-Ratelimit-Remaining | 0 to 10^9 tokens |
| X-Pages | 0 to 2000 pages |
"""

from __future__ import annotations

from collections.abc import Mapping

from esid import clock
from esid.esi.cache import http_date

#: Errors and seconds of ESI's fixed error window.
ERROR_LIMIT, ERROR_WINDOW_S = 100, 60.0
#: Seconds: an announced wait that is missing or garbage, and the most that is believed.
DEFAULT_WAIT_S, LONGEST_WAIT_S = 60.0, 900.0
#: Most tokens of a bucket, its longest window, most pages of a list (the longest known had 411).
MOST_TOKENS, LONGEST_WINDOW_S, MOST_PAGES = 1e9, 86_400.0, 2000
_UNITS = {"s": 1, "m": 60, "h": 3600}


def error_limit(headers: Mapping[str, str]) -> tuple[float, float] | None:
    """(errors left, seconds until the window ends); None where the answer does not say both."""
    remain, reset = number(headers.get("X-Esi-Error-Limit-Remain")), number(headers.get("X-Esi-Error-Limit-Reset"))
    return None if remain is None or reset is None else (min(remain, ERROR_LIMIT), min(reset, ERROR_WINDOW_S))


def error_reset_s(headers: Mapping[str, str]) -> float:
    """Seconds until the error limit resets; 60 where the answer names no believable time, and at most."""
    reset = number(headers.get("X-Esi-Error-Limit-Reset"))
    return ERROR_WINDOW_S if reset is None else min(reset, ERROR_WINDOW_S)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, given in seconds or as a date; 60 where it is missing or garbage, 900 at most."""
    text = headers.get("Retry-After", "").strip()
    seconds = number(text)
    if seconds is None and (until := http_date(text)):
        seconds = (until - (http_date(headers.get("Date")) or clock.now())).total_seconds()
    return DEFAULT_WAIT_S if seconds is None or seconds < 0 else min(seconds, LONGEST_WAIT_S)


def bucket_limit(headers: Mapping[str, str]) -> tuple[float, float] | None:
    """(tokens, seconds) of `X-Ratelimit-Limit: 3600/15m`; None for anything else."""
    tokens, _, window = headers.get("X-Ratelimit-Limit", "").partition("/")
    seconds = _UNITS.get(window[-1:])
    count, size = number(tokens), number(window[:-1])
    return (min(count, MOST_TOKENS), min(size * seconds, LONGEST_WINDOW_S)) if count and size and seconds else None


def tokens(headers: Mapping[str, str], name: str) -> float | None:
    """Tokens that `X-Ratelimit-Used` or `X-Ratelimit-Remaining` tells of."""
    told = number(headers.get(f"X-Ratelimit-{name}"))
    return None if told is None else min(told, MOST_TOKENS)


def pages(headers: Mapping[str, str]) -> int | None:
    """Pages of a list, 1 where the answer names none; None for garbage and for more than are believed."""
    told = number(headers.get("X-Pages", "1"))
    return None if told is None or told > MOST_PAGES else int(told)


def number(text: str | None) -> float | None:
    """A whole number of at most 11 digits; None for anything else."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None
