"""What the threads of a process do now, and counts of what they did; read by the beats of the process."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from typing import Any

import dramatiq

from esid import clock
from esid.errors import BrokerUnavailable, DatabaseUnavailable, Stopping
from esid.queue.outcome import Outcome

#: Upper bounds of the histogram of durations, seconds.
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Doing(dramatiq.Middleware):
    """Remembers what each thread works on. Stands behind `Hold`: a message that is held is not worked on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[int, tuple[str, int, int, float]] = {}
        self._counts: defaultdict[str, float] = defaultdict(float)

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        """A thread begins."""
        ids = message.args[0] if message.args and isinstance(message.args[0], list) else []
        first = ids[0] if ids and isinstance(ids[0], int) else 0
        with self._lock:
            self._now[threading.get_ident()] = (message.actor_name, first, len(ids), clock.monotonic())

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """A thread has ended, well or not."""
        with self._lock:
            begun = self._now.pop(threading.get_ident(), None)
            if begun:
                entity, _, count, since = begun
                self._count(entity, count, message.outcome, exception)
                self._time(entity, clock.monotonic() - since)

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        """A thread gives a message back."""
        with self._lock:
            self._now.pop(threading.get_ident(), None)

    def now(self) -> list[dict[str, Any]]:
        """What is worked on, the longest first: entity, first id, how many, for how many seconds."""
        now = clock.monotonic()
        with self._lock:
            begun = sorted(self._now.values(), key=lambda one: one[3])
        return [
            {"entity": entity, "id": first, "ids": count, "for_s": round(now - since, 1)}
            for entity, first, count, since in begun
        ]

    def counts(self) -> dict[str, float]:
        """What was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
        return dict(counts)

    def put_back(self, counts: dict[str, float]) -> None:
        """Counts that could not be written."""
        with self._lock:
            for name, value in counts.items():
                self._counts[name] += value

    def _count(self, entity: str, count: int, outcome: Outcome | None, exception: BaseException | None) -> None:
        failed, put_back = (outcome.failed, outcome.put_back) if outcome else (0, 0)
        if isinstance(exception, (DatabaseUnavailable, BrokerUnavailable, Stopping)):
            put_back = count
        elif exception is not None:
            failed = count
        for result, number in (("done", count - failed - put_back), ("failed", failed), ("put_back", put_back)):
            self._counts[f"ids:{entity}:{result}"] += number

    def _time(self, entity: str, seconds: float) -> None:
        place = bisect_left(BOUNDS_S, seconds)
        bound = f"{BOUNDS_S[place]:g}" if place < len(BOUNDS_S) else "+Inf"
        self._counts[f"duration:{entity}:{bound}"] += 1
        self._counts[f"duration:{entity}:sum"] += seconds
