"""The budget: what may leave for ESI, for all threads and processes of one host that share a file.

A request is admitted before it leaves (even if everything in flight came back as an error, the limit less the reserve
would hold) and settled when its answer is in. What an answer's headers say beats our own count: somebody else behind
the same address may spend the budget too.

Facts: error limit 100 a fixed minute, token costs 2/1/5/0 for 2xx/3xx/4xx/5xx (CCP's rate-limiting page, 2026-07).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from esid import clock, host
from esid.clock import Stop
from esid.errors import Held, Stopping
from esid.esi.cache import http_date
from esid.esi.shared import BUCKETS, SLOTS, SharedNumbers

ERROR_LIMIT, ERROR_WINDOW_S = 100, 60.0
#: Seconds that a thread waits for the budget before it puts its work back.
PATIENCE_S = 10.0
#: Seconds: an announced wait that is missing or garbage, and the most that is believed.
DEFAULT_WAIT_S, LONGEST_WAIT_S = 60.0, 900.0
#: Tokens and seconds of rate groups before an answer has told them (specification of 2026-08-18).
SEED_BUCKETS = {"killmail": (3600.0, 900.0), "status": (600.0, 900.0)}
#: Part of a bucket that may go in one burst; the rest flows in evenly, so that no window ever holds more than the limit.
BURST = 0.25
_WORST_COST, _COSTS = 5.0, {2: 2.0, 3: 1.0, 4: 5.0, 5: 0.0}

# Places in the shared file.
_PAUSED_UNTIL, _WINDOW_ENDS, _ERRORS_LEFT, _NEXT_START, _REQUESTS, _ERRORS, _NOT_MODIFIED = range(7)
_PID, _STARTED, _IN_FLIGHT, _WAITING = range(4)
_LIMIT, _WINDOW, _TOKENS, _FILLED_AT, _CLOSED_UNTIL = range(5)


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of the budget: requests a second (0 = no pace), requests in flight, errors, percent of a bucket."""

    max_rps: float = 50.0
    max_in_flight: int = 64
    error_reserve: int = 10
    bucket_reserve: int = 2


class Outcome:
    """What an exchange ended in; the client fills it in. None = no answer came."""

    status: int | None = None
    headers: Mapping[str, str]

    def __init__(self) -> None:
        self.headers = {}


