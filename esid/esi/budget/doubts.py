"""Ids that nobody ever answered for and that one source has named: refused in rows, they lose their place.

An answer may name any number of ids that do not exist, say 60,000 invented attackers of one killmail, and each that is asked
costs an error of the limit that is everybody's. So where `IN_A_ROW` of a source's ids were refused on a route, and none
accepted between, the rest of them leave one in `EVERY_S`, all doubted sources together; the next good answer ends it.

What another source names is asked as ever: a new character on the live feed does not wait for an older killmail's. A source
is the time at which ids became known: those of one answer have it in common, those that a person asks for have not (see
`store.ledger`), and what was answered once has none. Remembered for the host, as the limit is; a source that is forgotten
costs `IN_A_ROW` errors more.

Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from esid.errors import Fault
from esid.esi.budget.layout import DOUBTS

#: Ids refused in a row, and seconds between two that are asked all the same: a tenth of the error limit.
IN_A_ROW, EVERY_S = 10, 6.0
#: Seconds that they wait at least, as no thread is to wait for them, and at most: what waits for company waits longer.
_SHORTEST_S, _LONGEST_S = 15.0, 3000.0


def number_of(path: str, source: str) -> int:
    """A number for a source on a route; 0 = none."""
    return crc32(f"{path} {source}".encode()) + 1 if source else 0


class Doubts:
    """The doubted sources of one state."""

    def __init__(self, state: Any) -> None:
        self._state, self._sources = state, state.doubts.sources

    def is_doubted(self, source: int) -> bool:
        """Whether what this source has named waits in line.

        Args:
            source: a number for source and route; 0 = none.
        """
        row = self._row(source)
        return row is not None and self._state.doubts.refused[row] >= IN_A_ROW

    def doubted(self) -> frozenset[int]:
        """All sources that are doubted."""
        table = self._state.doubts
        pairs = zip(table.sources[:], table.refused[:], strict=True)
        return frozenset(source for source, refused in pairs if source and refused >= IN_A_ROW)

    def wait_s(self, source: int, now: float) -> float:
        """Seconds after which an id of this source had better come again: a place in the line; 0 = it may leave now."""
        if not self.is_doubted(source) or now >= self._state.doubt_at:
            return 0.0
        line_at = max(now + _SHORTEST_S, self._state.doubt_line_at + EVERY_S)
        self._state.doubt_line_at = min(line_at, now + _LONGEST_S)
        return float(self._state.doubt_line_at) - now

    def take(self, source: int, now: float) -> None:
        """An id leaves."""
        if self.is_doubted(source):
            self._state.doubt_at = now + EVERY_S

    def settle(self, source: int, fault: Fault | None, now: float) -> bool:
        """Book one answer; True where the source is doubted from now on.

        Args:
            fault: whose it is by the look of it; None = a good answer. What is not the id's says nothing of the source.
        """
        row, table = self._row(source), self._state.doubts
        if fault is None and row is not None:
            table.sources[row], table.refused[row], table.refused_at[row] = 0, 0, 0.0
        if fault is not Fault.ID or not source:
            return False
        if row is None:
            row = min(range(DOUBTS), key=table.refused_at.__getitem__)
            table.sources[row], table.refused[row] = source, 0
        table.refused[row], table.refused_at[row] = table.refused[row] + 1, now
        return bool(table.refused[row] == IN_A_ROW)

    def _row(self, source: int) -> int | None:
        if not source:
            return None
        sources = self._sources[:]
        return sources.index(source) if source in sources else None
