"""Standard error that never makes anybody wait: lines that its reader does not take are dropped, and counted.

A pipe whose reader has stopped (a stuck log collector) would otherwise stop every worker at its next line.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress

from esid import clock
from esid.words import counted

#: Seconds that one line waits for its reader, and for how long nobody tries again after that was in vain.
_PATIENCE_S, _GIVEN_UP_S = 0.1, 1.0


class Stderr:
    """A stream for `logging`; its handler's lock lets one thread in at a time. Made anew by each process that forks."""

    def __init__(self) -> None:
        self._file, self._socket = 2, _as_socket()
        if self._socket is None and stat.S_ISFIFO(os.fstat(2).st_mode):
            with suppress(OSError):
                # A description of our own, so that others who write to the same pipe do not become non-blocking too.
                self._file = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._blocked_until = 0.0
        self._dropped = 0
        self._cut = False

    def write(self, text: str) -> None:
        """Write one line, or drop it."""
        if clock.monotonic() < self._blocked_until:
            self._dropped += 1
            return
        lost = counted(self._dropped, "line was", "lines were")
        note = f"(esid: {lost} dropped before this one: nobody read them)\n" if self._dropped else ""
        data = ("\n" if self._cut else "").encode() + note.encode() + text.encode("utf-8", "backslashreplace")
        sent = self._send(data)
        if sent == len(data):
            self._dropped, self._cut = 0, False
        else:
            self._dropped += 1
            self._cut = sent > 0
            self._blocked_until = clock.monotonic() + _GIVEN_UP_S

    def flush(self) -> None:
        """Everything has been written already."""

    def _send(self, data: bytes) -> int:
        """Bytes that were taken within the patience."""
        sent, ends_at = 0, clock.monotonic() + _PATIENCE_S
        while sent < len(data):
            try:
                left_s = max(0.0, ends_at - clock.monotonic())
                if not select.select((), (self._file,), (), left_s)[1]:
                    return sent
                part = data[sent:]
                sent += self._socket.send(part, socket.MSG_DONTWAIT) if self._socket else os.write(self._file, part)
            except BlockingIOError:
                # Another process was quicker; with a full pipe `select` may say so for parts that are too long, too.
                if clock.monotonic() >= ends_at:
                    return sent
                clock.sleep(0.005)
            except (OSError, ValueError):
                # Closed, or its disk is full: nobody will ever read this line.
                return sent
        return sent


def _as_socket() -> socket.socket | None:
    """Standard error as a socket, as systemd's journal gives it; None where it is something else."""
    try:
        return socket.socket(fileno=os.dup(2)) if stat.S_ISSOCK(os.fstat(2).st_mode) else None
    except OSError:
        return None
