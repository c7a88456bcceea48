"""What each process of the host has on its way, so that a killed one's share comes back.

Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

import os
from typing import Any

from esid import host
from esid.esi.shared import BUCKETS, SLOTS, URLS

#: Seconds between two looks for dead processes, and that what they had on its way is still held: ESI may yet answer.
LOOK_S, HELD_S = 0.5, 1.0


class Places:
    """The slots of one state. One object a process."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._pid = os.getpid()
        self._started = host.started_at(self._pid)
        self._mine: int | None = None
        self._urls: dict[int, int] = {}
        self._free_urls = list(range(URLS))

    def take(self, buckets: tuple[int, ...], url: int) -> None:
        """One more request is on its way."""
        slot = self._slot()
        slot.in_flight += 1
        for place in buckets:
            slot.reserved[place] += 1
        if url and self._free_urls and url not in self._urls:
            self._urls[url] = free = self._free_urls.pop()
            slot.urls[free] = url

    def give_back(self, buckets: tuple[int, ...], url: int) -> None:
        """It is in, or did not leave."""
        slot = self._slot()
        slot.in_flight = max(0, slot.in_flight - 1)
        for place in buckets:
            slot.reserved[place] = max(0, slot.reserved[place] - 1)
        held = self._urls.pop(url, None)
        if held is not None:
            slot.urls[held] = 0
            self._free_urls.append(held)

    def add_waiting(self, place: int, value: int) -> None:
        """One more, or one less, waits for room at a place."""
        waiting = self._slot().waiting
        waiting[place] = max(0, waiting[place] + value)

    def total(self, name: str) -> int:
        """A number summed over all processes."""
        return sum(int(getattr(slot, name)) for slot in self._used())

    def reserved(self, place: int) -> int:
        """Requests on their way that hold room at one place, of all processes."""
        return sum(slot.reserved[place] for slot in self._used())

    def totals(self, name: str) -> list[int]:
        """Numbers by bucket, summed over all processes; the last is that of the error limit."""
        lists = [getattr(slot, name)[:] for slot in self._used()]
        return [sum(column) for column in zip(*lists, strict=True)] if lists else [0] * (BUCKETS + 1)

    def holds(self, url: int) -> bool:
        """True while any process asks for this URL."""
        return any(url in slot.urls[:] for slot in self._used())

    def forget(self, pid: int) -> None:
        """Free the slots of a process."""
        for slot in self._used():
            if slot.pid == pid:
                _free(slot)

    def look_for_dead(self, now: float, *, at_once: bool = False) -> list[int]:
        """Free the slots of processes that are gone for a while; what they held, by place, or []."""
        held: list[int] = []
        if now < self._state.look_for_dead_at and not at_once:
            return held
        self._state.look_for_dead_at = now + LOOK_S
        for slot in self._used():
            if slot.dead_at:
                if now - slot.dead_at >= HELD_S or at_once:
                    held = [sum(pair) for pair in zip(held or [0] * (BUCKETS + 1), slot.reserved[:], strict=True)]
                    _free(slot)
            elif slot.started != host.started_at(int(slot.pid)):
                slot.dead_at = now
        return held

    def _used(self) -> list[Any]:
        slots = self._state.slots
        return [slot for slot in (slots[place] for place in range(self._state.slots_end)) if slot.pid]

    def _slot(self) -> Any:
        """This process's own; a pid alone is not enough: in a container the next process soon has it again."""
        if self._mine is not None:
            slot = self._state.slots[self._mine]
            if slot.pid == self._pid and slot.started == self._started:
                return slot
        self._mine = self._take_slot()
        return self._state.slots[self._mine]

    def _take_slot(self) -> int:
        free = [place for place in range(SLOTS) if not self._state.slots[place].pid]
        if not free:
            self.look_for_dead(0.0, at_once=True)
            self.look_for_dead(0.0, at_once=True)
            free = [place for place in range(SLOTS) if not self._state.slots[place].pid] or [SLOTS - 1]
        slot = self._state.slots[free[0]]
        _free(slot)
        slot.pid, slot.started = self._pid, self._started
        self._state.slots_end = max(self._state.slots_end, free[0] + 1)
        self._urls, self._free_urls = {}, list(range(URLS))
        return free[0]


def _free(slot: Any) -> None:
    slot.dead_at, slot.in_flight = 0.0, 0
    slot.reserved[:] = [0] * (BUCKETS + 1)
    slot.waiting[:] = [0] * (BUCKETS + 1)
    slot.urls[:] = [0] * URLS
    slot.pid = 0
