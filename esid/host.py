"""What this host knows of its processes."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

NAME = socket.gethostname()
_PR_SET_PDEATHSIG = 1
#: Words and bits of a word of the C library's set of signals, one bit for each (signal(7)).
_WORDS, _BITS = 1024 // (8 * ctypes.sizeof(ctypes.c_ulong)), 8 * ctypes.sizeof(ctypes.c_ulong)
#: Seconds between looks where no descriptor is left to wait with.
_LOOK_S = 0.2
#: What glibc's allocator is told at the start of a process (The GNU C Library, "Memory Allocation Tunables"): threads share
#: two arenas, large pieces are given back as soon as they are freed, and no thread keeps a cache of its own.
_TUNABLES = "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072:glibc.malloc.tcache_count=0"
#: Says that it has been told, wherever the loader takes the other variable away.
_BEGUN_ANEW = "_ESID_BEGUN_ANEW"


@lru_cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def started_at(pid: int) -> float:
    """When a process was started, in ticks since boot: with the pid it names a process for ever. 0 = it does not run.

    A zombie that nobody has reaped does not run.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # The state follows the command's name, which stands in parentheses and may hold anything (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return 0.0 if fields[0] in {"Z", "X"} else float(fields[19])


def is_alive(pid: int) -> bool:
    """True while a process runs."""
    return started_at(pid) > 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this child when its parent dies; ends at once when that has happened already."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def wait_for_signals(signals: Iterable[int], seconds: float) -> None:
    """Return as soon as one of these signals, which all threads block, is pending, at the latest after `seconds`.

    By signalfd(2), which Python has no word for. It may return sooner where the process has no descriptor left.
    """
    mask = (ctypes.c_ulong * _WORDS)()
    for number in signals:
        mask[(number - 1) // _BITS] |= 1 << (number - 1) % _BITS
    descriptor = _libc().signalfd(-1, mask, os.O_CLOEXEC)
    look = select.poll()
    if descriptor < 0:
        look.poll(min(max(0.0, seconds), _LOOK_S) * 1000)
        return
    try:
        look.register(descriptor, select.POLLIN)
        look.poll(max(0.0, seconds) * 1000)
    finally:
        os.close(descriptor)


def keep_memory_steady() -> None:
    """Begin this process anew, once, with an allocator that does not keep what threads had in hand; children inherit it.

    By default glibc gives each thread an arena, in which the largest answer that it ever had stays for good, and a cache of
    seven pieces of each size, which fills for hours: megabytes in a process. The cache can be set at the start of a process
    only. Who has set the allocator in `GLIBC_TUNABLES` knows better; elsewhere (musl) there is nothing to set, and where it
    is not possible the process goes on as it is.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.pop(_BEGUN_ANEW, "") or "glibc.malloc." in given or not _is_glibc():
        return
    os.environ |= {"GLIBC_TUNABLES": f"{given}:{_TUNABLES}".lstrip(":"), _BEGUN_ANEW: "yes"}
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    del os.environ[_BEGUN_ANEW]


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def give_memory_back() -> None:
    """What is free between what is used goes back to the kernel; takes about a millisecond."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim:
        trim(0)
