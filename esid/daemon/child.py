"""One child process as the supervisor sees it: started, watched, replaced, ended."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from esid import clock, log
from esid.daemon import signals
from esid.daemon.cell import Cell
from esid.daemon.child_loop import Life
from esid.errors import EsidError
from esid.store import pg_deadline
from esid.words import counted

#: More deaths of one child than this within the seconds end the daemon (exit 70): the service manager decides then.
MOST_DEATHS, DEATHS_WITHIN_S = 5, 60.0
#: Seconds without a word of the main thread, or without a move of a consumer, after which a child hangs. A consumer may
#: have to wait for other threads that connect to a database which does not answer.
SILENT_S, STUCK_S = 30.0, 180.0
#: Seconds of silence after which a service manager is not told any more that all is well; it waits longer than we do.
WELL_S = 10.0
#: Seconds that a hanging child has to say where it stands, and after which a process that could not be made is tried again.
TRACE_S, AGAIN_S = 2.0, 1.0
_log = log.get("daemon")


class Child:
    """A child process that is to be alive.

    Args:
        threads: worker threads whose hands are remembered beyond its death.
        fork: the context of `multiprocessing` that makes processes.
    """

    def __init__(self, name: str, main: Callable[[Life], None], threads: int, fork: Any) -> None:
        self.name, self._main, self._fork = name, main, fork
        self._cell = Cell(threads)
        self._process: Any = None
        self._deaths: deque[float] = deque()
        self._kill_at: float | None = None
        self._again_at = 0.0
        self._forgiven_s, self._forgiven_until = 0.0, 0.0

    def start(self, *, again: bool = False) -> None:
        """Start a process.

        Raises:
            EsidError: the system makes none; there is no process then.
        """
        self._cell.start(again=again)
        self._kill_at = None
        arguments = (self.name, self._main, self._cell, os.getpid())
        process = self._fork.Process(target=_main, args=arguments, name=self.name)
        try:
            process.start()
        except OSError as error:
            raise EsidError(
                f"{self.name} cannot be started: the system makes no process ({error.strerror}); "
                "allow more of them (ulimit -u, TasksMax= of the unit, a container's pids), or free memory"
            ) from error
        self._process = process

    def is_alive(self) -> bool:
        """True while its process runs."""
        return self._process is not None and self._process.exitcode is None

    def has_started(self) -> bool:
        """True once it has all of its parts."""
        return self._cell.booted

    @property
    def schema(self) -> int:
        """The number of the database's schema when it last looked; 0 = it has not."""
        return self._cell.schema

    def is_well(self) -> bool:
        """True while it was heard of lately, and is not being ended."""
        silent_s, stuck_s = self._cell.silent_s
        forgiven_s = self._forgiven_s if clock.monotonic() < self._forgiven_until else 0.0
        return self._kill_at is None and silent_s <= WELL_S + forgiven_s and stuck_s <= STUCK_S + forgiven_s

    def keep_alive(self) -> bool:
        """Replace a dead process and end a silent one; False when that is of no use any more."""
        if self._process is None:
            return clock.monotonic() < self._again_at or self._replace(again=False)
        if self._process.exitcode is None:
            self._look()
            return True
        pid, code = self._process.pid, self._process.exitcode
        self._process.close()
        self._process = None
        if code > 0 and not self._cell.booted:
            self._give_up(f"{self.name} cannot start (its error stands above)", code)
            return False
        if self._dies_too_often(code):
            return False
        log.event(_log, "daemon.child_replaced", f"{self.name} died", level=logging.WARNING, pid=pid, exit=code)
        return self._replace(again=True)

    def forgive(self, seconds: float) -> None:
        """The whole daemon stood still for so long: until its next word the child is allowed that much more silence."""
        self._forgiven_s, self._forgiven_until = seconds, clock.monotonic() + SILENT_S

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.join()

    def _replace(self, *, again: bool) -> bool:
        """Start a process in the place of a dead one. Where none can be made that is a death more, and is tried again."""
        try:
            self.start(again=again)
        except EsidError as error:
            log.event(_log, "daemon.child_missing", str(error), level=logging.ERROR)
            self._again_at = clock.monotonic() + AGAIN_S
            return not self._dies_too_often(error.exit_code)
        return True

    def _dies_too_often(self, code: int) -> bool:
        """Count a death; True where it was one too many."""
        now = clock.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - DEATHS_WITHIN_S:
            self._deaths.popleft()
        if len(self._deaths) <= MOST_DEATHS:
            return False
        self._give_up(f"{self.name} died {counted(len(self._deaths), 'time')} within {DEATHS_WITHIN_S:.0f} s", code)
        return True

    def _look(self) -> None:
        """End a process that has not been heard of for too long, after it has said where it stands."""
        now = clock.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._process.kill()
            return
        forgiven_s = self._forgiven_s if now < self._forgiven_until else 0.0
        silent_s, stuck_s = (seconds - forgiven_s for seconds in self._cell.silent_s)
        if silent_s > SILENT_S or stuck_s > STUCK_S:
            what = "its main thread" if silent_s > SILENT_S else "a consumer"
            words = f"{self.name} hangs: nothing heard of {what} for {max(silent_s, stuck_s):.0f} s; it is replaced"
            log.event(_log, "daemon.child_hangs", words, level=logging.ERROR, pid=self._process.pid)
            signals.ask_for_trace(self._process.pid)
            self._kill_at = now + TRACE_S

    def _give_up(self, words: str, code: int) -> None:
        log.event(_log, "daemon.gives_up", f"{words}; the daemon ends", level=logging.ERROR, exit=code)


def _main(name: str, main: Callable[[Life], None], cell: Cell, parent: int) -> None:
    """What a child does: never returns into the supervisor's code."""
    signals.die_with_parent(parent)
    faulthandler.enable()
    try:
        # Its main thread is to be heard of, from its start on.
        with pg_deadline.at_most(pg_deadline.SOON_S):
            main(Life(name.partition("-")[0], cell))
    except EsidError as error:
        log.event(_log, "daemon.child_failed", str(error), level=logging.ERROR, child=name)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001
        words = f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_exception(error)).strip().replace("\n", " | ")
        log.event(_log, "daemon.child_failed", words, level=logging.ERROR, child=name, where=where[-2000:])
        sys.exit(70)
