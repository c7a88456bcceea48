"""Imports many days over many processes: the parent hands out days and hears what became of them, the children work.

A child imports day after day, as it knows more and more of the people in them. One that dies (out of memory, killed) is
replaced and its day begun again where it stopped, once; then the day is named and the others go on. Children die with
their parent; what they had committed stands.
"""

from __future__ import annotations

import datetime as dt
import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from esid import host
from esid.clock import Stop
from esid.errors import EsidError, StoreError
from esid.feeds.archives import Folder, Online
from esid.feeds.day import DayImport, Report
from esid.store.connection import Store

_LOOK_S = 0.5
#: Objects that a child makes between two looks for garbage: some batches.
_ROWS_BETWEEN = 100_000
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Unit:
    """One day of one source."""

    source: str
    day: dt.date
    again: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """How a child makes what it needs, after the fork."""

    store: Callable[[], Store]
    archives: Callable[[], Online | Folder]


@dataclass
class _Child:
    """A process, the pipe to it, and what it has to do."""

    process: Any
    pipe: Connection
    unit: Unit


def run(
    parts: Parts,
    units: Iterable[Unit],
    processes: int,
    on_progress: Callable[[int], None],
    on_day: Callable[[Report], None],
) -> None:
    """Import all units. The caller must hold no connection to the database: it would cross the fork.

    Args:
        on_progress: told how many killmails were written since the last call; 0 now and then while nothing is.
        on_day: told what became of each day, in the order in which they end.

    Raises:
        EsidError: the database is away or refuses, or a child cannot make its parts; every child has ended, what was
            committed stands.
    """
    waiting = deque(units)
    children: dict[Connection, _Child] = {}
    died: set[Unit] = set()
    try:
        while waiting or children:
            while waiting and len(children) < processes:
                child = _start(parts, waiting.popleft())
                children[child.pipe] = child
            for pipe in wait(list(children), _LOOK_S):
                child = children[pipe]  # type: ignore[index]
                told = _receive(child)
                if isinstance(told, int):
                    on_progress(told)
                    continue
                if isinstance(told, EsidError):
                    raise told
                if told is None and child.unit not in died:
                    died.add(child.unit)
                    waiting.appendleft(child.unit)
                else:
                    on_day(told or _died_twice(child.unit))
                if told and waiting and _hand(child, waiting[0]):
                    waiting.popleft()
                else:
                    _end(children.pop(child.pipe))
            on_progress(0)
    finally:
        for child in children.values():
            child.process.kill()
            _end(child)


def _died_twice(unit: Unit) -> Report:
    return Report(unit.day, unit.source, error="the process that imported it died twice (out of memory?)")


def _start(parts: Parts, unit: Unit) -> _Child:
    mine, theirs = _fork.Pipe()
    process = _fork.Process(target=_child_main, args=(parts, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    child = _Child(process, mine, unit)
    _hand(child, unit)
    return child


def _hand(child: _Child, unit: Unit) -> bool:
    """Give a child its next day; False when it has died meanwhile."""
    child.unit = unit
    try:
        child.pipe.send(unit)
    except OSError:
        return False
    return True


def _receive(child: _Child) -> int | Report | EsidError | None:
    """What a child says; None where it has died."""
    try:
        told: int | Report | EsidError = child.pipe.recv()
    except (EOFError, OSError):
        return None
    return told


def _end(child: _Child) -> None:
    """Let a child go that has nothing to do, or is dead."""
    with suppress(OSError):
        child.pipe.send(None)
    child.process.join()
    child.process.close()
    child.pipe.close()


def _child_main(parts: Parts, pipe: Connection, parent: int) -> None:
    """Day after day; the terminal's Ctrl-C is for the parent, who ends the children."""
    host.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Rows are no cycles: looking for those among them would take as long as making them.
    gc.freeze()
    gc.set_threshold(_ROWS_BETWEEN)
    with suppress(BrokenPipeError):
        try:
            store, archives = parts.store(), parts.archives()
            days = DayImport(store, archives, Stop(), pipe.send)
            while unit := pipe.recv():
                told = _import(days, unit)
                # A connection that was idle while a day was written may be closed when it is used again.
                archives.close()
                pipe.send(told)
            store.close()
        except EsidError as error:
            pipe.send(error)


def _import(days: DayImport, unit: Unit) -> Report:
    """Raises StoreError."""
    try:
        return days.run(unit.source, unit.day, again=unit.again)
    except StoreError:
        raise
    except EsidError as error:
        return Report(unit.day, unit.source, error=str(error))
