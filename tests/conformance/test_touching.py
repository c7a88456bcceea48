"""Work that takes long is not taken for lost while somebody has it in hand."""

from __future__ import annotations

import datetime as dt

import pytest

from esid import clock
from esid.daemon.cell import Cell
from esid.entities import ENTITIES
from esid.entities.corporation import CORPORATION
from esid.queue.touching import LONGEST_S, Touching
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Done, Seen

PLACE = ENTITIES.index(CORPORATION)
QUIET_S = 300.0


def test_what_is_in_hand_for_minutes_has_not_lost_its_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker with a unit of work of which each id takes minutes, and jobs that nobody works on
    moved, (start, started) = [0.0], (clock.now(), clock.monotonic())
    monkeypatch.setattr(clock, "now", lambda: start + dt.timedelta(seconds=moved[0]))
    monkeypatch.setattr(clock, "monotonic", lambda: started + moved[0])
    hands = Cell(2).hands
    touching = Touching(store, hands)
    ledger.request(store, [Seen("corporation", key) for key in range(1, 8)])
    ledger.take(store, "corporation", [1, 2, 3, 4, 5, 6])
    hands.take(PLACE, [1, 2, 3, 4])

    def pass_by(seconds: float) -> None:
        for _ in range(round(seconds / 5)):
            moved[0] += 5.0
            touching.look()

    # When it goes on for longer than a message is missed, done with one id and put off with another
    pass_by(200)
    ledger.finish(store, "corporation", [Done(1, checked_at=clock.now(), expires_at=clock.now() + dt.timedelta(hours=1))])
    ledger.defer(store, "corporation", [2], 5.0)
    ledger.queued(store, "corporation", [7], clock.now())
    pass_by(400)
    # Then only what nobody has in hand is orphaned, and what was put off keeps its time
    assert ledger.orphaned(store, "corporation", QUIET_S, 10) == [5, 6, 7]
    assert ledger.unpublished(store, "corporation", 10) == [2]
    # When it is done, or hangs for much longer than anything takes, it is left alone
    hands.drop()
    pass_by(400)
    assert set(ledger.orphaned(store, "corporation", QUIET_S, 10)) >= {3, 4}
    hands.take(PLACE, [3, 4])
    pass_by(LONGEST_S + QUIET_S + 120)
    assert set(ledger.orphaned(store, "corporation", QUIET_S, 10)) >= {3, 4}
