"""The pace: requests leave evenly, and after every pause they begin slowly.

Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

import math
from typing import Any

#: Requests a second right after a pause; doubled with each second that follows, for so many seconds.
RAMP_RPS, RAMP_S = 5.0, 12.0


class Pace:
    """The account of one state.

    Args:
        max_rps: requests a second; 0 = no pace.
        is_divided: other hosts keep the pace too, and each has its part of it.
    """

    def __init__(self, state: Any, max_rps: float, *, is_divided: bool) -> None:
        self._state, self.max_rps, self._is_divided = state, max_rps, is_divided

    def take(self, now: float) -> float:
        """When one more request leaves: its turn is taken."""
        state = self._state
        start = max(now, float(state.next_start))
        rate = self._rate(start)
        if rate < math.inf:
            state.next_start = start + 1 / rate
        return start

    def resume(self, at: float) -> None:
        """A pause ends then: nothing leaves before it, and what leaves after it begins slowly."""
        state = self._state
        state.next_start = max(at, state.next_start)
        state.ramp_from = max(at, state.ramp_from)

    def _rate(self, at: float) -> float:
        rate = self.max_rps or math.inf
        if self._is_divided and self.max_rps:
            rate = max(0.01, min(rate, float(self._state.rps_allowed)))
        since_s = at - float(self._state.ramp_from)
        if self._state.ramp_from and 0 <= since_s < RAMP_S:
            rate = min(rate, RAMP_RPS * 2.0**since_s)
        return rate
