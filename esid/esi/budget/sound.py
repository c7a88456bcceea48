"""Whether the numbers of a budget file can be true: what somebody else has written there closes nothing for long."""

from __future__ import annotations

import ctypes
import math
from itertools import islice
from typing import Any

from esid.esi.budget.layout import named
from esid.esi.headers import ERROR_LIMIT, LONGEST_WAIT_S, LONGEST_WINDOW_S, MOST_TOKENS

#: Seconds by which a time may lie ahead, by the name of its field. Nothing else is closed for as long as a Retry-After.
_SOON_S, _LATER_S = 120.0, 1.2 * LONGEST_WAIT_S
_AHEAD_S = {
    "paused_until": _SOON_S,
    "window_ends": _SOON_S,
    "ramp_from": _SOON_S,
    "share_until": _SOON_S,
    "exchanged_at": 1.0,
    "look_for_dead_at": _SOON_S,
    "doubted_at": 1.0,
    "dead_at": 1.0,
    "next_start": _LATER_S,
    "probe_at": _LATER_S,
    "closed_until": _LATER_S,
    "open_since": 1.0,
    "good_at": 1.0,
    "bad_to": 1.0,
    "status_asked_at": 1.0,
    "retry_at": 3700.0,
    "doubt_at": _LATER_S,
    "doubt_line_at": 3700.0,
    "refused_at": 1.0,
}
#: Requests of one process, exchanges since the file was begun: more there cannot be.
_MOST_REQUESTS, _MOST_EXCHANGES = 100_000, 2.0**52


def is_sound(state: Any, now: float) -> bool:
    """False where a number cannot be true. Takes a fraction of a millisecond: not for each request. Under lock."""
    slots, end = state.slots, state.slots_end
    circuits = (state.circuits[0], *named(islice(state.circuits, 1, None)))
    return (
        state.file == state.end
        and _are_times(state, now)
        and _is_error_limit(state)
        and 0 <= end <= len(slots)
        and 0 <= state.exchange_no < _MOST_EXCHANGES
        and math.isfinite(sum(state.sent[:]))
        and all(_is_slot(slot, now) if number < end else not slot.pid for number, slot in enumerate(slots))
        and all(_is_bucket(bucket, now) for bucket in named(state.buckets))
        and all(math.isfinite(at) and at <= now + _AHEAD_S["refused_at"] for at in state.doubts.refused_at[:])
        and all(_are_times(circuit, now) and -1 <= circuit.group <= len(state.buckets) for circuit in circuits)
    )


def _are_times(part: Any, now: float) -> bool:
    """All of its numbers are finite, and no time lies too far ahead."""
    for name, kind in part._fields_:
        if kind is ctypes.c_double:
            value = getattr(part, name)
            if not math.isfinite(value) or (name in _AHEAD_S and value > now + _AHEAD_S[name]):
                return False
    return True


def _is_error_limit(state: Any) -> bool:
    """Without a window nothing is used of it: nobody would ever give it back."""
    if not 0 <= state.errors_left <= ERROR_LIMIT or state.errors_seen < 0:
        return False
    is_used = state.errors_used or state.errors_seen or state.errors_doubted or 0 < state.errors_left < ERROR_LIMIT
    return bool(state.window_ends) or not is_used


def _is_slot(slot: Any, now: float) -> bool:
    """Each request holds room in one or two limits; a process may have died between two of these numbers."""
    if not slot.pid:
        return True
    held, waiting = slot.reserved[:], slot.waiting[:]
    return bool(
        slot.pid > 0
        and _are_times(slot, now)
        and min(held) >= 0 <= min(waiting)
        and slot.in_flight - 1 <= sum(held) <= 2 * slot.in_flight + 1 <= _MOST_REQUESTS >= sum(waiting)
    )


def _is_bucket(bucket: Any, now: float) -> bool:
    spent = bucket.spent[:]
    return bool(
        bucket.name.decode(errors="ignore").encode() == bucket.name
        and _are_times(bucket, now)
        and 0 < bucket.limit <= MOST_TOKENS
        and 1.0 <= bucket.window_s <= LONGEST_WINDOW_S
        and bucket.flat in {0.0, 1.0}
        and 0 <= bucket.slice_no <= now / bucket.window_s * len(spent) + 1
        and math.isfinite(sum(spent))
        and min(spent) >= 0.0
    )
