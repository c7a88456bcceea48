"""A test looks at the processes of a daemon."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.tools.daemon import Daemon
from tests.tools.waiting import wait_until


def processes(daemon: Daemon) -> set[int]:
    """The living processes of the daemon's process group."""
    assert daemon.process
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text(encoding="utf-8", errors="replace").partition(" (")
            state, _, group = rest.rpartition(") ")[2].split()[:3]
            if int(group) == daemon.process.pid and state not in "ZX":
                found.add(int(pid))
    return found


def worker(daemon: Daemon) -> int:
    """The pid of the worker, once it works."""
    return wait_until(daemon.workers, 20, lambda: f"the worker: {daemon.log}")[0]


def ended(daemon: Daemon, within_s: float, when: str) -> int:
    """The exit code of a daemon that was told to stop; no process of it is left."""
    assert daemon.process
    process = daemon.process
    wait_until(lambda: process.poll() is not None, within_s, f"the end after {when}: {daemon.log[-2000:]}")
    assert processes(daemon) == set(), when
    assert "Traceback" not in daemon.log, (when, daemon.log)
    return process.returncode
