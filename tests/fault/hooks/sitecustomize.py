"""What only a test can do to a running daemon: crash at a named point, change a number, forbid a database to grow.

Python imports this module at start because a test puts its folder on PYTHONPATH; nothing of esid knows of it. It takes its
variables out of the environment, since esid refuses settings that it does not know.

ESID_TEST_CRASH=point[:n]   SIGKILL to itself when a process passes the point for the n-th time, once for each file
                            ESID_TEST_ONCE (the next process passes)
ESID_TEST_PATCH=module:NAME=value;...   numbers of modules
ESID_TEST_PAGES=file        SQLite may have as many pages as the file says, for as long as it is there
ESID_TEST_READ_ONLY=file    nobody may write to SQLite for as long as the file is there
ESID_TEST_POISON=entity:id[:how]   whoever asks ESI for this id dies (how: kill, exit, segfault, hang, spin)
ESID_TEST_CLOCK=file        the wall clock (SQLite's, too) differs from the machine's by the seconds that stand in the file
ESID_TEST_BOOT=child        that child cannot start: ImportError
ESID_TEST_LANES=war,market   lanes more than the catalogue has
ESID_TEST_ENTITIES=40       so many entities in all, the others on these lanes in turn, each with a route of its own
ESID_TEST_NO_FORK=file      no process can be made for as long as the file is there
"""

from __future__ import annotations

import ctypes
import datetime as dt
import errno
import importlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_environ = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ESID_TEST_")}
_passed = 0
_lock = threading.Lock()
_execv = os.execv


def _begin_anew(path: str, arguments: list[str]) -> None:
    """A daemon that begins anew is the same daemon."""
    os.environ.update(_environ)
    _execv(path, arguments)