class Budget:
    """One budget of one host. Make one object a process, after any fork.

    Args:
        path: the shared file.
        stop: ends every wait at once.
    """

    def __init__(self, path: Path, limits: Limits, stop: Stop | None = None) -> None:
        self._shared = SharedNumbers(path)
        self._limits = limits
        self._stop = stop or Stop()
        self._slot: int | None = None
        self._pid = os.getpid()
        self._started = host.started_at(self._pid)

    @contextmanager
    def request(self, group: str | None) -> Iterator[Outcome]:
        """Wait for leave to send one request, and settle it at the end.

        Args:
            group: the rate group of the route; None = the route counts against the error limit.

        Raises:
            Held: it would take longer than a thread should wait.
            Stopping: the daemon stops.
        """
        self._wait(group)
        outcome = Outcome()
        try:
            yield outcome
        finally:
            with self._shared.locked():
                self._settle(group, outcome)

    def paused_s(self) -> float:
        """Seconds until the next request on any route may leave after a 420 (0 = now)."""
        with self._shared.locked():
            return max(0.0, self._shared.head(_PAUSED_UNTIL) - clock.monotonic())

    def forget(self, pid: int) -> None:
        """Give back what a dead process had in flight."""
        with self._shared.locked():
            for slot in range(SLOTS):
                if self._shared.slot(slot, _PID) == pid:
                    self._free(slot)

    def snapshot(self) -> dict[str, object]:
        """What is in force now, for `esid status`."""
        with self._shared.locked():
            now = clock.monotonic()
            return {
                "paused_s": round(max(0.0, self._shared.head(_PAUSED_UNTIL) - now), 1),
                "error_limit": ERROR_LIMIT,
                "error_remain": int(self._errors_left(now)),
                "error_reset_s": round(max(0.0, self._shared.head(_WINDOW_ENDS) - now), 1),
                "error_reserve": self._limits.error_reserve,
                "in_flight": int(self._shared.slot_sum(_IN_FLIGHT)),
                "waiting": int(self._shared.slot_sum(_WAITING)),
                "max_rps": self._limits.max_rps,
                "max_in_flight": self._limits.max_in_flight,
                "requests": int(self._shared.head(_REQUESTS)),
                "errors": int(self._shared.head(_ERRORS)),
                "not_modified": int(self._shared.head(_NOT_MODIFIED)),
                "buckets": [
                    self._bucket_snapshot(place, now) for place in range(BUCKETS) if self._shared.bucket_name(place)
                ],
            }

    def close(self) -> None:
        """Give this process's slot back and close the file."""
        self.forget(self._pid)
        self._shared.close()

    # -- admission

    def _wait(self, group: str | None) -> None:
        ends_at = clock.monotonic() + PATIENCE_S
        registered = False
        try:
            while True:
                with self._shared.locked():
                    wait_s, reason = self._admit(group)
                    if reason and not registered:
                        self._add(_WAITING, 1)
                        registered = True
                if not reason:
                    if self._keep_place(group, wait_s):
                        return
                    continue
                if clock.monotonic() + wait_s > ends_at:
                    raise Held(wait_s, reason)
                if self._stop.wait(min(wait_s, 0.5)):
                    raise Stopping("stopping")
        finally:
            if registered:
                with self._shared.locked():
                    self._add(_WAITING, -1)

    def _keep_place(self, group: str | None, wait_s: float) -> bool:
        """Wait for our place in the pace; False when the budget was closed meanwhile and the place is given back.

        Raises:
            Stopping: the daemon stops; the place is given back too.
        """
        stopped = self._stop.wait(wait_s) if wait_s > 0 else self._stop.is_set()
        if not stopped and wait_s <= 0:
            return True
        with self._shared.locked():
            if not stopped and not self._is_closed(group, clock.monotonic()):
                return True
            self._add(_IN_FLIGHT, -1)
            if group is not None:
                self._give_tokens(group, _WORST_COST)
        if stopped:
            raise Stopping("stopping")
        return False

    def _is_closed(self, group: str | None, now: float) -> bool:
        bucket = self._shared.bucket(group) if group else None
        closed = bucket is not None and self._shared.bucket_number(bucket, _CLOSED_UNTIL) > now
        return closed or self._shared.head(_PAUSED_UNTIL) > now

    def _give_tokens(self, group: str, tokens: float) -> None:
        bucket = self._shared.bucket(group)
        if bucket is not None:
            self._shared.set_bucket_number(bucket, _TOKENS, self._shared.bucket_number(bucket, _TOKENS) + tokens)

    def _admit(self, group: str | None) -> tuple[float, str]:
        """(seconds to wait, why not); with no reason the request is admitted and leaves after the seconds."""
        now = clock.monotonic()
        if (paused := self._shared.head(_PAUSED_UNTIL) - now) > 0:
            return paused, "420"
        in_flight = self._shared.slot_sum(_IN_FLIGHT)
        if in_flight >= self._limits.max_in_flight:
            return self._after_the_dead(0.01), "in flight"
        if group is None:
            if self._errors_left(now) - in_flight - 1 < self._limits.error_reserve:
                if in_flight:
                    return self._after_the_dead(0.01), "error limit"
                return max(0.05, self._shared.head(_WINDOW_ENDS) - now), "error limit"
        elif wait_s := self._spend(group, now):
            return wait_s, f"bucket {group}"
        start = max(now, self._shared.head(_NEXT_START))
        if self._limits.max_rps:
            self._shared.set_head(_NEXT_START, start + 1 / self._limits.max_rps)
        self._add(_IN_FLIGHT, 1)
        self._shared.set_head(_REQUESTS, self._shared.head(_REQUESTS) + 1)
        return start - now, ""

    def _spend(self, group: str, now: float) -> float:
        """Take the worst cost of one request out of a bucket; seconds to wait where it holds too little."""
        bucket = self._bucket(group)
        if bucket is None:
            return 0.0
        if (closed := self._shared.bucket_number(bucket, _CLOSED_UNTIL) - now) > 0:
            return closed
        capacity, rate = self._flow(bucket)
        filled_at = self._shared.bucket_number(bucket, _FILLED_AT)
        tokens = min(capacity, self._shared.bucket_number(bucket, _TOKENS) + (now - filled_at) * rate)
        self._shared.set_bucket_number(bucket, _FILLED_AT, now)
        self._shared.set_bucket_number(bucket, _TOKENS, tokens)
        if tokens < _WORST_COST:
            return max(0.01, (_WORST_COST - tokens) / rate)
        self._shared.set_bucket_number(bucket, _TOKENS, tokens - _WORST_COST)
        return 0.0

    def _flow(self, bucket: int) -> tuple[float, float]:
        """(most tokens at once, tokens a second) of a bucket, less the reserve."""
        usable = self._shared.bucket_number(bucket, _LIMIT) * (100 - self._limits.bucket_reserve) / 100
        return max(_WORST_COST, usable * BURST), usable * (1 - BURST) / self._shared.bucket_number(bucket, _WINDOW)

    def _bucket(self, group: str, limit: tuple[float, float] | None = None) -> int | None:
        """The place of a group's bucket, made full when it is new; `limit` is (tokens, seconds) as just told."""
        limit = limit or (SEED_BUCKETS.get(group) if self._shared.bucket(group) is None else None)
        place = self._shared.bucket(group, make=limit is not None)
        if place is None or limit is None:
            return place
        old = self._shared.bucket_number(place, _LIMIT), self._shared.bucket_number(place, _WINDOW)
        if old != limit:
            before = self._flow(place)[0] if old[1] else 0.0
            self._shared.set_bucket_number(place, _LIMIT, limit[0])
            self._shared.set_bucket_number(place, _WINDOW, limit[1])
            tokens = self._shared.bucket_number(place, _TOKENS) + self._flow(place)[0] - before
            self._shared.set_bucket_number(place, _TOKENS, tokens)
            self._shared.set_bucket_number(place, _FILLED_AT, clock.monotonic())
        return place

    # -- settlement

    def _settle(self, group: str | None, outcome: Outcome) -> None:
        now = clock.monotonic()
        self._add(_IN_FLIGHT, -1)
        status, headers = outcome.status, outcome.headers
        if status == 304:
            self._shared.set_head(_NOT_MODIFIED, self._shared.head(_NOT_MODIFIED) + 1)
        if status is None or status >= 400:
            self._shared.set_head(_ERRORS, self._shared.head(_ERRORS) + 1)
        if status == 420:
            self._pause(now, headers)
        if told := headers.get("X-Ratelimit-Group"):
            self._settle_bucket(told, group, status or 500, headers, now)
        elif group is not None and status == 429:
            self._close_bucket(group, headers, now)
        if "X-Ratelimit-Group" not in headers:
            self._settle_errors(status, headers, now)

    def _settle_errors(self, status: int | None, headers: Mapping[str, str], now: float) -> None:
        left = self._errors_left(now)
        remain, reset = (
            _number(headers.get("X-Esi-Error-Limit-Remain")),
            _number(headers.get("X-Esi-Error-Limit-Reset")),
        )
        if remain is not None and reset is not None:
            ends = now + min(reset, ERROR_WINDOW_S)
            # Two answers of one window agree on its end to a second; a later end is a new window. An earlier end is an
            # answer of the last window that comes late: it must not end this one.
            if ends > self._shared.head(_WINDOW_ENDS) + 2:
                left = float(ERROR_LIMIT)
            self._shared.set_head(_WINDOW_ENDS, max(ends, self._shared.head(_WINDOW_ENDS)))
            self._shared.set_head(_ERRORS_LEFT, min(left, remain))
        elif status is None or status >= 400:
            if self._shared.head(_WINDOW_ENDS) <= now:
                self._shared.set_head(_WINDOW_ENDS, now + ERROR_WINDOW_S)
            self._shared.set_head(_ERRORS_LEFT, max(0.0, left - 1))

    def _pause(self, now: float, headers: Mapping[str, str]) -> None:
        wait_s = error_reset_s(headers)
        until = now + wait_s + random.uniform(0.5, 1 + 0.1 * wait_s)  # noqa: S311
        self._shared.set_head(_PAUSED_UNTIL, max(until, self._shared.head(_PAUSED_UNTIL)))
        self._shared.set_head(_NEXT_START, max(until, self._shared.head(_NEXT_START)))

    def _settle_bucket(self, told: str, group: str | None, status: int, headers: Mapping[str, str], now: float) -> None:
        bucket = self._bucket(told, _limit(headers.get("X-Ratelimit-Limit")))
        if bucket is None:
            return
        if told == group:
            self._give_tokens(told, _WORST_COST - (0.0 if status == 429 else _COSTS.get(status // 100, 0.0)))
        remaining = _number(headers.get("X-Ratelimit-Remaining"))
        if remaining is not None:
            reserve = self._shared.bucket_number(bucket, _LIMIT) * self._limits.bucket_reserve / 100
            tokens = self._shared.bucket_number(bucket, _TOKENS)
            self._shared.set_bucket_number(bucket, _TOKENS, min(tokens, remaining - reserve))
        if status == 429:
            self._close_bucket(told, headers, now)

    def _close_bucket(self, group: str, headers: Mapping[str, str], now: float) -> None:
        bucket = self._bucket(group)
        if bucket is not None:
            wait_s = retry_after_s(headers)
            until = now + wait_s * random.uniform(1, 1.1)  # noqa: S311
            until = max(until, self._shared.bucket_number(bucket, _CLOSED_UNTIL))
            self._shared.set_bucket_number(bucket, _CLOSED_UNTIL, until)

    # -- the shared numbers

    def _errors_left(self, now: float) -> float:
        return self._shared.head(_ERRORS_LEFT) if self._shared.head(_WINDOW_ENDS) > now else float(ERROR_LIMIT)

    def _add(self, place: int, value: int) -> None:
        if self._slot is None or not self._is_mine(self._slot):
            self._slot = self._take_slot()
        self._shared.set_slot(self._slot, place, max(0.0, self._shared.slot(self._slot, place) + value))

    def _take_slot(self) -> int:
        free = [slot for slot in range(SLOTS) if not self._shared.slot(slot, _PID)]
        if not free:
            self._after_the_dead(0.0)
            free = [slot for slot in range(SLOTS) if not self._shared.slot(slot, _PID)] or [SLOTS - 1]
        self._free(free[0])
        self._shared.set_slot(free[0], _PID, self._pid)
        self._shared.set_slot(free[0], _STARTED, self._started)
        return free[0]

    def _is_mine(self, slot: int) -> bool:
        """A pid alone is not enough: in a container the next process soon has it again."""
        return self._shared.slot(slot, _PID) == self._pid and self._shared.slot(slot, _STARTED) == self._started

    def _free(self, slot: int) -> None:
        for place in (_PID, _STARTED, _IN_FLIGHT, _WAITING):
            self._shared.set_slot(slot, place, 0.0)

    def _after_the_dead(self, wait_s: float) -> float:
        """Free the slots of processes that are gone; `wait_s` is handed through."""
        for slot in range(SLOTS):
            pid = int(self._shared.slot(slot, _PID))
            if pid and self._shared.slot(slot, _STARTED) != host.started_at(pid):
                self._free(slot)
        return wait_s

    def _bucket_snapshot(self, place: int, now: float) -> dict[str, object]:
        capacity, rate = self._flow(place)
        since = now - self._shared.bucket_number(place, _FILLED_AT)
        return {
            "group": self._shared.bucket_name(place),
            "limit": int(self._shared.bucket_number(place, _LIMIT)),
            "window_s": int(self._shared.bucket_number(place, _WINDOW)),
            "available": int(min(capacity, self._shared.bucket_number(place, _TOKENS) + since * rate)),
            "closed_s": round(max(0.0, self._shared.bucket_number(place, _CLOSED_UNTIL) - now), 1),
        }


def error_reset_s(headers: Mapping[str, str]) -> float:
    """Seconds until the error limit resets; 60 where the answer names no believable time, and at most."""
    reset = _number(headers.get("X-Esi-Error-Limit-Reset"))
    return ERROR_WINDOW_S if reset is None else min(reset, ERROR_WINDOW_S)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, given in seconds or as a date; 60 where it is missing or garbage, 900 at most."""
    text = headers.get("Retry-After", "").strip()
    seconds = _number(text)
    if seconds is None and (until := http_date(text)):
        seconds = (until - (http_date(headers.get("Date")) or clock.now())).total_seconds()
    return DEFAULT_WAIT_S if seconds is None or seconds < 0 else min(seconds, LONGEST_WAIT_S)


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None


def _limit(text: str | None) -> tuple[float, float] | None:
    """(tokens, seconds) of `3600/15m`."""
    tokens, _, window = (text or "").partition("/")
    seconds = {"s": 1, "m": 60, "h": 3600}.get(window[-1:])
    count, size = _number(tokens), _number(window[:-1])
    return (count, size * seconds) if count and size and seconds else None
