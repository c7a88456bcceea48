"""Waiting for work that a daemon does, and progress that is drawn over itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from esid import clock, render
from esid.daemon import lock, parts
from esid.settings import Settings
from esid.store import ledger
from esid.store.connection import Store


def wait(store: Store, chosen: Settings, names: Sequence[str], failed_before: int) -> int:
    """Wait until no job of these entities is open; 1 when more of them have failed than before they were asked for."""
    started, done_before = clock.monotonic(), _known(store, names) - ledger.open_count(store, names)
    note_no_daemon(chosen, waits=True)
    while is_open := ledger.open_count(store, names):
        known = _known(store, names)
        rate = (known - is_open - done_before) / max(0.1, clock.monotonic() - started)
        _draw_bar(known - is_open, known, rate)
        clock.sleep(0.5)
    if sys.stderr.isatty():
        _draw_bar(_known(store, names), _known(store, names), 0.0)
        print(file=sys.stderr)
    failed = failed_count(store, names) - failed_before
    if failed > 0:
        print(f"{failed:,} ids failed; `esid dead list` says why", file=sys.stderr)
    return 1 if failed > 0 else 0


def _known(store: Store, names: Sequence[str]) -> int:
    counts = ledger.counts(store)
    return sum(sum(counts.get(name, {}).values()) for name in names)


def failed_count(store: Store, names: Sequence[str]) -> int:
    """How many ids of these entities are given up."""
    counts = ledger.counts(store)
    return sum(counts.get(name, {}).get("failed", 0) for name in names)


class Bar:
    """Killmails as they come, drawn over itself; nothing where standard error is no terminal."""

    def __init__(self, expected: int | None) -> None:
        self._expected, self._done, self._started = expected, 0, clock.monotonic()

    @property
    def rate(self) -> float:
        """Killmails a second since the beginning."""
        return self._done / max(0.001, clock.monotonic() - self._started)

    def advance(self, killmails: int) -> None:
        """So many more are written."""
        self._done += killmails
        if sys.stderr.isatty():
            words = render.killmail_bar(self._done, self._expected, self.rate)
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _draw_bar(done: int, known: int, rate: float) -> None:
    """One line, drawn over itself; nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        return
    print(f"\r\033[K{render.bar(done, known, rate)}", end="", file=sys.stderr, flush=True)


def note_no_daemon(chosen: Settings, *, waits: bool) -> None:
    """Say that nobody does the work, where that can be known: on SQLite."""
    if chosen.database.startswith("sqlite:") and lock.holder(parts.lock_path(chosen)) is None:
        what = "waiting for one: start `esid run`" if waits else "it is kept until `esid run` is started"
        print(f"esid: no daemon is running here; {what}", file=sys.stderr)
