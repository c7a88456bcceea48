"""What each process of the host has on its way, so that a killed one's share comes back.

Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from esid.errors import Held
from esid.esi.budget.layout import BUCKETS, SLOTS, URLS
from esid.esi.budget.state import Shared

#: Seconds between two looks for dead processes, and that what they had on its way is still held: ESI may yet answer.
LOOK_S, HELD_S = 0.5, 1.0
#: Seconds after which a process that has found no slot tries again.
_FULL_S = 5.0


class InFlight:
    """The slots of one file. One object a process."""

    def __init__(self, shared: Shared) -> None:
        self._shared, self._state = shared, shared.state
        # A slot that is looked up anew for each request costs as much as what is read there.
        self._slots = list(self._state.slots)
        self._owner = secrets.randbits(64)
        self._mine: Any | None = None
        self._urls: dict[int, int] = {}
        self._free_urls = list(range(URLS))

    def take(self, buckets: tuple[int, ...], url: int) -> None:
        """One more request is on its way."""
        slot = self._slot()
        slot.in_flight += 1
        for bucket in buckets:
            slot.reserved[bucket] += 1
        if url and self._free_urls and url not in self._urls:
            self._urls[url] = free = self._free_urls.pop()
            slot.urls[free] = url

    def give_back(self, buckets: tuple[int, ...], url: int) -> None:
        """It is in, or did not leave."""
        slot = self._slot()
        slot.in_flight = max(0, slot.in_flight - 1)
        for bucket in buckets:
            slot.reserved[bucket] = max(0, slot.reserved[bucket] - 1)
        held = self._urls.pop(url, None)
        if held is not None:
            slot.urls[held] = 0
            self._free_urls.append(held)

    def add_waiting(self, bucket: int, value: int) -> None:
        """One more, or one less, waits for room in a bucket (`GUARDED` = the error limit)."""
        waiting = self._slot().waiting
        waiting[bucket] = max(0, waiting[bucket] + value)

    def total(self, name: str) -> int:
        """A number summed over all processes."""
        return sum(int(getattr(slot, name)) for slot in self._used())

    def reserved(self, bucket: int) -> int:
        """Requests on their way that hold room in a bucket (`GUARDED` = the error limit), of all processes."""
        return sum(slot.reserved[bucket] for slot in self._used())

    def totals(self, name: str) -> list[int]:
        """Numbers by bucket, summed over all processes; the last is that of the error limit."""
        lists = [getattr(slot, name)[:] for slot in self._used()]
        return [sum(column) for column in zip(*lists, strict=True)] if lists else [0] * (BUCKETS + 1)

    def holds(self, url: int) -> bool:
        """True while any process asks for this URL."""
        own = self._own()
        return bool(own and url in self._urls) or any(url in slot.urls[:] for slot in self._used() if slot is not own)

    def leave(self) -> None:
        """Free this process's slot."""
        if own := self._own():
            _free(own)

    def look_for_dead(self, now: float, *, at_once: bool = False) -> list[int]:
        """Free the slots whose byte nobody has held for a while; what they held, by bucket, or []."""
        held: list[int] = []
        if now < self._state.look_for_dead_at and not at_once:
            return held
        self._state.look_for_dead_at = now + LOOK_S
        own = self._own()
        for number, slot in enumerate(self._slots[: self._state.slots_end]):
            if not slot.pid:
                continue
            if slot is own or self._shared.is_held(number):
                slot.dead_at = 0.0
            elif not slot.dead_at:
                slot.dead_at = now
            if slot.dead_at and (now - slot.dead_at >= HELD_S or at_once):
                held = [sum(pair) for pair in zip(held or [0] * (BUCKETS + 1), slot.reserved[:], strict=True)]
                _free(slot)
        return held

    def _used(self) -> list[Any]:
        return [slot for slot in self._slots[: self._state.slots_end] if slot.pid]

    def _own(self) -> Any | None:
        """This process's slot; None where it has none, or the file knows of it no more: it may have been begun anew."""
        return self._mine if self._mine is not None and self._mine.owner == self._owner else None

    def _slot(self) -> Any:
        """This process's slot, taken where it has none."""
        if not self._own():
            self._mine = self._take_slot()
        return self._mine

    def _take_slot(self) -> Any:
        """A free slot whose byte nobody holds. Raises Held where there is none."""
        self.look_for_dead(0.0, at_once=all(slot.pid for slot in self._slots))
        for number, slot in enumerate(self._slots):
            if not slot.pid and self._shared.hold(number):
                _free(slot)
                self._state.slots_end = max(self._state.slots_end, number + 1)
                slot.pid, slot.owner = os.getpid(), self._owner
                self._urls, self._free_urls = {}, list(range(URLS))
                return slot
        raise Held(_FULL_S, f"{SLOTS} processes share one budget already")


def _free(slot: Any) -> None:
    slot.dead_at, slot.in_flight = 0.0, 0
    slot.reserved[:] = [0] * (BUCKETS + 1)
    slot.waiting[:] = [0] * (BUCKETS + 1)
    slot.urls[:] = [0] * URLS
    slot.pid = slot.owner = 0
