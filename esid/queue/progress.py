"""What is going on, in words: how far a sync is, how fast, how long it will take."""

from __future__ import annotations

from collections.abc import Sequence

from esid import clock, log
from esid.entities import ENTITIES, MIRRORED
from esid.esi.budget import Budget
from esid.esi.snapshot import snapshot
from esid.store import ledger
from esid.store.connection import Store

_log = log.get("sync")
PLURALS = {entity.name: f"{entity.name}s" for entity in MIRRORED}


class Progress:
    """Compares the ledger with how it stood at the last call."""

    def __init__(self, store: Store, budget: Budget, queues: Sequence[str]) -> None:
        self._store, self._budget, self._queues = store, budget, queues
        self._names = [entity.name for entity in ENTITIES if entity.queue in queues]
        self._at = clock.monotonic()
        self._requests = self._sent()
        self._was_open = self._has_spoken = False

    def began(self) -> None:
        """Work was given out: it will be said when it is done, even if that is before anybody looks."""
        self._was_open = True

    def say(self) -> None:
        """Log one line while there is work, one when it is done, one when there was none; nothing while nothing happens."""
        counts = ledger.counts(self._store)
        is_open = sum(_open(counts.get(name, {})) for name in self._names)
        now, requests = clock.monotonic(), self._sent()
        rate = max(0.0, requests - self._requests) / max(0.001, now - self._at)
        if is_open:
            words = ", ".join(self._words(queue, counts) for queue in self._queues if counts.get(queue))
            left_s = is_open / rate if rate >= 0.1 else None
            ends = f", about {clock.span(left_s)} left" if left_s else ""
            log.event(_log, "sync.progress", f"{words or 'reading lists'}; {rate:.0f} requests/s{ends}")
        elif self._was_open or not self._has_spoken:
            known = sum(counts.get(queue, {}).get("completed", 0) for queue in self._queues)
            asked = "everything that is due has been asked" if self._was_open else "nothing is due"
            failed = sum(counts.get(name, {}).get("failed", 0) for name in self._names)
            extra = f", {failed:,} failed (see `esid dead list`)" if failed else ""
            log.event(_log, "sync.done", f"{asked}: {known:,} ids are up to date{extra}")
        self._was_open, self._has_spoken = is_open > 0, True
        self._at, self._requests = now, requests

    def _words(self, queue: str, counts: dict[str, dict[str, int]]) -> str:
        by_status = counts[queue]
        return f"{PLURALS[queue]} {sum(by_status.values()) - _open(by_status):,} of {sum(by_status.values()):,}"

    def _sent(self) -> int:
        return int(str(snapshot(self._budget)["requests"]))


def _open(by_status: dict[str, int]) -> int:
    return by_status.get("pending", 0) + by_status.get("processing", 0)
