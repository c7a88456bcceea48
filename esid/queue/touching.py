"""Says in the ledger that slow work is in hand: nobody is to take its message for lost, and publish it again.

What a process works on stands in its `Hands`; a unit of work may wait for minutes where each of its ids is slow.
"""

from __future__ import annotations

from esid import clock
from esid.entities import ENTITIES
from esid.queue.hands import Hands
from esid.store import ledger
from esid.store.connection import Store

#: Seconds between two looks, and for which a unit of work is touched: longer than any takes that does not hang.
EVERY_S, LONGEST_S = 60.0, 1800.0


class Touching:
    """Of one process."""

    def __init__(self, store: Store, hands: Hands) -> None:
        self._store, self._hands = store, hands
        self._looked_at = clock.monotonic()
        self._since: dict[tuple[int, tuple[int, ...]], float] = {}

    def look(self) -> None:
        """Touch what was in hand at the last look and is in hand still. To be called every few seconds.

        Raises:
            EsidError: the database is away; the next look is as good.
        """
        now = clock.monotonic()
        if now - self._looked_at < EVERY_S:
            return
        self._looked_at = now
        held = {(place, tuple(ids)) for place, ids, _ in self._hands.held()}
        self._since = {one: self._since.get(one, now) for one in held}
        for (place, ids), since in sorted(self._since.items()):
            if 0 < now - since <= LONGEST_S:
                ledger.touch(self._store, ENTITIES[place].name, ids)
