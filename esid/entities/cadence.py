"""How often the schedule asks again: never before the Expires, and later the longer a thing has slept.

What changed lately is asked each time its cache time is over. What has not changed for a week waits one cache time more,
and so on up to six cache times in all; a person who asks (`esid sync`, `esid enqueue`) waits for the Expires alone. The
table stands in docs/requests.md.
"""

from __future__ import annotations

import datetime as dt

from esid.store.model import Patience

_DAY_S = 86_400.0
#: (seconds since the last change from which it holds, cache times in which it is asked once), the longest sleep last.
BANDS: tuple[tuple[float, int], ...] = ((0.0, 1), (7 * _DAY_S, 2), (30 * _DAY_S, 4), (90 * _DAY_S, 6))


def patience(cache_s: float, now: dt.datetime) -> tuple[Patience, ...]:
    """What the schedule waits beyond the expiry, for what has slept; the longest sleep first.

    Args:
        cache_s: the route's cache time.
    """
    return tuple(
        Patience(now - dt.timedelta(seconds=slept_s), dt.timedelta(seconds=(times - 1) * cache_s))
        for slept_s, times in reversed(BANDS)
        if times > 1
    )


def asked_every_s(cache_s: float, slept_s: float) -> float:
    """Seconds from one look to the next at something that has not changed for `slept_s`."""
    return cache_s * max(times for from_s, times in BANDS if slept_s >= from_s)
