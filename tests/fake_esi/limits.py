"""ESI's two ways of counting: the error limit of all routes and the token buckets of some."""

from __future__ import annotations

import threading
from collections import deque

OK_COST = 2


def token_cost(status: int) -> int:
    """Tokens that an answer with this status costs: 2XX 2, 3XX 1, 4XX 5 (429 none), 5XX none."""
    if status == 429 or status >= 500:
        return 0
    if status >= 400:
        return 5
    return 1 if status >= 300 else OK_COST


class ErrorLimit:
    """At most `limit` errors in each fixed window of `window_s` seconds, windows counted from 1970."""

    def __init__(self, limit: int, window_s: int) -> None:
        self.limit = limit
        self.window_s = window_s
        self._lock = threading.Lock()
        self._window = -1
        self._errors = 0

    def add_error(self, now: float) -> None:
        """Count one error answer given at `now`."""
        with self._lock:
            self._enter_window(now)
            self._errors += 1

    def remaining(self, now: float) -> int:
        """Errors left in the window of `now`; at 0 every route must answer 420."""
        with self._lock:
            self._enter_window(now)
            return max(0, self.limit - self._errors)

    def reset_s(self, now: float) -> int:
        """Whole seconds until the window of `now` ends, at least 1."""
        return self.window_s - int(now) % self.window_s

    def _enter_window(self, now: float) -> None:
        window = int(now) // self.window_s
        if window != self._window:
            self._window, self._errors = window, 0


class TokenBucket:
    """`tokens` to spend; one spent at T comes back at T + `window_s` seconds (a floating window)."""

    def __init__(self, group: str, tokens: int, window_s: int) -> None:
        self.group = group
        self.tokens = tokens
        self.window_s = window_s
        self._lock = threading.Lock()
        self._spent: deque[tuple[float, int]] = deque()
        self._used = 0

    @property
    def limit_text(self) -> str:
        """The limit as X-Ratelimit-Limit words it, e.g. "3600/15m"; a scaled-down window is told in seconds."""
        return f"{self.tokens}/{self.window_s // 60}m" if self.window_s % 60 == 0 else f"{self.tokens}/{self.window_s}s"

    def spend(self, cost: int, now: float) -> None:
        """Take `cost` tokens at `now`, even more than are left."""
        with self._lock:
            self._give_back(now)
            self._spent.append((now, cost))
            self._used += cost

    def remaining(self, now: float) -> int:
        """Tokens left at `now`, at least 0."""
        with self._lock:
            self._give_back(now)
            return max(0, self.tokens - self._used)

    def retry_after_s(self, now: float) -> int:
        """Whole seconds until an ordinary answer can be paid: 0 when it can be paid at `now`."""
        with self._lock:
            self._give_back(now)
            missing = OK_COST - (self.tokens - self._used)
            if missing <= 0:
                return 0
            for spent_at, cost in self._spent:
                missing -= cost
                if missing <= 0:
                    return int(spent_at + self.window_s - now) + 1
            return self.window_s

    def _give_back(self, now: float) -> None:
        while self._spent and self._spent[0][0] + self.window_s <= now:
            self._used -= self._spent.popleft()[1]


class Limits:
    """All limits of one fake: `errors`, and `buckets` by the name of their group."""

    def __init__(self, error_limit: int, error_window_s: int, buckets: dict[str, tuple[int, int]]) -> None:
        self.errors = ErrorLimit(error_limit, error_window_s)
        self.buckets = {group: TokenBucket(group, *sizes) for group, sizes in buckets.items()}

    def refusal(self, group: str | None, now: float) -> int | None:
        """420 or 429 when a request to a route of `group` must be refused at `now`, else None."""
        if not self.errors.remaining(now):
            return 420
        bucket = self.buckets.get(group or "")
        return 429 if bucket and bucket.retry_after_s(now) else None

    def account(self, group: str | None, status: int, now: float) -> dict[str, str]:
        """Charge an answer with `status` given at `now` and return the limit headers it carries."""
        bucket = self.buckets.get(group or "")
        if status == 420 or bucket is None:
            return self._charge_error(status, now)
        return self._charge_tokens(bucket, status, now)

    def _charge_error(self, status: int, now: float) -> dict[str, str]:
        if status >= 400:
            self.errors.add_error(now)
        return {
            "X-Esi-Error-Limit-Remain": str(self.errors.remaining(now)),
            "X-Esi-Error-Limit-Reset": str(self.errors.reset_s(now)),
        }

    def _charge_tokens(self, bucket: TokenBucket, status: int, now: float) -> dict[str, str]:
        cost = token_cost(status)
        if cost:
            bucket.spend(cost, now)
        headers = {
            "X-Ratelimit-Group": bucket.group,
            "X-Ratelimit-Limit": bucket.limit_text,
            "X-Ratelimit-Remaining": str(bucket.remaining(now)),
            "X-Ratelimit-Used": str(cost),
        }
        if status == 429:
            headers["Retry-After"] = str(bucket.retry_after_s(now) or 1)
        return headers
