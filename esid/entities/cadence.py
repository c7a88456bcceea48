"""How often the schedule asks again: never before the Expires, and later the longer a thing has slept.

What changed lately is asked each time its cache time is over. What has not changed for a week waits one cache time more,
and so on up to six cache times in all; a person who asks (`esid sync`, `esid enqueue`) waits for the Expires alone. The
table stands in docs/requests.md.
"""

from __future__ import annotations

from esid.entities.base import Entity
from esid.store.model import Rhythm

_DAY_S = 86_400.0
#: (seconds since the last change from which it holds, cache times in which it is asked once), the longest sleep last.
BANDS: tuple[tuple[float, int], ...] = ((0.0, 1), (7 * _DAY_S, 2), (30 * _DAY_S, 4), (90 * _DAY_S, 6))


def rhythm(entity: Entity) -> Rhythm:
    """When an answer of this entity is asked for again."""
    return Rhythm(entity.route.cache_s, entity.bulk.good_s if entity.bulk else None, BANDS)


def asked_every_s(cache_s: float, slept_s: float) -> float:
    """Seconds from one look to the next at something that has not changed for `slept_s`."""
    return cache_s * max(times for from_s, times in BANDS if slept_s >= from_s)
