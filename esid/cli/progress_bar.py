"""Waiting for work that a daemon does, and progress that is drawn over itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from esid import clock
from esid.assembly import core, lock
from esid.cli import render
from esid.cli.printing import columns, note
from esid.settings import Settings
from esid.store import ledger
from esid.store.connection import Store
from esid.words import counted

#: Ids that are looked up at a time.
_AT_ONCE = 1000


class Work(Protocol):
    """What is waited for."""

    def known(self) -> int:
        """How many ids it is about."""

    def open(self) -> int:
        """How many of them are pending or in work."""

    def failed(self) -> int:
        """How many of them were given up."""


class Asked:
    """Ids of one entity that a person asked for. What else is open of the entity is not waited for."""

    def __init__(self, store: Store, entity: str, ids: Sequence[int]) -> None:
        self._store, self._entity, self._ids, self._left = store, entity, sorted(ids), sorted(ids)

    def known(self) -> int:
        """All of them."""
        return len(self._ids)

    def open(self) -> int:
        """How many are still to be done at most: no more than a thousand are looked at each time, the first ones first."""
        while self._left:
            part, rest = self._left[:_AT_ONCE], self._left[_AT_ONCE:]
            self._left = [key for key, status in self._states(part) if status in ledger.OPEN] + rest
            if len(self._left) > len(rest):
                break
        return len(self._left)

    def failed(self) -> int:
        """Of all of them."""
        parts = (self._ids[start : start + _AT_ONCE] for start in range(0, len(self._ids), _AT_ONCE))
        return sum(status == "failed" for part in parts for _, status in self._states(part))

    def _states(self, ids: Sequence[int]) -> list[tuple[int, str]]:
        return ledger.states(self._store, self._entity, ids)


class Synced:
    """Everything of some entities that a full sync has found due, and what follows from it."""

    def __init__(self, store: Store, entities: Sequence[str]) -> None:
        self._store, self._entities, self._since = store, entities, clock.now()

    def known(self) -> int:
        """All ids of these entities."""
        counts = ledger.counts(self._store)
        return sum(sum(counts.get(name, {}).values()) for name in self._entities)

    def open(self) -> int:
        """All of them, whoever has asked."""
        return ledger.open_count(self._store, self._entities)

    def failed(self) -> int:
        """Since the sync was asked for."""
        return ledger.failed_since(self._store, self._entities, self._since)


def follow(work: Work, chosen: Settings, *, waits: bool) -> int:
    """Say when there is work and nobody does it; wait until nothing of it is open, where somebody wants that. The exit code:
    1 when some of what was waited for has failed."""
    if _has_no_daemon(chosen) and work.open():
        what = "waiting for one: start `esid run`" if waits else "it is kept until `esid run` is started"
        note(f"no daemon is running here; {what}")
    return _wait(work) if waits else 0


def _wait(work: Work) -> int:
    started, is_open = clock.monotonic(), work.open()
    done_before = work.known() - is_open
    if is_open and not columns(sys.stderr):
        note(f"waiting until {counted(is_open, 'id is', 'ids are')} done")
    line = Line()
    try:
        while is_open := work.open():
            known = work.known()
            rate = (known - is_open - done_before) / max(0.1, clock.monotonic() - started)
            line.draw(render.bar(known - is_open, known, rate))
            clock.sleep(0.5)
        if known := work.known():
            line.draw(render.bar(known, known, 0.0))
    finally:
        line.end()
    failed = work.failed()
    if failed > 0:
        print(f"{counted(failed, 'id')} failed; `esid dead list` says why", file=sys.stderr)
    return 1 if failed > 0 else 0


class Bar:
    """Killmails (or what `unit` says) as they come, drawn over itself; nothing where standard error is no terminal."""

    def __init__(self, expected: int | None, unit: str = "killmails") -> None:
        self._expected, self._unit, self._done, self._started = expected, unit, 0, clock.monotonic()
        self._line = Line()

    @property
    def rate(self) -> float:
        """Killmails a second since the beginning."""
        return self._done / max(0.001, clock.monotonic() - self._started)

    def advance(self, killmails: int) -> None:
        """So many more are written."""
        self._done += killmails
        self._line.draw(render.killmail_bar(self._done, self._expected, self.rate, self._unit))

    def clear(self) -> None:
        """Make room for a line."""
        self._line.clear()

    def end(self, *, is_whole: bool) -> None:
        """The last of them is written: what there was is all that there is, whatever was expected."""
        if not self._done:
            self.clear()
        elif is_whole:
            self._line.draw(render.killmail_bar(self._done, self._expected, self.rate, self._unit, is_end=True))

    def leave(self) -> None:
        """What is printed next stands on a line of its own. Twice is harmless."""
        self._line.end()


class Line:
    """A line that is drawn over itself; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._is_drawn = False

    def draw(self, words: str) -> None:
        """In the place of what was drawn before; a line that the terminal wraps would stay."""
        if wide := columns(sys.stderr):
            print(f"\r\033[K{words[: wide - 1]}", end="", file=sys.stderr, flush=True)
            self._is_drawn = True

    def clear(self) -> None:
        """As if nothing had been drawn."""
        if self._is_drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._is_drawn = False

    def end(self) -> None:
        """Leave it as it is."""
        if self._is_drawn:
            print(file=sys.stderr, flush=True)
            self._is_drawn = False


def _has_no_daemon(chosen: Settings) -> bool:
    """Whether nobody does the work here; False where that cannot be known: on PostgreSQL."""
    return chosen.database.startswith("sqlite:") and lock.holder(core.lock_path(chosen)) is None
