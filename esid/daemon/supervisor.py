"""The supervisor: starts the children, replaces the dead and the silent, ends all of them within the stop budget.

One process without threads or connections, so that it may fork at any time. It hears at once when a child has ended, and
looks each second whether one hangs. A child that cannot start ends the daemon at once, one that dies again and again soon
after.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import socket
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from esid import clock, host, log
from esid.assembly import core, lock
from esid.daemon import signals, status_socket
from esid.daemon.child import Child
from esid.daemon.child_loop import Life
from esid.daemon.files import Files
from esid.daemon.notice import Notice
from esid.daemon.roles import feed, scheduler, web, worker
from esid.daemon.terminal import Terminal
from esid.errors import DatabaseLost, EsidError, SchemaMismatch
from esid.settings import SYSTEM_FILE, Settings, without_password
from esid.store import migrate, processes
from esid.store.drivers import sqlite_path
from esid.words import counted

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
        log.share_outages()
        signals.block()
        self._notice, self._terminal = Notice.of_environment(), Terminal()
        self._with_scheduler, self._with_feed = with_scheduler, with_feed
        self._listener: socket.socket | None = None
        self._children: list[Child] = []

    def _made(self) -> list[Child]:
        settings = self._settings
        mains: list[tuple[str, Callable[[Life], None], int]] = [
            (f"worker-{number}", partial(worker.run, settings), worker.threads(settings))
            for number in range(1, settings.esid_processes + 1)
        ]
        # Nobody else dispatches what is in a SQLite file.
        if self._with_scheduler or settings.database.startswith("sqlite:"):
            mains.append(("scheduler", partial(scheduler.run, settings, with_syncs=self._with_scheduler), 0))
        if self._with_feed and settings.follows_killmails:
            mains.append(("feed", partial(feed.run, settings), 0))
        if self._listener:
            mains.append(("web", partial(web.run, settings, listener=self._listener), 0))
        fork = multiprocessing.get_context("fork")
        return [Child(name, main, threads, fork) for name, main, threads in mains]

    def run(self) -> int:
        """The exit code: 0 after a stop, 65 when the database file was lost or a newer program has migrated the database, 70
        when a child cannot start or would not stay alive.

        Raises:
            EsidError: the daemon cannot start; nothing runs.
        """
        core.check_disks(self._settings)
        database, lock_path = self._settings.database, core.lock_path(self._settings)
        is_sqlite = database.startswith("sqlite:")
        held = lock.InstanceLock(lock_path, alone=is_sqlite)
        # After the lock: who starts esid twice is to hear that, and not that the port is taken.
        self._listener = status_socket.listen(self._settings.esid_http_listen)
        self._prepare()
        self._children = self._made()
        files = Files(sqlite_path(database), lock_path) if is_sqlite else None
        try:
            for child in self._children:
                child.start()
            log.event(_log, "daemon.started", self._words(), pid=os.getpid())
            return self._watch(files)
        finally:
            self._end()
            self._put_away(files)
            held.release()

    def _watch(self, files: Files | None) -> int:
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
            try:
                if files:
                    files.check()
                migrate.check_newer(max(child.schema for child in self._children))
            except DatabaseLost as error:
                log.event(_log, "daemon.database_lost", str(error), level=logging.ERROR)
                self._kill(self._children)
                return error.exit_code
            except SchemaMismatch as error:
                log.event(_log, "daemon.newer_schema", str(error), level=logging.ERROR)
                return error.exit_code
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
        core.open_budget(self._settings).close()
        store = core.set_up_store(self._settings)
        try:
            with suppress(EsidError):
                processes.begin(store)  # for people alone
            publisher = core.open_publisher(self._settings, store)
            with closing(publisher.broker) as broker:
                broker.check()
                if count := core.use_queue(self._settings, store, publisher):
                    words = f"the queue is in another place than before ({core.queue_place(self._settings)})"
                    log.event(_log, "queue.moved", f"{words}: what waited in the old one is published anew", jobs=count)
        finally:
            store.close()

    def _words(self) -> str:
        settings = self._settings
        parts_ = [
            f"mirroring {', '.join(settings.entities)} from {settings.esi_base_url}",
            f"{settings.esid_processes} x {counted(settings.esid_threads, 'thread')}",
        ]
        if "killmail" in settings.entities and settings.esid_feed_url != "off" and not settings.follows_killmails:
            parts_.append("no killmail feed without ESI_CONTACT")
        if self._listener:
            address = settings.esid_http_listen.rpartition(":")[0]
            parts_.append(f"page http://{address}:{self._listener.getsockname()[1]}/")
        where = sqlite_path(settings.database) if settings.database.startswith("sqlite:") else settings.database
        parts_ += [f"database {without_password(str(where))}", f"more: {self._command()} status --watch"]
        return "; ".join(parts_)

    def _command(self) -> str:
        """How a person calls esid with the settings of this daemon, wherever that person stands."""
        file = self._settings.env_file
        named = f" --env-file {shlex.quote(str(Path(file).absolute()))}" if file and file != str(SYSTEM_FILE) else ""
        return f"{host.command()}{named}"

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

    def _put_away(self, files: Files | None) -> None:
        """Leave one whole SQLite file behind."""
        try:
            if files:
                files.check()
        except DatabaseLost:
            return  # it is not ours any more
        try:
            words = "" if core.put_away(self._settings) else "another program reads it; close that and start esid once more"
        except EsidError as error:
            words = str(error)
        if words:
            words = f"the newest rows stand in the -wal file beside the database, and a copy needs both: {words}"
            log.event(_log, "daemon.not_put_away", words, level=logging.WARNING)

    def _kill(self, some: Sequence[Child]) -> None:
        """End these at once; what they had in hand goes back to the queue by itself."""
        for child in some:
            if child.is_alive():
                log.event(_log, "daemon.child_killed", f"{child.name} ends at once", level=logging.WARNING)
                child.kill()
