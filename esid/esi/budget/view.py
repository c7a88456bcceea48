"""What of the budget is in force now, as plain values for `esid status`. Reads only."""

from __future__ import annotations

from typing import Any

from esid import clock
from esid.esi.budget.budget import Budget
from esid.esi.budget.layout import SECONDS
from esid.esi.headers import ERROR_LIMIT


def snapshot(budget: Budget) -> dict[str, Any]:
    """Every limit, live."""
    with budget.shared.locked() as state:
        now, waiting = clock.monotonic(), budget.in_flight.totals("waiting")
        return {
            "paused_s": round(max(0.0, state.paused_until - now), 1),
            "error_limit": ERROR_LIMIT,
            "error_remain": int(budget.errors.left(now)),
            "error_reset_s": round(budget.errors.reset_s(now), 1),
            "error_reserve": budget.limits.error_reserve,
            "in_flight": budget.in_flight.total("in_flight"),
            "waiting": sum(waiting),
            "max_rps": budget.limits.max_rps,
            "max_in_flight": budget.limits.max_in_flight,
            "rps": _rps(state, now),
            "requests": int(state.requests),
            "errors": int(state.errors),
            "not_modified": int(state.not_modified),
            "members": max(1, state.members),
            "breaker": _breaker(budget, state, now),
            "buckets": [_bucket(budget, number, waiting[number], now) for number in range(len(budget.buckets.names()))],
        }


def _rps(state: Any, now: float) -> float:
    """Requests a second over the last minute."""
    first, last = int(now) - 59, min(int(now), int(state.second))
    return round(sum(float(state.sent[second % SECONDS]) for second in range(first, last + 1)) / 60, 2)


def _breaker(budget: Budget, state: Any, now: float) -> dict[str, Any]:
    """`closed`, `open`, `vip` (only CCP's staff may log in) or `probing` (`/status` answers again)."""
    since = budget.breaker.open_since()
    word = "closed" if not since else "vip" if state.vip else "probing" if state.status_ok else "open"
    return {"state": word, "open_s": round(now - since, 1) if since else 0.0, "routes": budget.breaker.open_routes()}


def _bucket(budget: Budget, number: int, waiting: int, now: float) -> dict[str, Any]:
    bucket, usable = budget.shared.state.buckets[number], budget.buckets.usable(number)
    return {
        "group": budget.buckets.name(number),
        "limit": int(bucket.limit),
        "window_s": int(bucket.window_s),
        "available": int(max(0.0, usable - budget.buckets.used(number, now))),
        "reserve": int(bucket.limit - usable),
        "waiting": waiting,
        "closed_s": round(max(0.0, bucket.closed_until - now), 1),
    }
