"""What is known of ESI's routes and limits before an answer tells: the one table to correct when CCP changes them.

Source: CCP's specification at compatibility date 2026-08-18 (`x-rate-limit`), read on 2026-08-21, and for the hidden
limits CCP's forum (market history: thread 387151, post 45; corporation history: esi-issues 1376). What an answer's
headers say always beats this table.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds of every window that CCP has published so far.
WINDOW_S = 900.0
#: Rate group -> (tokens, seconds of the floating window in which they come back).
GROUPS: dict[str, tuple[float, float]] = {
    "activity": (30, WINDOW_S),
    "char-detail": (600, WINDOW_S),
    "factional-warfare": (150, WINDOW_S),
    "freelance-job": (12000, WINDOW_S),
    "incursion": (150, WINDOW_S),
    "industry": (150, WINDOW_S),
    "insurance": (150, WINDOW_S),
    "killmail": (3600, WINDOW_S),
    "market-order": (12000, WINDOW_S),
    "meta": (150, WINDOW_S),
    "military-campaign": (300, WINDOW_S),
    "paragon-hub": (150, WINDOW_S),
    "routes": (3600, WINDOW_S),
    "skinr": (12000, WINDOW_S),
    "sovereignty": (600, WINDOW_S),
    "status": (600, WINDOW_S),
}
#: Limits deep in EVE's servers that no header tells: (requests, seconds); one too many is answered with HTTP 500.
HIDDEN: dict[str, tuple[float, float]] = {
    "market-history": (300, 60.0),
    "corporation-history": (300, 60.0),
}
#: Tokens by the first digit of a status; a 429 costs none. The worst of them is what a request holds on its way.
COSTS = {2: 2.0, 3: 1.0, 4: 5.0, 5: 0.0}
WORST_COST = 5.0
#: Bytes of an answer about one thing or about a thousand ids, and of a list of ids; the largest known have 120 and 40 kB.
LARGEST_BODY, LARGEST_LIST = 1024 * 1024, 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ESI.

    Attributes:
        path: with `{id}` and `{argument}` where they go.
        cache_s: known cache time, for answers that name none.
        group: rate group; None = the route counts against the error limit.
        hidden: a limit of `HIDDEN` that holds too.
        largest: bytes of an answer, unpacked. One that is larger is refused: JSON takes up to 25 times its length in memory.
        query: names and values that go along with each request.
        is_daily: its answers change at 11:05 UTC, and many of them share one ETag and one `Last-Modified`, which say nothing
            of their content: it is asked unconditionally.
        is_lasting: its answers never change: each is asked for once.
    """

    path: str
    cache_s: float = 3600.0
    group: str | None = None
    hidden: str | None = None
    largest: int = LARGEST_BODY
    query: tuple[tuple[str, str], ...] = ()
    is_daily: bool = False
    is_lasting: bool = False


#: Asked by the breaker while nothing else is answered.
STATUS = Route("/status", cache_s=30.0, group="status")


def token_cost(status: int) -> float:
    """Tokens that an answer costs."""
    return 0.0 if status == 429 else COSTS.get(status // 100, 0.0)
