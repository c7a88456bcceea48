"""How daemons on several hosts divide one budget: each holds a share, and all shares together never exceed the limit.

Nothing is asked of the database for a request. A few times a second each host tells what it holds, used and wants,
reads the same of the others, and takes its new share: it gives up at once what it should not have, and takes only what
nobody holds. A host that cannot tell for `SHARE_S` lets nothing leave any more; what it had is free for others later
than that. Nor does one that was suspended, for which those seconds stood still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Seconds between two exchanges, that a share holds without one, after which a silent host counts as gone.
EXCHANGE_S, SHARE_S, GONE_S = 0.25, 8.0, 10.0
#: Seconds between two exchanges of a host that is alone or asks for nothing; it still hears of a 420 within a second. One
#: that is alone and asks for nothing has nobody to hear of: who joins waits for its share until it was heard.
IDLE_EXCHANGE_S, ALONE_EXCHANGE_S = 0.6, 2.0
#: Seconds by which no clock of a database differs from one exchange to the next, unless it is set.
AHEAD_S = 1.0
#: Exchanges after which everybody has heard that a host wants more, and what they gave up for it is its own.
HEARD = 4
#: A smaller share is none: it is what rounding left over.
LEAST = 0.01
#: Weight of a host that has nothing to ask at the moment, beside 1.0.
IDLE_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """One host's part of one limit: what it may use, what it has used of that for good, and whether it wants it.

    A host that is gone takes part in no division; what it may have used is not to be had yet.
    """

    allowed: float = 0.0
    used: float = 0.0
    wanted: bool = False
    is_gone: bool = False


def allot(usable: float, mine: Part, others: Iterable[Part]) -> float:
    """The new size of `mine`.

    Whatever the others do at the same time by the same rule, one after the other, the sum of all parts stays within
    `usable`, but for what was used before the limit fell.

    Args:
        usable: the whole limit, less its reserve.
    """
    parts = list(others)
    weights = sum(_weight(part) for part in parts) + _weight(mine)
    lost = sum(part.allowed for part in parts if part.is_gone)
    target = max(mine.used, (usable - lost) * _weight(mine) / weights)
    free = usable - sum(part.allowed for part in parts) - mine.allowed
    if target > mine.allowed:
        return max(mine.used, min(target, mine.allowed + max(0.0, free)))
    return target


def counted(row: Mapping[str, Any], name: str, now: float, keeps_s: float) -> Part | None:
    """What another host's row means for one limit; None where it means nothing any more.

    Args:
        name: of the limit.
        now: the database's clock, seconds since 1970.
        keeps_s: seconds that used parts of this limit stay used.
    """
    part = row.get("parts", {}).get(name)
    silent_s = _silent_s(row, now)
    if part is None:
        return None
    allowed, used, wanted = float(part[0]), float(part[1]), bool(part[2])
    if not is_gone(row, now):
        return Part(allowed, used, wanted)
    if row.get("left"):
        return Part(used, used, is_gone=True) if silent_s < keeps_s else None
    return Part(allowed, allowed, is_gone=True) if silent_s < GONE_S + keeps_s else None


def is_gone(row: Mapping[str, Any], now: float) -> bool:
    """Whether others may take what a host holds: it has left, or nobody has heard of it for so long.

    Args:
        now: the database's clock, seconds since 1970.
    """
    return bool(row.get("left")) or _silent_s(row, now) >= GONE_S


def is_from_ahead(row: Mapping[str, Any], now: float) -> bool:
    """Whether a row was written before the database's clock was set back."""
    return float(row.get("at", 0.0)) > now + AHEAD_S


def set_back(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A row as if it had been written now: each of its waits begins again, and none is longer than it was."""
    by = float(row["at"]) - now
    paused_until, closed = float(row.get("paused_until", 0.0)), row.get("closed", {})
    return {
        **row,
        "at": now,
        "paused_until": paused_until - by if paused_until else 0.0,
        "closed": {name: until - by for name, until in closed.items()},
    }


def _silent_s(row: Mapping[str, Any], now: float) -> float:
    return now - float(row.get("at", 0.0))


def _weight(part: Part) -> float:
    if part.is_gone:
        return 0.0
    return 1.0 if part.wanted else IDLE_WEIGHT
