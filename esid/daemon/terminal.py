"""The terminal that a daemon was started from: who closes it means what runs in its foreground, too."""

from __future__ import annotations

import os
import signal


class Terminal:
    """The controlling terminal at the start, if there is one. Who starts a daemon with nohup(1) has said that it stays."""

    def __init__(self) -> None:
        self._is_watched = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _is_there()
        self._has_hung_up = False

    def is_gone(self, *, hung_up: bool) -> bool:
        """True once it has told of its end and cannot be opened any more.

        The signal may come a moment before the kernel takes the terminal away; a job of a shell that was told to keep it
        (disown) loses its terminal without a signal, and goes on.

        Args:
            hung_up: SIGHUP came, from who closes the terminal or from a person. It is remembered.
        """
        self._has_hung_up |= hung_up
        return self._is_watched and self._has_hung_up and not _is_there()


def _is_there() -> bool:
    """Whether this session has a terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
