"""What a unit of work leaves to do: nothing with its ids, which are booked, and little with its message."""

from __future__ import annotations

from dataclasses import dataclass

from esid.errors import Held


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message whose ids are booked.

    Attributes:
        failed: ids with a failed attempt.
        put_back: ids that were not asked, or that failed in an outage; no attempt was counted.
        goes_back: the message goes back to the queue, for the ids that were not asked; otherwise it is done with.
        held: why ids wait in the ledger, and for how long.
    """

    failed: int = 0
    put_back: int = 0
    goes_back: bool = False
    held: Held | None = None
