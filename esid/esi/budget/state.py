"""The numbers of the budget in a file that all threads and processes of one host share.

The file is locked by flock, which the kernel takes back from a killed process. Times in it are monotonic; a file from
before the last boot is started anew, and keeps of the old one only how long a pause still has to last.

Each second a process looks whether the file is still the one of that name, and whether its numbers can be true. It joins
the file that lies there now, or begins a damaged one anew. A start does so with a file that another version of esid has used
since the boot. Nothing leaves for a window then, as nobody knows what was spent.

A process that has requests on their way holds a lock of its own on one byte of the file. The kernel gives it up when the
process ends, however that happens, and shows it to every PID namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import mmap
import os
import struct
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import esid.esi.budget.sound as sound
from esid import clock, host, log
from esid.errors import Held, NotPermitted
from esid.esi.budget.layout import SIZE, SLOTS, State
from esid.esi.headers import ERROR_WINDOW_S

#: Seconds between two looks at the file, and those that nothing leaves after one that was lost or damaged.
LOOK_S, CLOSED_S = 1.0, ERROR_WINDOW_S
#: A lock of one byte (fcntl(2), "Open file description locks").
_LOCK = "hhqqi0q"
#: What comes of numbers that cannot be true.
_NONSENSE = (ArithmeticError, LookupError, ValueError, TypeError)
_log = log.get("esi")


class Shared:
    """The open file. One object a process; it must not cross a fork, or two processes would hold one lock: a child that is
    forked all the same lets go of it.

    Args:
        is_known: the file was there when the daemon began. One that has to be made is that of a budget whose numbers are
            lost, and is closed for a window.

    Raises:
        NotPermitted: the file cannot be made or opened.
    """

    def __init__(self, path: Path, *, is_known: bool = False) -> None:
        self._path = path
        self._map = mmap.mmap(-1, SIZE)
        self.state: Any = State.from_buffer(self._map)
        self._threads = threading.Lock()
        self._file, self._bytes = self._open()
        self._show()
        self._look_at = clock.monotonic() + LOOK_S
        _opened.add(self)
        with self._threads:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._begin(is_known=is_known)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """Nobody else reads or writes in here; yields the state.

        Raises:
            Held: somebody has spoiled the file; it is begun anew.
        """
        with self._threads:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if (now := clock.monotonic()) >= self._look_at or self._look_at > now + LOOK_S:
                    self._look(now)
                yield self.state
            except _NONSENSE as error:
                if sound.is_sound(self.state, clock.monotonic()):
                    raise
                self._begin_damaged()
                raise Held(CLOSED_S, "the budget file was damaged") from error
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def hold(self, slot: int) -> bool:
        """Take the byte of a slot and give back any other; False where another process has it. Under lock."""
        fcntl.fcntl(self._bytes, fcntl.F_OFD_SETLK, struct.pack(_LOCK, fcntl.F_UNLCK, os.SEEK_SET, 0, SLOTS, 0))
        try:
            fcntl.fcntl(self._bytes, fcntl.F_OFD_SETLK, _byte(slot))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_held(self, slot: int) -> bool:
        """True while another process has the byte of a slot, or where that cannot be known. Under lock."""
        try:
            found = fcntl.fcntl(self._bytes, fcntl.F_OFD_GETLK, _byte(slot))
        except OSError:
            return True
        return bool(struct.unpack(_LOCK, found)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the file; the pages stay for as long as somebody has the state."""
        _opened.discard(self)
        self.state = None
        self._let_go()

    def _let_go(self) -> None:
        for file in {self._file, self._bytes} - {-1}:
            os.close(file)
        self._file = self._bytes = -1

    def _open(self) -> tuple[int, int]:
        """The file twice: its lock, and apart from that, as no mapping may keep it, the byte of a slot.

        Raises:
            NotPermitted: it cannot be made or opened.
        """
        opened: list[int] = []
        try:
            while True:
                opened = [os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for _ in range(2)]
                if os.path.samestat(*map(os.fstat, opened)):
                    os.posix_fallocate(opened[0], 0, SIZE)
                    return opened[0], opened[1]
                for file in opened:
                    os.close(file)
        except OSError as error:
            cure = host.cure(error, "check its owner or set ESID_DATA_DIR")
            raise NotPermitted(f"{self._path} cannot be opened: {error.strerror}; {cure}") from None

    def _show(self) -> None:
        """Lay the file over the numbers: whoever has the state sees those of this file from now on."""
        host.map_over(ctypes.addressof(self.state), SIZE, self._file)

    def _look(self, now: float) -> None:
        """Whether the file is still ours and whole. Under lock."""
        self._look_at = now + LOOK_S
        try:
            found = self._path.stat()
            is_ours = os.path.samestat(found, os.fstat(self._file))
        except FileNotFoundError:
            is_ours = False
        except OSError:
            return
        if not is_ours:
            self._join(now)
        elif found.st_size < SIZE:
            os.posix_fallocate(self._file, 0, SIZE)
            self._begin_damaged()
        elif not sound.is_sound(self.state, now):
            self._begin_damaged()

    def _join(self, now: float) -> None:
        """Somebody has taken the file away: go on with the one that lies there now, after a window. Under both locks."""
        try:
            file, bytes_ = self._open()
        except NotPermitted:
            # Others may use another budget: nothing leaves by this one.
            self.state.paused_until = max(self.state.paused_until, now + 2 * LOOK_S)
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._let_go()
        self._file, self._bytes = file, bytes_
        self._show()
        self._begin(is_known=False)
        self._close_for_a_window()
        self._say("was replaced or deleted while esid runs; it is begun anew")

    def _begin(self, *, is_known: bool) -> None:
        """Begin the file where it is not begun yet, or not for us. Under lock."""
        boot = bytes(self.state.boot)
        if boot == _boot():
            if not sound.is_sound(self.state, clock.monotonic()):
                self._begin_damaged()
        elif boot.startswith(_ANY_FORMAT):
            self._start_anew()
            if boot.endswith(_boot().removeprefix(_FORMAT)):
                self._close_for_a_window()
                self._say("is that of another version of esid; it is begun anew")
        elif bytes(self._map).strip(b"\0"):
            self._begin_damaged()
        else:
            self._start_anew()
            if is_known:
                self._close_for_a_window()
                self._say("was deleted while esid runs; it is begun anew")

    def _begin_damaged(self) -> None:
        self._start_anew()
        self._close_for_a_window()
        self._say("was damaged by somebody else; it is begun anew")

    def _close_for_a_window(self) -> None:
        self.state.paused_until = max(self.state.paused_until, clock.monotonic() + CLOSED_S)
        self.state.paused_until_wall = clock.now().timestamp() + CLOSED_S

    def _say(self, words: str) -> None:
        words = f"{self._path} {words}, and nothing leaves for {CLOSED_S:.0f} s, as nobody knows what was spent"
        log.event(_log, "budget.begun_anew", words, level=logging.WARNING)

    def _start_anew(self) -> None:
        """Forget all but a pause that was announced before a reboot."""
        is_ours = self.state.boot.startswith(_ANY_FORMAT)
        left_s = self.state.paused_until_wall - clock.now().timestamp() if is_ours else 0.0
        ctypes.memset(ctypes.addressof(self.state), 0, SIZE)
        self.state.boot, self.state.file = _boot(), uuid.uuid4().hex.encode()
        self.state.end = self.state.file
        if 0 < left_s <= CLOSED_S:
            self.state.paused_until = clock.monotonic() + left_s


#: The layout of the file; another one is another file.
_ANY_FORMAT = b"esid-budget-"
_FORMAT = _ANY_FORMAT + b"14 "
#: The open files of this process.
_opened: weakref.WeakSet[Shared] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """A forked child keeps no lock of its parent: that would outlive it."""
    for shared in list(_opened):
        shared._let_go()
    _opened.clear()


os.register_at_fork(after_in_child=_leave_to_the_parent)


def _byte(slot: int) -> bytes:
    return struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)


def _boot() -> bytes:
    """Format and boot. Raises NotPermitted where the boot has no name."""
    try:
        return _FORMAT + host.boot_id().encode()
    except OSError as error:
        cure = host.cure(error, "esid needs /proc: mount -t proc proc /proc, or leave out ProcSubset=pid")
        raise NotPermitted(f"/proc/sys/kernel/random/boot_id cannot be read: {error.strerror}; {cure}") from None
