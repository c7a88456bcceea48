"""What the service manager tells a process by its environment."""

from __future__ import annotations

import os


def service_manager(pid: int) -> tuple[str, float]:
    """Where the service manager listens ("" = nowhere), and in how many seconds it wants to hear of us (0 = it does not)."""
    usec, meant = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_meant = usec.isdecimal() and (not meant or meant == str(pid))
    return os.environ.get("NOTIFY_SOCKET", ""), int(usec) / 1e6 if is_meant else 0.0


def is_journal() -> bool:
    """True where standard error goes to systemd's journal, which takes priorities and sets the time itself."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        told = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(told.st_dev), str(told.st_ino))
