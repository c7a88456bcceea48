"""Signals: blocked everywhere and waited for by the main thread, so that no handler ever interrupts anything.

A second SIGTERM stays pending and changes nothing. Children inherit the mask, and die with their parent.
"""

from __future__ import annotations

import ctypes
import os
import signal

#: What ends the daemon in good order, at once, and what asks it to read its settings again.
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
STOP_NOW, RELOAD = signal.SIGQUIT, signal.SIGHUP
_PR_SET_PDEATHSIG = 1


def block() -> None:
    """Hold back the signals above until somebody waits for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, STOP_NOW, RELOAD})


def wait(seconds: float) -> int | None:
    """The signal that came within `seconds` (or before), None where none did."""
    came = signal.sigtimedwait({*STOPPING, STOP_NOW, RELOAD}, seconds)
    return came.si_signo if came else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this child when its parent dies; ends at once when that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    check_parent(parent)


def check_parent(parent: int) -> None:
    """End this child at once when its parent is gone, should the kernel not have done so."""
    if os.getppid() != parent:
        os._exit(1)


def ask_for_trace(pid: int) -> None:
    """Have a process print where all of its threads stand, and die of it (see `faulthandler`)."""
    os.kill(pid, signal.SIGABRT)
