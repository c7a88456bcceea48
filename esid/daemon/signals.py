"""Signals: blocked everywhere and waited for by the main thread, so that no handler ever interrupts anything.

A second SIGTERM stays pending and changes nothing. Children inherit the mask, and die with their parent.
"""

from __future__ import annotations

import os
import signal

from esid import clock, host

#: What ends the daemon in good order, at once, what tells of a closed terminal or asks to read the settings again, and the
#: end of a child.
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
STOP_NOW, HANG_UP, CHILD_ENDED = signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD
_WAITED_FOR = frozenset({*STOPPING, STOP_NOW, HANG_UP, CHILD_ENDED})
#: What every child does first: the kernel kills it when its parent dies.
die_with_parent = host.die_with_parent


def block() -> None:
    """Hold back the signals above until somebody waits for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)


def wait(seconds: float) -> int | None:
    """The signal that came within `seconds` (or before), None where none did.

    `signal.sigtimedwait` would do, but in a process that was stopped and continued while it waited, Python's returns what
    happens to be in memory, as if a signal had come.
    """
    ends_at = clock.monotonic() + seconds
    while True:
        host.wait_for_signals(_WAITED_FOR, ends_at - clock.monotonic())
        if came := _WAITED_FOR & signal.sigpending():
            return signal.sigwait(came)
        if clock.monotonic() >= ends_at:
            return None


def check_parent(parent: int) -> None:
    """End this child at once when its parent is gone, should the kernel not have done so."""
    if os.getppid() != parent:
        os._exit(1)


def ask_for_trace(pid: int) -> None:
    """Have a process print where all of its threads stand, and die of it (see `faulthandler`)."""
    os.kill(pid, signal.SIGABRT)
