"""Divides the budget with other hosts: tells them what this one holds and takes its share. See `esi.budget.shares`.

One thread of each worker process runs it; whichever comes first does the next exchange for the whole host. A share
that shrinks shrinks before the others are told, one that grows grows after they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from esid import clock, log
from esid.clock import Stop
from esid.errors import DatabaseUnavailable
from esid.esi.budget.budget import Budget
from esid.esi.budget.layout import GUARDED
from esid.esi.budget.shares import (
    ALONE_EXCHANGE_S,
    EXCHANGE_S,
    IDLE_EXCHANGE_S,
    SHARE_S,
    Part,
    allot,
    counted,
    is_from_ahead,
    is_gone,
    set_back,
)
from esid.esi.headers import ERROR_LIMIT, ERROR_WINDOW_S, LONGEST_WAIT_S

Row = dict[str, Any]
#: Given the database's clock and everybody's row by name, one's own name and row; see `store.egress.exchange`.
Meet = Callable[[float, MutableMapping[str, Row]], tuple[str, Row]]
#: Seconds: what an answer can ask for at most, and what is added to it so that not everybody comes back at once. A longer
#: pause is told by nobody whose clock is right.
_LONGEST_PAUSE_S = 1.1 * LONGEST_WAIT_S
#: Seconds that an answer may still come in which a host had asked for before it fell silent.
_ANSWER_S = 30.0


class Sharing:
    """The thread.

    Args:
        exchange: runs a `Meet` in one transaction that no other host shares.
        member: this host's name among those that divide the budget; the same after a restart.
    """

    def __init__(self, budget: Budget, exchange: Callable[[Meet], None], member: str, stop: Stop) -> None:
        self._budget, self._exchange, self._member, self._stop = budget, exchange, member, stop
        self._thread = threading.Thread(target=self._run, name="budget-sharing", daemon=True)
        self._every_s = EXCHANGE_S

    def start(self) -> None:
        """Begin; nothing leaves before the first exchange."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, after the stop."""
        self._thread.join()

    def once(self, *, leaving: bool = False) -> None:
        """One exchange. Raises EsidError where the database is away; the share then holds for 8 s from the last.

        Args:
            leaving: give everything up but what is used.
        """
        started, slept_s, grown = clock.monotonic(), clock.slept_s(), dict[str, float]()

        def meet(now: float, rows: MutableMapping[str, Row]) -> tuple[str, Row]:
            # A transaction that is repeated meets others again: what the first try found free may be gone.
            grown.clear()
            rows.update({name: set_back(row, now) for name, row in rows.items() if is_from_ahead(row, now)})
            self._name(now, rows)
            row, more = self._meet(now, rows, leaving)
            grown.update(more)
            return self._member, row

        self._exchange(meet)
        if not leaving:
            self._grow(grown, started, slept_s)

    def _run(self) -> None:
        while True:
            is_last = self._stop.wait(self._every_s / 2)
            if self._is_due() or is_last:
                self._try_once(leaving=is_last)
            if is_last:
                return

    def _try_once(self, *, leaving: bool) -> None:
        """Whatever goes wrong is said once and tried again: a thread that ends would let nothing leave any more."""
        broken = log.outage("sharing")
        try:
            self.once(leaving=leaving)
            broken.up()
        except DatabaseUnavailable as error:
            log.outage("database").down(error)
        except Exception as error:  # noqa: BLE001
            broken.down(f"the budget cannot be divided with other hosts: {type(error).__name__}: {error}")

    def _is_due(self) -> bool:
        now = clock.monotonic()
        with self._budget.shared.locked() as state:
            in_flight = self._budget.in_flight
            is_asking = bool(in_flight.total("in_flight") or sum(in_flight.totals("waiting")))
            if state.members == 1:
                self._every_s = IDLE_EXCHANGE_S if is_asking else ALONE_EXCHANGE_S
            else:
                self._every_s = EXCHANGE_S if is_asking else IDLE_EXCHANGE_S
            if now < state.exchanged_at + self._every_s:
                return False
            state.exchanged_at = now
            return True

    def _name(self, db_now: float, rows: Mapping[str, Row]) -> None:
        """Take another name where a host of ours is alive that is not we: same host name, same directory."""
        row, file = rows.get(self._member), self._budget.shared.state.file.decode()
        if row and row.get("file") != file and not is_gone(row, db_now):
            self._member = f"{self._member}#{file}"

    def _meet(self, db_now: float, rows: Mapping[str, Row], leaving: bool) -> tuple[Row, dict[str, float]]:
        """(our row, the parts that have grown), given everybody's."""
        budget = self._budget
        with budget.shared.locked() as state:
            now = clock.monotonic()
            self._hear(rows.values(), db_now, now)
            if not state.has_past:
                self._recall(rows.get(self._member), db_now, now)
            others = [row for name, row in rows.items() if name != self._member]
            is_lost = is_gone(rows.get(self._member, {}), db_now)
            parts, grown = {}, {"": float(state.exchange_no + 1)}
            for name, usable, mine, keeps_s in self._limits(now):
                if is_lost and mine.allowed > mine.used:
                    self._set(name, mine.used)
                    mine = replace(mine, allowed=mine.used)
                theirs = [part for row in others if (part := counted(row, name, db_now, keeps_s))]
                size = mine.used if leaving else allot(usable, mine, theirs)
                self._note_others(name, theirs)
                if size > mine.allowed:
                    grown[name] = size
                else:
                    self._set(name, size)
                parts[name] = [size, mine.used, mine.wanted]
            state.exchange_no += 1
            state.errors_asked = state.errors_asked + 1 if parts["errors"][2] else 0
            if leaving:
                state.share_until = 0.0
            state.members = 1 + sum(1 for row in others if db_now - float(row.get("at", 0.0)) < _ANSWER_S)
            closed = {
                name: db_now + bucket.closed_until - now
                for name, bucket in zip(budget.buckets.names(), state.buckets, strict=False)
                if bucket.closed_until > now
            }
            paused = db_now + state.paused_until - now if state.paused_until > now else 0.0
            row = {"file": state.file.decode(), "at": db_now, "left": leaving, "paused_until": paused, "closed": closed}
        return {**row, "parts": parts}, grown

    def _grow(self, grown: dict[str, float], started: float, slept_s: float) -> None:
        """Everybody has been told: use what has grown, unless another process has exchanged since."""
        with self._budget.shared.locked() as state:
            state.share_until = max(state.share_until, started + SHARE_S)
            state.share_slept_s = max(state.share_slept_s, slept_s)
            if state.exchange_no == grown.pop(""):
                for name, size in grown.items():
                    self._set(name, size)

    def _limits(self, now: float) -> Iterator[tuple[str, float, Part, float]]:
        """(name, usable, our part, seconds that what is used stays used) of every limit that is divided."""
        budget, state = self._budget, self._budget.shared.state
        reserved, waiting = budget.in_flight.totals("reserved"), budget.in_flight.totals("waiting")
        in_flight = budget.in_flight.total("in_flight")
        budget.errors.left(now)
        errors = Part(
            state.errors_allowed, state.errors_used + reserved[GUARDED], bool(reserved[GUARDED] + waiting[GUARDED])
        )
        yield "errors", ERROR_LIMIT - budget.limits.error_reserve, errors, ERROR_WINDOW_S
        is_busy = bool(in_flight + sum(waiting))
        yield "in_flight", budget.limits.max_in_flight, Part(state.in_flight_allowed, in_flight, is_busy), _ANSWER_S
        if budget.limits.max_rps:
            yield "rps", budget.limits.max_rps, Part(state.rps_allowed, 0.0, is_busy), 0.0
        for number, name in enumerate(budget.buckets.names()):
            used = budget.buckets.used(number, now) + budget.buckets.worst(number) * reserved[number]
            part = Part(state.buckets[number].allowed, used, bool(reserved[number] + waiting[number]))
            yield f"bucket:{name}", budget.buckets.usable(number), part, state.buckets[number].window_s

    def _set(self, name: str, size: float) -> None:
        state = self._budget.shared.state
        if name == "errors":
            state.errors_allowed = size
        elif name == "in_flight":
            state.in_flight_allowed = size
        elif name == "rps":
            state.rps_allowed = size
        else:
            self._bucket(name).allowed = size

    def _note_others(self, name: str, parts: list[Part]) -> None:
        """What others have used of a limit, and may yet use, so that headers are read aright."""
        state, free = self._budget.shared.state, sum(part.allowed - part.used for part in parts)
        if name == "errors":
            state.others_errors = free
        elif name.startswith("bucket:"):
            bucket = self._bucket(name)
            bucket.others_used, bucket.others_free = sum(part.used for part in parts), free

    def _bucket(self, name: str) -> Any:
        number = self._budget.buckets.number(name.removeprefix("bucket:"))
        return self._budget.shared.state.buckets[number]

    def _hear(self, rows: Iterable[Row], db_now: float, now: float) -> None:
        """A pause or a closed bucket that somebody has met holds for everybody, also what we met before a restart."""
        budget, state = self._budget, self._budget.shared.state
        for row in rows:
            until = now + float(row.get("paused_until", 0.0)) - db_now
            if now < until <= now + _LONGEST_PAUSE_S and until > state.paused_until + 0.1:
                state.paused_until = until
                state.paused_until_wall = clock.now().timestamp() + until - now
                budget.pace.resume(until)
            for name, closed_until in row.get("closed", {}).items():
                number = budget.buckets.number(name)
                left_s = closed_until - db_now
                if number is None or not 0 < left_s <= max(_LONGEST_PAUSE_S, state.buckets[number].window_s):
                    continue
                # Told to and fro, a time would grow by each rounding.
                if now + left_s > state.buckets[number].closed_until + 0.1:
                    budget.buckets.close(number, left_s, now)

    def _recall(self, row: Row | None, db_now: float, now: float) -> None:
        """Our file is new but we are not: what was spent before it was lost is spent."""
        budget = self._budget
        budget.shared.state.has_past = 1
        for name, part in (row or {}).get("parts", {}).items():
            number = budget.buckets.number(name.removeprefix("bucket:")) if name.startswith("bucket:") else None
            if number is not None and db_now - float(row["at"]) < budget.shared.state.buckets[number].window_s:  # type: ignore[index]
                budget.buckets.spend(number, float(part[1]), now)
