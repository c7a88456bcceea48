"""The numbers of the budget in a file that all threads and processes of one host share.

The file is locked by flock, which the kernel takes back from a killed process. Times in it are monotonic; a file from
before the last boot is started anew, and keeps of the old one only how long a pause still has to last.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from esid import clock
from esid.errors import NotPermitted

#: Places in the file: processes, buckets, routes, requests of one process at a time.
SLOTS, BUCKETS, CIRCUITS, URLS = 64, 24, 32, 256
#: A window is booked in this many slices, and the one that may still be held at its far end.
SLICES = 121
#: Seconds of which the sent requests are counted each by itself.
SECONDS = 64
#: Place of the error limit in a list with one place for each bucket.
GUARDED = BUCKETS


class Slot(ctypes.Structure):
    """What one process has on its way. `pid` 0 = free; `dead_at` = when somebody found its process gone."""

    _fields_ = (
        ("pid", ctypes.c_int64),
        ("started", ctypes.c_double),
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
    """A route, or at place 0 ESI as a whole.

    `group` is what the answers said: place of the bucket + 1, -1 for the error limit, 0 while nothing was said.
    """

    _fields_ = (
        ("name", ctypes.c_char * 64),
        ("failures", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("open_since", ctypes.c_double),
        ("closed_until", ctypes.c_double),
    )


class State(ctypes.Structure):
    """Everything. Times are monotonic seconds, but for `paused_until_wall` (seconds since 1970)."""

    _fields_ = (
        ("boot", ctypes.c_char * 64),
        # A random name of this file: tells two hosts apart that have all else in common.
        ("file", ctypes.c_char * 40),
        ("paused_until", ctypes.c_double),
        ("paused_until_wall", ctypes.c_double),
        # The error limit: the window in force (0 = unknown), since when only a new answer can tell what is left, what ESI
        # says is left in it, what we used of it, what killed processes may have used that nobody has told.
        ("window_ends", ctypes.c_double),
        ("window_known", ctypes.c_int32),
        ("doubted_at", ctypes.c_double),
        ("errors_left", ctypes.c_double),
        ("errors_used", ctypes.c_double),
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
        # The breaker.
        ("probe_at", ctypes.c_double),
        ("status_ok", ctypes.c_int32),
        ("vip", ctypes.c_int32),
        # Sharing with other hosts: our share holds until then; when we last exchanged; our own past is known.
        ("share_until", ctypes.c_double),
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
    )


SIZE = ctypes.sizeof(State)


class Shared:
    """The open file. One object a process; it must not cross a fork, or two processes would hold one lock.

    Raises:
        NotPermitted: the file cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._file, 0, SIZE)
        except OSError as error:
            raise NotPermitted(f"{path} cannot be opened: {error.strerror}; check its owner or set ESID_DATA_DIR") from None
        self._map = mmap.mmap(self._file, SIZE)
        self.state: Any = State.from_buffer(self._map)
        self._threads = threading.Lock()
        with self.locked():
            if self.state.boot != _boot():
                self._start_anew()

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """Nobody else reads or writes in here; yields the state."""
        with self._threads:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield self.state
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        self.state = None
        with suppress(BufferError):  # a snapshot that somebody still holds keeps the pages until it goes
            self._map.close()
        os.close(self._file)

    def _start_anew(self) -> None:
        """Forget all but a pause that was announced before a reboot."""
        is_ours = self.state.boot.startswith(_FORMAT)
        left_s = self.state.paused_until_wall - clock.now().timestamp() if is_ours else 0.0
        ctypes.memset(ctypes.addressof(self.state), 0, SIZE)
        self.state.boot, self.state.file = _boot(), uuid.uuid4().hex.encode()
        if 0 < left_s <= 60:
            self.state.paused_until = clock.monotonic() + left_s


#: The layout of the file; another one is another file.
_FORMAT = b"esid-budget-7 "


def _boot() -> bytes:
    """Format and boot."""
    return _FORMAT + Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
