"""What is going on, in words: how far a sync is, how fast, how long it will take."""

from __future__ import annotations

from collections.abc import Sequence

from esid import clock, log
from esid.entities import BY_NAME, ENTITIES, MIRRORED
from esid.esi.budget import Budget
from esid.esi.budget.doubts import number_of
from esid.esi.budget.view import snapshot
from esid.status.outlook import Counts, Outlook, known, unfinished
from esid.store import ledger
from esid.store.connection import Store
from esid.words import counted, plural

_log = log.get("sync")


class Progress:
    """Compares the ledger with how it stood at the last call."""

    def __init__(self, store: Store, budget: Budget, queues: Sequence[str]) -> None:
        self._store, self._budget = store, budget
        self._names = [entity.name for entity in ENTITIES if entity.lane in queues]
        self._rows = {lane: [entity.name for entity in MIRRORED if entity.lane == lane] for lane in queues}
        self._at = clock.monotonic()
        self._requests = self._sent()
        self._was_open = self._has_spoken = False
        self._outlook: Outlook | None = None

    def began(self) -> None:
        """Work was given out: it will be said when it is done, even if that is before anybody looks."""
        self._was_open = True

    def say(self) -> None:
        """Log one line while there is work, one when it is done, one when there was none; nothing while nothing happens."""
        counts = ledger.counts(self._store)
        is_open = any(unfinished(counts, name) for name in self._names)
        now, requests = clock.monotonic(), self._sent()
        rate = max(0.0, requests - self._requests) / max(0.001, now - self._at)
        if is_open:
            if self._outlook is None:
                self._outlook = Outlook(counts, self._names, self._at, self._requests)
            words = ", ".join(filter(None, (self._words(lane, counts) for lane in self._rows))) or "reading lists"
            if log.outage("rabbitmq").lasts:
                # Of the pace that was and of this standstill no time to come can be told.
                self._outlook = None
                log.event(_log, "sync.progress", f"{words}; waits for RabbitMQ")
            else:
                left = self._outlook.left(counts, now, requests, self._doubted())
                ends = f", {'at least' if left.is_least else 'about'} {clock.span(left.seconds)} left" if left else ""
                log.event(_log, "sync.progress", f"{words}; {rate:.0f} requests/s{ends}")
        else:
            self._outlook = None
            if self._was_open or not self._has_spoken:
                self._say_done(counts)
        self._was_open, self._has_spoken = is_open, True
        self._at, self._requests = now, requests

    def _doubted(self) -> int:
        """How many ids wait in the line of doubted sources."""
        if not (sources := self._budget.doubted()):
            return 0
        return sum(
            count
            for entity, source, count in ledger.unanswered(self._store)
            if entity in self._names and number_of(BY_NAME[entity].route.path, source) in sources
        )

    def _say_done(self, counts: dict[str, dict[str, int]]) -> None:
        fresh = sum(counts.get(name, {}).get("completed", 0) for names in self._rows.values() for name in names)
        asked = "everything that is due has been asked" if self._was_open else "nothing is due"
        failed, purged = sum(counts.get(name, {}).get("failed", 0) for name in self._names), 0
        if failed:
            purged = ledger.purged(self._store, self._names)
        extra = f", {failed - purged:,} failed (see `esid dead list`)" if failed > purged else ""
        extra += f", {purged:,} purged (asked at the next sync)" if purged else ""
        log.event(_log, "sync.done", f"{asked}: {counted(fresh, 'id is', 'ids are')} up to date{extra}")

    def _words(self, lane: str, counts: Counts) -> str:
        there = sum(known(counts, name) for name in self._rows[lane])
        left = sum(unfinished(counts, name) for name in self._rows[lane])
        return f"{plural(lane)} {there - left:,} of {there:,}" if there else ""

    def _sent(self) -> int:
        return int(str(snapshot(self._budget)["requests"]))
