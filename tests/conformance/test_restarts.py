"""How often children died and were replaced: counted once each, whatever dies while that is written."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from esid.daemon.cell import Cell
from esid.daemon.child_loop import Life
from esid.store import notes
from esid.store.connection import Store


class Killed(BaseException):
    """What ends a child within the test's own process."""


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    """A child takes what it is made of out of the garbage collection; the process of the tests wants it back."""
    yield
    gc.unfreeze()


def live(store: Store, cell: Cell, kind: str = "worker") -> None:
    """Let a child live for a second."""
    life = Life(kind, cell)
    life.wait_for_stop(store, every_second=life.stop.set)


def test_a_child_killed_between_the_write_and_its_note_is_counted_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(0)
    cell.start(again=False)
    cell.start(again=True)

    def die(count: int) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(cell, "note", die)
        with pytest.raises(Killed):
            live(store, cell)
    assert notes.restarts(store) == {"worker": 1}
    cell.start(again=True)
    live(store, cell)
    assert notes.restarts(store) == {"worker": 2}
    assert cell.unnoted == 0


def test_restarts_of_all_children_and_daemons_add_up(store: Store) -> None:
    notes.set_memo(store, "restarts.worker", "7")  # as it was written before children had names
    for kind in ("worker", "worker", "scheduler"):
        cell = Cell(0)
        cell.start(again=True)
        live(store, cell, kind)
    assert notes.restarts(store) == {"worker": 9, "scheduler": 1}


def test_a_write_that_comes_late_takes_nothing_back(store: Store) -> None:
    notes.note_restarts(store, "feed", "a", 3)
    notes.note_restarts(store, "feed", "a", 2)
    notes.note_restarts(store, "feed", "a", 3)
    assert notes.restarts(store) == {"feed": 3}
