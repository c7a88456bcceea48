"""Signals: blocked everywhere and waited for by the main thread, so that no handler ever interrupts anything.

A second SIGTERM stays pending and changes nothing. Children inherit the mask, and die with their parent.
"""

from __future__ import annotations

import signal

from esid import host
from esid.clock import Stop

_STOPPING = {signal.SIGTERM, signal.SIGINT}


def block() -> None:
    """Hold back SIGTERM and SIGINT until somebody waits for them. SIGHUP is ignored: nothing is reloaded."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def wait(seconds: float) -> bool:
    """True when a stop was asked for within `seconds` (or before)."""
    return signal.sigtimedwait(_STOPPING, seconds) is not None


def wait_for_stop(stop: Stop) -> None:
    """Return when a stop was asked for, and tell all threads."""
    while not wait(3600.0):
        pass
    stop.set()


#: What every child does first: the kernel kills it when its parent dies.
die_with_parent = host.die_with_parent
