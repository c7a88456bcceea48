"""Imports many days over many processes: the parent hands out days and hears what became of them, the children work.

A child that dies (out of memory, killed) is replaced and its day begun again where it stopped, once; then the day is
named and the others go on. Children die with their parent; what they had committed stands.
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

#: Times that a day is begun before a child that dies over it is taken for its fault.
ATTEMPTS = 2
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
        StoreError: the database is away or refuses; every child has ended, what was committed stands.
    """
    waiting = deque((unit, 1) for unit in units)
    children: dict[Connection, _Child] = {}
    attempts: dict[Unit, int] = {}
    try:
        while waiting or children:
            while waiting and len(children) < processes:
                unit, attempts_so_far = waiting.popleft()
                attempts[unit] = attempts_so_far
                child = _start(parts, unit)
                children[child.pipe] = child
            for pipe in wait(list(children), _LOOK_S):
                child = children[pipe]  # type: ignore[index]
                told = _receive(child)
                if isinstance(told, int):
                    on_progress(told)
                    continue
                del children[child.pipe]
                _reap(child)
                if isinstance(told, StoreError):
                    raise told
                if isinstance(told, Report):
                    on_day(told)
                elif attempts[child.unit] < ATTEMPTS:
                    waiting.appendleft((child.unit, attempts[child.unit] + 1))
                else:
                    words = f"the process that imported it died {ATTEMPTS} times (out of memory?)"
                    on_day(Report(child.unit.day, child.unit.source, error=words))
            on_progress(0)
    finally:
        for child in children.values():
            child.process.kill()
            _reap(child)


def _start(parts: Parts, unit: Unit) -> _Child:
    mine, theirs = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_child_main, args=(parts, unit, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Child(process, mine, unit)


def _receive(child: _Child) -> int | Report | StoreError | None:
    """What a child says; None where it has died."""
    try:
        told: int | Report | StoreError = child.pipe.recv()
    except (EOFError, OSError):
        return None
    return told


def _reap(child: _Child) -> None:
    child.process.join()
    child.process.close()
    child.pipe.close()


def _child_main(parts: Parts, unit: Unit, pipe: Connection, parent: int) -> None:
    """One day; the terminal's Ctrl-C is for the parent, who ends the children."""
    host.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Rows are no cycles: looking for those among them would take as long as making them.
    gc.freeze()
    gc.set_threshold(_ROWS_BETWEEN)
    told: Report | StoreError
    try:
        store, archives = parts.store(), parts.archives()
        told = DayImport(store, archives, Stop(), pipe.send).run(unit.source, unit.day, again=unit.again)
        store.close()
    except StoreError as error:
        told = error
    except EsidError as error:
        told = Report(unit.day, unit.source, error=str(error))
    with suppress(BrokenPipeError):
        pipe.send(told)
