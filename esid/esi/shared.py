"""A few numbers in a file that all threads and processes of one host share.

The file is locked by flock, which the kernel takes back from a killed process. Times in it are monotonic; a file from
before the last boot is started anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esid.errors import NotPermitted

#: Places in the file, in doubles.
SLOTS, SLOT_WIDTH = 128, 4
BUCKETS, NAME_BYTES, BUCKET_WIDTH = 16, 32, 5
HEAD_WIDTH = 8
_DOUBLE = struct.Struct("<d")
_ALL_SLOTS = struct.Struct(f"<{SLOTS * SLOT_WIDTH}d")
_HEAD_AT = 64
_SLOTS_AT = _HEAD_AT + 8 * HEAD_WIDTH
_BUCKETS_AT = _SLOTS_AT + 8 * SLOTS * SLOT_WIDTH
_BUCKET_BYTES = NAME_BYTES + 8 * BUCKET_WIDTH
SIZE = _BUCKETS_AT + BUCKETS * _BUCKET_BYTES


class SharedNumbers:
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
        self._threads = threading.Lock()
        with self.locked():
            boot = _boot_id()
            if self._map[: len(boot)] != boot:
                self._map[:] = boot + bytes(SIZE - len(boot))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or writes in here."""
        with self._threads:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def head(self, place: int) -> float:
        """One of the common numbers."""
        return float(_DOUBLE.unpack_from(self._map, _HEAD_AT + 8 * place)[0])

    def set_head(self, place: int, value: float) -> None:
        """Write one of the common numbers."""
        _DOUBLE.pack_into(self._map, _HEAD_AT + 8 * place, value)

    def slot_sum(self, place: int) -> float:
        """One number summed over all processes."""
        return float(sum(_ALL_SLOTS.unpack_from(self._map, _SLOTS_AT)[place::SLOT_WIDTH]))

    def slot(self, slot: int, place: int) -> float:
        """A number of one process's slot."""
        return float(_DOUBLE.unpack_from(self._map, _SLOTS_AT + 8 * (slot * SLOT_WIDTH + place))[0])

    def set_slot(self, slot: int, place: int, value: float) -> None:
        """Write a number of one process's slot."""
        _DOUBLE.pack_into(self._map, _SLOTS_AT + 8 * (slot * SLOT_WIDTH + place), value)

    def bucket(self, name: str, *, make: bool = False) -> int | None:
        """The place of a bucket by its group's name; None where it is unknown, or (with `make`) no place is left."""
        wanted = name.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
        for place in range(BUCKETS):
            at = _BUCKETS_AT + place * _BUCKET_BYTES
            held = self._map[at : at + NAME_BYTES]
            if held == wanted:
                return place
            if held == bytes(NAME_BYTES):
                if make:
                    self._map[at : at + NAME_BYTES] = wanted
                    return place
                return None
        return None

    def bucket_name(self, place: int) -> str:
        """The group's name; "" for an unused place."""
        at = _BUCKETS_AT + place * _BUCKET_BYTES
        return self._map[at : at + NAME_BYTES].rstrip(b"\0").decode("utf-8", "replace")

    def bucket_number(self, bucket: int, place: int) -> float:
        """A number of one bucket."""
        return float(_DOUBLE.unpack_from(self._map, _BUCKETS_AT + bucket * _BUCKET_BYTES + NAME_BYTES + 8 * place)[0])

    def set_bucket_number(self, bucket: int, place: int, value: float) -> None:
        """Write a number of one bucket."""
        _DOUBLE.pack_into(self._map, _BUCKETS_AT + bucket * _BUCKET_BYTES + NAME_BYTES + 8 * place, value)

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        os.close(self._file)


def _boot_id() -> bytes:
    """Format and boot, as 64 bytes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"esid-budget-2 {boot}".encode().ljust(64, b"\0")
