"""What this host knows of its processes."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from pathlib import Path

NAME = socket.gethostname()
_PR_SET_PDEATHSIG = 1
#: mallopt(3): how many arenas threads share, and from which size on memory is given back as soon as it is freed.
_M_ARENA_MAX, _ARENAS = -8, 2
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 128 * 1024


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
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def keep_memory_steady() -> None:
    """Have threads share two arenas. Call before any thread is started; children inherit it.

    By default glibc gives each thread one of its own, in which the largest answer that it ever had in hand stays for
    good. Elsewhere (musl) there is nothing to set.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def give_memory_back() -> None:
    """What is free between what is used goes back to the kernel; takes about a millisecond."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
