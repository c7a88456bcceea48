"""`esid status` for people: every section is there, and `--watch` draws over itself on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.conftest import STACKS
from tests.daemon import Daemon
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("stack", [STACKS[0]], indirect=True)
SECTIONS = ("Queues", "Rate limit", "Ledger", "Freshness", "Throughput", "Processes", "Schedule (esid schedule)")


def test_status_has_every_section(daemon: Daemon) -> None:
    daemon.start()
    wait_until(lambda: " worker " in daemon.ok("status"), 60, daemon.log, every_s=0.5)
    out = daemon.ok("status")
    assert [one for one in SECTIONS if f"\n{one}" not in out] == []
    assert "sync_alliance" in out
    assert daemon.stop() == 0
    # What has ended in good order has signed off
    assert "none was heard of" in daemon.ok("status")


def test_watch_draws_over_itself(daemon: Daemon) -> None:
    daemon.ok("migrate")
    master, terminal = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "esid", "status", "--watch"],
        env=daemon.environment, cwd=daemon.directory, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    seen = b""

    def screens() -> bool:
        nonlocal seen
        seen += os.read(master, 65536)
        return seen.count(b"\x1b[H") >= 2

    try:
        wait_until(screens, 60, "a second screen")
        # Not cleared, which flickers: each line is drawn over, and what stood behind it is wiped
        assert b"\x1b[2J" not in seen
        assert seen.count(b"\x1b[K") > 2 * len(SECTIONS)
        assert seen.count(b"\x1b[J") >= 1
    finally:
        watching.send_signal(signal.SIGINT)
        # A terminal that nobody reads takes no last word.
        with suppress(OSError):
            while os.read(master, 65536):
                pass
        assert watching.wait(30) == 130
        os.close(master)
