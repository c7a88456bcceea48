"""The supervisor: starts the children, replaces the dead and the silent, ends all of them within the stop budget.

One process without threads or connections, so that it may fork at any time. It hears at once when a child has ended, and
looks each second whether one hangs. A child that cannot start ends the daemon at once, one that dies again and again soon
after.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from esid import clock, log
from esid.daemon import children, lock, parts, signals, status_socket
from esid.daemon.child import Child
from esid.daemon.life import Life
from esid.daemon.notice import Notice
from esid.daemon.terminal import Terminal
from esid.settings import Settings

#: Seconds in which everything has ended after SIGTERM; the unit file's TimeoutStopSec is larger.
STOP_S = 75.0
#: Seconds between looks at the children, while some are starting and later, and those between two looks that mean that we
#: did not run ourselves.
_STARTING_LOOK_S, _LOOK_S, _STOOD_STILL_S = 0.1, 1.0, 2.0
_log = log.get("daemon")


class Supervisor:
    """Runs the daemon in the foreground until it is told to stop."""

    def __init__(self, settings: Settings, *, with_scheduler: bool = True, with_feed: bool = True) -> None:
        self._settings = settings
        signals.block()
        self._notice, self._terminal = Notice.of_environment(), Terminal()
        self._listener = status_socket.listen(settings.esid_http_listen)
        mains: list[tuple[str, Callable[[Life], None], int]] = [
            (f"worker-{number}", partial(children.worker, settings), children.worker_threads(settings))
            for number in range(1, settings.esid_processes + 1)
        ]
        # Nobody else dispatches what is in a SQLite file.
        if with_scheduler or settings.database.startswith("sqlite:"):
            mains.append(("scheduler", partial(children.scheduler, settings, with_syncs=with_scheduler), 0))
        if with_feed and settings.follows_killmails:
            mains.append(("feed", partial(children.feed, settings), 0))
        if self._listener:
            mains.append(("web", partial(children.web, settings, listener=self._listener), 0))
        fork = multiprocessing.get_context("fork")
        self._children = [Child(name, main, threads, fork) for name, main, threads in mains]

    def run(self) -> int:
        """The exit code: 0 after a stop, 70 when a child cannot start or would not stay alive.

        Raises:
            EsidError: the daemon cannot start; nothing runs.
        """
        held = lock.InstanceLock(parts.lock_path(self._settings), alone=self._settings.database.startswith("sqlite:"))
        self._prepare()
        try:
            for child in self._children:
                child.start()
            log.event(_log, "daemon.started", self._words(), pid=os.getpid())
            return self._watch()
        finally:
            self._end()
            held.release()

    def _watch(self) -> int:
        looked_at, has_started = clock.monotonic(), False
        while True:
            came = signals.wait(_LOOK_S if has_started else _STARTING_LOOK_S)
            if came in signals.STOPPING:
                return 0
            if came == signals.STOP_NOW:
                self._kill(self._children)
                return 0
            if self._terminal.is_gone(hung_up=came == signals.HANG_UP):
                log.event(_log, "daemon.terminal_closed", "the terminal that esid was started from is gone")
                return 0
            if came == signals.HANG_UP:
                log.event(_log, "daemon.no_reload", "settings are read at start; restart esid to change them")
            # A child is not silent for as long as we did not run ourselves (a stopped container, a debugger).
            now = clock.monotonic()
            if now - looked_at > _STOOD_STILL_S:
                for child in self._children:
                    child.forgive(now - looked_at)
            looked_at = now
            if not all(child.keep_alive() for child in self._children):
                return 70
            has_started = all(child.has_started() for child in self._children)
            self._notice.look(started=has_started, well=all(child.is_well() for child in self._children))

    def _prepare(self) -> None:
        """Check what every child needs, once and with a readable error; then close it: nothing crosses the fork."""
        parts.open_budget(self._settings).close()
        store = parts.ready_store(self._settings)
        try:
            with closing(parts.open_publisher(self._settings, store).broker) as broker:
                broker.check()
        finally:
            store.close()

    def _words(self) -> str:
        settings = self._settings
        parts_ = [
            f"mirroring {', '.join(settings.entities)} from {settings.esi_base_url}",
            f"{settings.esid_processes} x {settings.esid_threads} threads",
        ]
        if "killmail" in settings.entities and settings.esid_feed_url != "off" and not settings.follows_killmails:
            parts_.append("no killmail feed without ESI_CONTACT")
        if self._listener:
            parts_.append(f"health at http://{settings.esid_http_listen}/healthz")
        return "; ".join(parts_)

    def _end(self) -> None:
        """Ask every child to stop; kill those that are still there at the end of the stop budget, or at SIGQUIT."""
        self._notice.stopping()
        alive = [child for child in self._children if child.is_alive()]
        if not alive:
            return
        log.event(_log, "daemon.stopping", "no new work; running work ends or goes back")
        for child in alive:
            child.terminate()
        ends_at = clock.monotonic() + STOP_S
        while any(child.is_alive() for child in alive) and clock.monotonic() < ends_at:
            if signals.wait(0.02) == signals.STOP_NOW:
                break
        self._kill(alive)
        log.event(_log, "daemon.stopped")

    def _kill(self, some: Sequence[Child]) -> None:
        """End these at once; what they had in hand goes back to the queue by itself."""
        for child in some:
            if child.is_alive():
                log.event(_log, "daemon.child_killed", f"{child.name} ends at once", level=logging.WARNING)
                child.kill()
