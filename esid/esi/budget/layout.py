"""What stands where in the budget's file (see `esi.budget.state`)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

#: The file has room for so many processes, rate groups and hidden limits, routes (with ESI as a whole), and requests of one
#: process at a time. No request costs more for it: what is looked for by name is looked for once.
SLOTS, BUCKETS, CIRCUITS, URLS = 64, 64, 128, 256
#: Ids that failed of which a circuit remembers which they were.
SICK = 32
#: Sources of ids whose refusals are remembered.
DOUBTS = 16
#: A window is booked in this many slices, and the one that may still be held at its far end.
SLICES = 121
#: Seconds of which the sent requests are counted each by itself.
SECONDS = 64
#: Number of the error limit in a list with one number for each bucket.
GUARDED = BUCKETS


class Slot(ctypes.Structure):
    """What one process has on its way. `pid` 0 = free; `owner` = its random name; `dead_at` = when somebody found its byte
    without a lock."""

    _fields_ = (
        ("pid", ctypes.c_int64),
        ("owner", ctypes.c_uint64),
        ("dead_at", ctypes.c_double),
        ("in_flight", ctypes.c_int32),
        ("reserved", ctypes.c_int32 * (BUCKETS + 1)),
        ("waiting", ctypes.c_int32 * (BUCKETS + 1)),
        ("urls", ctypes.c_uint64 * URLS),
    )


class Bucket(ctypes.Structure):
    """A rate group or a hidden limit. `flat` = what every request costs; 0 = by its answer."""

    _fields_ = (
        ("name", ctypes.c_char * 40),
        ("limit", ctypes.c_double),
        ("window_s", ctypes.c_double),
        ("flat", ctypes.c_double),
        ("closed_until", ctypes.c_double),
        ("next_at", ctypes.c_double),
        ("allowed", ctypes.c_double),
        ("others_used", ctypes.c_double),
        ("others_free", ctypes.c_double),
        ("slice_no", ctypes.c_int64),
        ("spent", ctypes.c_double * SLICES),
    )


class Circuit(ctypes.Structure):
    """A route; number 0 is ESI as a whole.

    `group` is what the answers said: number of the bucket + 1, -1 for the error limit, 0 while nothing was said.
    `failures` different ids failed since the last good answer (`good_at`), the newest of them in `sick`, on one of the
    `routes` or (-1) on several; `doubts` counts all failures; `is_told` = a person was told that it is open.
    From `bad_from` to `bad_to` was its last outage, from the last good answer before it; `over_from` = the first of them in
    seconds since 1970, until what it did is settled.
    """

    _fields_ = (
        ("name", ctypes.c_char * 64),
        ("failures", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("routes", ctypes.c_int32),
        ("doubts", ctypes.c_int32),
        ("is_told", ctypes.c_int32),
        ("open_since", ctypes.c_double),
        ("closed_until", ctypes.c_double),
        ("probe_at", ctypes.c_double),
        ("good_at", ctypes.c_double),
        ("over_from", ctypes.c_double),
        ("bad_from", ctypes.c_double),
        ("bad_to", ctypes.c_double),
        ("sick", ctypes.c_uint64 * SICK),
    )


class DoubtTable(ctypes.Structure):
    """How many ids of a source (0 = free) were refused in a row, and when the last one was. By columns: each request looks
    for its source, and reads them all at once."""

    _fields_ = (
        ("sources", ctypes.c_uint64 * DOUBTS),
        ("refused", ctypes.c_int64 * DOUBTS),
        ("refused_at", ctypes.c_double * DOUBTS),
    )


class State(ctypes.Structure):
    """Everything. Times are monotonic seconds, but for `paused_until_wall` (seconds since 1970)."""

    _fields_ = (
        # These four stand here in every format: a pause is kept from one format to the next.
        ("boot", ctypes.c_char * 64),
        # A random name of this file: tells two hosts apart that have all else in common.
        ("file", ctypes.c_char * 40),
        ("paused_until", ctypes.c_double),
        ("paused_until_wall", ctypes.c_double),
        # The error limit: the window in force (0 = unknown), since when only a new answer can tell what is left, what ESI
        # says is left in it, what we used of it, the errors of it that came in, what killed processes may have used that
        # nobody has told.
        ("window_ends", ctypes.c_double),
        ("window_known", ctypes.c_int32),
        ("doubted_at", ctypes.c_double),
        ("errors_left", ctypes.c_double),
        ("errors_used", ctypes.c_double),
        ("errors_seen", ctypes.c_double),
        ("errors_doubted", ctypes.c_double),
        ("errors_allowed", ctypes.c_double),
        ("others_errors", ctypes.c_double),
        # Exchanges in a row at which we have told that we want some.
        ("errors_asked", ctypes.c_int32),
        # Requests in flight and the pace, with this host's share of both.
        ("in_flight_allowed", ctypes.c_double),
        ("rps_allowed", ctypes.c_double),
        ("next_start", ctypes.c_double),
        ("ramp_from", ctypes.c_double),
        # The breaker, and when the next id that failed may be asked again.
        ("retry_at", ctypes.c_double),
        ("status_asked_at", ctypes.c_double),
        # When the next id of a doubted source may leave, and the last place in their line.
        ("doubt_at", ctypes.c_double),
        ("doubt_line_at", ctypes.c_double),
        ("doubts", DoubtTable),
        # 1 = some circuit has an `over_from`: read for each message, without the lock.
        ("over", ctypes.c_int32),
        ("status_ok", ctypes.c_int32),
        ("vip", ctypes.c_int32),
        # Sharing with other hosts: our share holds until then, unless this host has slept longer since boot than when it was
        # told; when we last exchanged; our own past is known.
        ("share_until", ctypes.c_double),
        ("share_slept_s", ctypes.c_double),
        ("exchanged_at", ctypes.c_double),
        ("exchange_no", ctypes.c_int64),
        ("has_past", ctypes.c_int32),
        ("members", ctypes.c_int32),
        ("look_for_dead_at", ctypes.c_double),
        # All slots in use lie below this one.
        ("slots_end", ctypes.c_int32),
        # Counts since the file was made.
        ("requests", ctypes.c_double),
        ("errors", ctypes.c_double),
        ("not_modified", ctypes.c_double),
        ("second", ctypes.c_int64),
        ("sent", ctypes.c_double * SECONDS),
        ("slots", Slot * SLOTS),
        ("buckets", Bucket * BUCKETS),
        ("circuits", Circuit * CIRCUITS),
        # The name of the file once more: what stands between was written by us.
        ("end", ctypes.c_char * 40),
    )


SIZE = ctypes.sizeof(State)


def named(rows: Iterable[Any]) -> Iterator[Any]:
    """The circuits or buckets that somebody has taken: it is always the next free one, and none is given up."""
    return takewhile(lambda row: row.name, rows)


def take(row: Any, name: bytes) -> Any:
    """The row, taken under that name, with nothing in it."""
    ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(row))
    row.name = name
    return row


def stored(name: str, longest: int) -> bytes:
    """A name as a row keeps it: cut between two characters, so that it reads as it was written."""
    return name.encode()[:longest].decode(errors="ignore").encode()
