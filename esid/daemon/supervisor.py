"""The supervisor: starts the children, replaces the dead, ends all of them within the stop budget.

One process without threads or connections, so that it may fork at any time. It looks at its children ten times a
second; a child that dies before it has run for `BOOT_S` a few times in a row ends the daemon.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from esid import clock, log
from esid.clock import Stop
from esid.daemon import children, lock, parts, signals
from esid.errors import AddressInUse, EsidError
from esid.settings import Settings

#: Seconds in which everything has ended after SIGTERM; the unit file's TimeoutStopSec is larger.
STOP_S = 75.0
#: This many deaths of one child within the seconds end the daemon (exit 70): the service manager decides then.
MOST_DEATHS, DEATHS_WITHIN_S = 5, 60.0
_LOOK_S = 0.1
_log = log.get("daemon")
_fork = multiprocessing.get_context("fork")


@dataclass
class Child:
    """A child process that is to be alive."""

    name: str
    main: Callable[[Stop], None]
    process: Any = None
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Runs the daemon in the foreground until it is told to stop."""

    def __init__(self, settings: Settings, *, with_scheduler: bool = True, with_feed: bool = True) -> None:
        self._settings = settings
        signals.block()
        self._listener = _listen(settings.esid_http_listen)
        self._children = [
            Child(f"worker-{number}", partial(children.worker, settings)) for number in range(1, settings.esid_processes + 1)
        ]
        if with_scheduler:
            self._children.append(Child("scheduler", partial(children.scheduler, settings)))
        if with_feed and settings.follows_killmails:
            self._children.append(Child("feed", partial(children.feed, settings)))
        if self._listener:
            self._children.append(Child("web", partial(children.web, settings, listener=self._listener)))

    def run(self) -> int:
        """The exit code: 0 after a stop, 70 when a child would not stay alive.

        Raises:
            EsidError: the daemon cannot start; nothing runs.
        """
        held = lock.InstanceLock(parts.lock_path(self._settings), alone=self._settings.database.startswith("sqlite:"))
        self._prepare()
        try:
            for child in self._children:
                self._start(child)
            log.event(_log, "daemon.started", self._words(), pid=os.getpid())
            while not signals.wait(_LOOK_S):
                if not all(self._keep_alive(child) for child in self._children):
                    return 70
            return 0
        finally:
            self._end()
            held.release()

    def _prepare(self) -> None:
        """Check what every child needs, once and with a readable error; then close it: nothing crosses the fork."""
        parts.open_budget(self._settings).close()
        store = parts.ready_store(self._settings)
        try:
            parts.open_publisher(self._settings, store).broker.check()
        finally:
            store.close()

    def _words(self) -> str:
        settings = self._settings
        parts_ = [
            f"mirroring {', '.join(settings.entities)} from {settings.esi_base_url}",
            f"{settings.esid_processes} x {settings.esid_threads} threads",
        ]
        if self._listener:
            parts_.append(f"health at http://{settings.esid_http_listen}/healthz")
        return "; ".join(parts_)

    def _start(self, child: Child) -> None:
        child.process = _fork.Process(target=_child_main, args=(child.name, child.main, os.getpid()), name=child.name)
        child.process.start()

    def _keep_alive(self, child: Child) -> bool:
        """Replace a dead child; False when it has died too often."""
        if child.process.exitcode is None:
            return True
        pid, code = child.process.pid, child.process.exitcode
        child.process.close()
        now = clock.monotonic()
        child.deaths.append(now)
        while child.deaths[0] < now - DEATHS_WITHIN_S:
            child.deaths.popleft()
        if len(child.deaths) >= MOST_DEATHS:
            words = f"{child.name} died {MOST_DEATHS} times within {DEATHS_WITHIN_S:.0f} s; the daemon ends"
            log.event(_log, "daemon.gives_up", words, level=logging.ERROR)
            child.process = None
            return False
        log.event(_log, "daemon.child_replaced", f"{child.name} died", level=logging.WARNING, pid=pid, exit=code)
        self._start(child)
        return True

    def _end(self) -> None:
        """Ask every child to stop; kill those that are still there at the end of the stop budget."""
        log.event(_log, "daemon.stopping", "no new work; running work ends or goes back")
        alive = [child.process for child in self._children if child.process is not None]
        for process in alive:
            process.terminate()
        ends_at = clock.monotonic() + STOP_S
        for process in alive:
            process.join(max(0.0, ends_at - clock.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        log.event(_log, "daemon.stopped")


def _child_main(name: str, main: Callable[[Stop], None], parent: int) -> None:
    """What a child does: never returns into the supervisor's code."""
    signals.die_with_parent(parent)
    try:
        main(Stop())
    except EsidError as error:
        log.event(_log, "daemon.child_failed", str(error), level=logging.ERROR, child=name)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001
        words = f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_exception(error)).strip().replace("\n", " | ")
        log.event(_log, "daemon.child_failed", words, level=logging.ERROR, child=name, where=where[-2000:])
        sys.exit(70)


def _listen(address: str) -> socket.socket | None:
    """The status server's socket, bound before anything else so that a taken port is said at once."""
    if address == "off":
        return None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise AddressInUse(
            f"cannot listen on {address}: {error.strerror}; set ESID_HTTP_LISTEN to a free address, or to off"
        ) from None
    return listener
