"""The main thread of a child is heard of, whatever its database does."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from esid import clock, settings
from esid.daemon import child, children, parts, signals
from esid.daemon.board import Cell
from esid.daemon.life import Life
from esid.errors import DatabaseUnavailable
from esid.store import notes, waiting

MAINS = {"worker": children.worker, "scheduler": children.scheduler, "feed": children.feed, "web": children.web}


class OpenedError(Exception):
    """The database was opened, and that is all."""


@pytest.mark.parametrize("name", MAINS)
def test_no_child_waits_for_one_statement_as_long_as_it_may_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    open_store = parts.open_store

    def opened(*arguments: Any, **named: Any) -> None:
        open_store(*arguments, **named).close()
        raise OpenedError

    monkeypatch.setattr(parts, "open_store", opened)
    environment = {"ESID_DATA_DIR": str(tmp_path), "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    chosen = settings.read({**environment, "ESI_CONTACT": "you@example.com"}, tmp_path / ".env")
    main: Callable[..., None] = partial(MAINS[name], listener=None) if name == "web" else MAINS[name]
    with pytest.raises(OpenedError):
        main(chosen, Life(name, Cell(0)))
    a_look_s = 1.0
    assert waiting.CONNECT_S + waiting._deadline_s + a_look_s < child.SILENT_S


def test_a_child_is_heard_of_between_two_waits_for_a_silent_database(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a child that was replaced and notes it, and a database that says nothing
    times, came = [1000.0], iter([None, signal.SIGTERM])
    monkeypatch.setattr(clock, "monotonic", lambda: times[0])
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
