"""What a service manager is told: ready, alive, stopping (the protocol of sd_notify(3), on a datagram socket).

Nothing is said where nobody listens. The watchdog is told only while every child beats: a hung one that the supervisor
cannot mend ends in a restart of the whole.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from esid import clock, settings


class Notice:
    """Of one supervisor.

    Args:
        address: the socket: a path, or `@` and an abstract name; "" = nobody listens.
        watchdog_s: seconds in which the manager wants to hear of us; 0 = it does not.
    """

    def __init__(self, address: str, watchdog_s: float) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s = watchdog_s / 3
        self._next_at = 0.0
        self._is_ready = False

    @classmethod
    def of_environment(cls) -> Notice:
        """As the service manager has asked for."""
        return cls(*settings.service_manager(os.getpid()))

    def look(self, *, started: bool, well: bool) -> None:
        """Say what is new.

        Args:
            started: every child has all of its parts.
            well: every child was heard of lately.
        """
        if started and not self._is_ready:
            self._is_ready = True
            self._send("READY=1\nSTATUS=working")
        now = clock.monotonic()
        if self._every_s and well and now >= self._next_at:
            self._next_at = now + self._every_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1\nSTATUS=stopping: running work ends or goes back")

    def _send(self, text: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.sendto(text.encode(), self._address)
