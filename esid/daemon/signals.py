"""Signals: handlers set a flag and nothing else; a second SIGTERM changes nothing. Children die with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def on_stop(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM and SIGINT, each time (it must be idempotent). SIGHUP is ignored: nothing is reloaded."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this child when its parent dies; ends at once when that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