os.execv = _begin_anew


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _pass(n: int) -> None:
    """A crash point is passed."""
    global _passed
    with _lock:
        _passed += 1
        if _passed != n:
            return
    try:
        os.close(os.open(_environ["ESID_TEST_ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    _die()


def _wrap(owner: Any, name: str, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None) -> None:
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before:
            before(*arguments, **named)
        result = function(*arguments, **named)
        if after:
            after(*arguments, **named)
        return result

    setattr(owner, name, wrapped)


def _wrap_result(owner: Any, name: str, then: Callable[[Any], Any]) -> None:
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        then(result)
        return result

    setattr(owner, name, wrapped)


def _crash_at(point: str, n: int) -> None:
    from esid.esi.client import Client
    from esid.queue import work
    from esid.queue.consumer import RabbitConsumer
    from esid.store import dead_letters, ledger, messages, migrate
    from esid.store.ledger import failures

    def passed(*_: Any, **__: Any) -> None:
        _pass(n)

    if point == "after-receive":
        _wrap(work.Work, "perform", before=passed)
    elif point == "after-response":
        _wrap(Client, "_exchange", after=passed)
    elif point == "before-commit":
        _wrap(failures, "count", after=passed)
    elif point == "after-commit-before-ack":
        _wrap(work.Work, "perform", after=passed)
    elif point == "after-ack":
        _wrap(messages, "turn", after=lambda *_, acked=(), **__: _pass(n) if acked else None)
        _wrap(RabbitConsumer, "ack", after=lambda self, _: self.connection.add_callback_threadsafe(passed))
    elif point == "mid-follow-ups":
        _wrap(ledger, "queued", before=passed)
    elif point == "in-dead-letter":
        _wrap(dead_letters, "add", after=passed)
    elif point == "in-migration":
        statements = migrate.statements

        def interrupted(sql: str, is_sqlite: bool) -> Any:
            for statement in statements(sql, is_sqlite):
                passed()
                yield statement

        migrate.statements = interrupted
    else:
        raise SystemExit(f"unknown crash point {point}")


def _before_statements(pragma: Callable[[], str]) -> None:
    """Set something of SQLite's before each transaction."""
    from esid.store.connection import Store

    def limit(store: Any, *_: Any) -> None:
        if store.is_sqlite:
            store.database.connect(reuse_if_open=True)
            store.database.execute_sql(f"PRAGMA {pragma()}")

    _wrap(Store, "_run_once", before=limit)
    _wrap(Store, "_change_once", before=limit)


def _limit_pages(path: Path) -> None:
    def pages() -> str:
        try:
            return f"max_page_count = {int(path.read_text())}"
        except FileNotFoundError:
            return f"max_page_count = {2**30}"

    _before_statements(pages)


def _forbid_writing(path: Path) -> None:
    _before_statements(lambda: f"query_only = {int(path.exists())}")


def _poison(entity: str, key: int, how: str) -> None:
    from esid.esi.client import Client

    def ask(_: Any, route: Any, *, id: int = 0, **__: Any) -> None:  # noqa: A002
        if id != key or not route.path.startswith(f"/{entity}s/"):
            return
        if how == "kill":
            _die()
        elif how == "exit":
            os._exit(3)
        elif how == "segfault":
            ctypes.string_at(0)
        elif how == "hang":
            # A thread that holds the interpreter and never gives it back: a loop in somebody's C code.
            ctypes.PyDLL(None).pause()

    _wrap(Client, "get", before=ask)


def _patch(text: str) -> None:
    for one in text.split(";"):
        place, _, value = one.partition("=")
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, eval(value))


def _shift_clock(path: Path) -> None:
    from apscheduler.executors import base as executors
    from apscheduler.schedulers import base as schedulers

    from esid import clock

    real = dt.datetime

    class AsReal(type(real)):  # type: ignore[misc]
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Shifted(real, metaclass=AsReal):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return real.now(tz) + dt.timedelta(seconds=float(path.read_text()))

    clock.now = lambda: Shifted.now(dt.UTC)
    _wrap_result(sqlite3, "connect", lambda made: made.create_function("julianday", 1, _julian_day))
    for module in (executors, schedulers):
        assert module.datetime is real
        module.datetime = Shifted


def _julian_day(_: str) -> float:
    """SQLite's clock: esid asks for that of now alone."""
    from esid import clock

    return clock.now().timestamp() / 86400.0 + 2440587.5


def _cannot_boot(child: str) -> None:
    role = importlib.import_module(f"esid.daemon.roles.{child}")

    def fail(*_: Any, **__: Any) -> None:
        raise ImportError("No module named 'gone'")

    role.run = fail  # type: ignore[attr-defined]


def _add_lanes(names: list[str]) -> None:
    """Before anything of esid has computed what follows from the lanes."""
    from esid import catalogue

    catalogue.LANES += tuple(catalogue.Lane(name, f"{name}s", "2h", (name[:2],)) for name in names)
    catalogue.NAMES = tuple(lane.name for lane in catalogue.LANES)


def _add_entities(count: int) -> None:
    """Before anybody has taken over the list."""
    from dataclasses import replace

    from esid import catalogue, entities
    from esid.entities.corporation import CORPORATION
    from esid.esi.routes import Route

    lanes = catalogue.NAMES[4:]
    more = [
        replace(CORPORATION, name=f"one_{n}", lane=lanes[n % len(lanes)], route=Route(f"/one_{n}s/{{id}}"))
        for n in range(count - len(entities.ENTITIES))
    ]
    entities.ENTITIES += tuple(more)
    entities.MIRRORED += tuple(more)
    entities.ROUTES += tuple(one.route for one in more)
    entities.BY_NAME.update({one.name: one for one in more})


def _forbid_forks(path: Path) -> None:
    fork = os.fork

    def forbidden() -> int:
        if path.exists():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = forbidden


if "ESID_TEST_LANES" in _environ:
    _add_lanes(_environ["ESID_TEST_LANES"].split(","))
if "ESID_TEST_ENTITIES" in _environ:
    _add_entities(int(_environ["ESID_TEST_ENTITIES"]))
if "ESID_TEST_CRASH" in _environ:
    _point, _, _n = _environ["ESID_TEST_CRASH"].partition(":")
    _crash_at(_point, int(_n or 1))
if "ESID_TEST_PATCH" in _environ:
    _patch(_environ["ESID_TEST_PATCH"])
if "ESID_TEST_PAGES" in _environ:
    _limit_pages(Path(_environ["ESID_TEST_PAGES"]))
if "ESID_TEST_READ_ONLY" in _environ:
    _forbid_writing(Path(_environ["ESID_TEST_READ_ONLY"]))
if "ESID_TEST_POISON" in _environ:
    _entity, _key, *_how = _environ["ESID_TEST_POISON"].split(":")
    _poison(_entity, int(_key), (_how or ["kill"])[0])
if "ESID_TEST_CLOCK" in _environ:
    _shift_clock(Path(_environ["ESID_TEST_CLOCK"]))
if "ESID_TEST_BOOT" in _environ:
    _cannot_boot(_environ["ESID_TEST_BOOT"])
if "ESID_TEST_NO_FORK" in _environ:
    _forbid_forks(Path(_environ["ESID_TEST_NO_FORK"]))
