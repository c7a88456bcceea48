"""The main thread of a child is heard of, whatever its database does."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
from typing import Any

import pytest

from esid.daemon import child, signals
from esid.daemon.cell import Cell
from esid.daemon.child_loop import Life
from esid.errors import DatabaseUnavailable
from esid.store import notes, pg_deadline
from esid.store.connection import _SILENT_S, STATEMENT_S, Store
from esid.store.leader import Leadership


def test_no_main_thread_waits_for_one_answer_as_long_as_its_child_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the patience of a store that nobody has told anything
    pg_deadline.install(STATEMENT_S + _SILENT_S)
    came, patience = iter([None, signal.SIGTERM]), list[float]()
    monkeypatch.setattr(signals, "wait", lambda _: next(came))
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(signals, "die_with_parent", lambda _: None)
    monkeypatch.setattr(faulthandler, "enable", lambda: None)
    assert pg_deadline.patience_s() > child.SILENT_S

    # When a child starts and lives, and somebody else asks for the schedule's lock, which its main thread waits for
    def lives(life: Life) -> None:
        patience.append(pg_deadline.patience_s())
        life.wait_for_stop(object(), every_second=lambda: patience.append(pg_deadline.patience_s()))  # type: ignore[arg-type]

    child._main("scheduler", lives, Cell(0), os.getppid())
    with Leadership(Store("postgresql://nobody@127.0.0.1:1/none"), ["alliance"])._alone():
        patience.append(pg_deadline.patience_s())

    # Then neither waits too long, and everybody else as before
    a_look_s = 1.0
    assert [pg_deadline.CONNECT_S + one + a_look_s < child.SILENT_S for one in patience] == [True, True, True]
    assert pg_deadline.patience_s() > child.SILENT_S


def test_a_child_is_heard_of_between_two_waits_for_a_silent_database(
    monkeypatch: pytest.MonkeyPatch, times: list[float]
) -> None:
    # Given a child that was replaced and notes it, and a database that says nothing
    came = iter([None, signal.SIGTERM])
    monkeypatch.setattr(signals, "wait", lambda _: next(came))
    monkeypatch.setattr(gc, "freeze", lambda: None)

    def silent(*_: Any) -> None:
        times[0] += 18
        raise DatabaseUnavailable("no answer within 18 s")

    monkeypatch.setattr(notes, "note_restarts", silent)
    cell, heard = Cell(0), list[float]()
    cell.start(again=True)

    # When what it does each second waits too
    def look() -> None:
        times[0] += 18
        heard.append(cell.silent_s[0])

    Life("scheduler", cell).wait_for_stop(object(), every_second=look)  # type: ignore[arg-type]
    assert heard == [18]
