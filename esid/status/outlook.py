"""How long the work that is open will take. Pure: counts of the ledger and requests in, seconds out.

What there is to do grows while it is done: alliances name member lists, those name corporations, and these characters. So
until the lists are in nobody knows more than "at least"; then the characters that each corporation has brought so far tell
how many are still to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from esid.entities import ENTITIES
from esid.esi.budget.doubts import EVERY_S

Counts = Mapping[str, Mapping[str, int]]
#: Seconds over which the rate is told: long enough that a pause of a few seconds does not change it much.
RATE_S = 60.0
#: What brings characters, and that which has a rate of its own: it waits for tokens, the others do not.
_PARENTS, _APART = ("corporation", "alliance"), "killmail"
_LISTS = tuple(entity.name for entity in ENTITIES if not entity.tables)


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds until all that is open is done; more where `is_least`."""

    seconds: float
    is_least: bool


class Outlook:
    """Of one stretch of work, from when it was given out until all of it is done.

    Args:
        counts: entity -> status -> rows of the ledger, when it began.
        names: the entities that are worked on.
    """

    def __init__(self, counts: Counts, names: Collection[str], now: float, requests: int) -> None:
        self._names, self._began = names, {name: (known(counts, name), _done(counts, name)) for name in names}
        self._rates = deque([(now, requests, self._began.get(_APART, (0, 0))[1])])

    def left(self, counts: Counts, now: float, requests: int, doubted: int = 0) -> Left | None:
        """None while nobody can tell.

        Args:
            now: monotonic seconds.
            requests: sent so far.
            doubted: those of the open ones that are asked at the pace of doubted sources, whatever the others have.
        """
        done_apart = _done(counts, _APART)
        self._rates.append((now, requests, done_apart))
        while len(self._rates) > 2 and now - self._rates[1][0] > RATE_S:
            self._rates.popleft()
        then, sent, done = self._rates[0]
        seconds = max(0.001, now - then)
        apart_rate = max(0, done_apart - done) / seconds
        rate = max(0.0, requests - sent) / seconds - apart_rate - (1 / EVERY_S if doubted else 0.0)
        to_do = sum(unfinished(counts, name) for name in self._names if name != _APART) + self._to_come(counts)
        to_do = max(0.0, to_do - doubted)
        apart = unfinished(counts, _APART) if _APART in self._names else 0
        if (to_do and rate < 0.1) or (apart and not to_do and apart_rate < 0.01):
            return None
        left_s = max(to_do / rate if to_do else 0.0, doubted * EVERY_S, apart / apart_rate if apart_rate >= 0.01 else 0.0)
        return Left(left_s, any(unfinished(counts, name) for name in _LISTS if name in self._names))

    def _to_come(self, counts: Counts) -> float:
        """Characters that nobody has named yet: each asks for its details once."""
        if "character" not in self._names:
            return 0.0
        done = sum(_done(counts, name) - self._began[name][1] for name in _PARENTS if name in self._names)
        open_ = sum(unfinished(counts, name) for name in _PARENTS if name in self._names)
        return max(0, known(counts, "character") - self._began["character"][0]) / max(1, done) * open_ if done > 0 else 0.0


def known(counts: Counts, name: str) -> int:
    """All jobs of an entity."""
    return sum(counts.get(name, {}).values())


def unfinished(counts: Counts, name: str) -> int:
    """Those of them that are pending or in work."""
    by_status = counts.get(name, {})
    return by_status.get("pending", 0) + by_status.get("processing", 0)


def _done(counts: Counts, name: str) -> int:
    return known(counts, name) - unfinished(counts, name)
