"""Signals are waited for, and nothing else ends such a wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.tools.waiting import wait_until

WAITS = """
import sys
from esid.daemon import signals
signals.block()
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    print(signals.wait(0.3), flush=True)
"""


def waits(times: int) -> subprocess.Popen[str]:
    """A process that waits so many times, and says what came."""
    process = subprocess.Popen([sys.executable, "-c", WAITS, str(times)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_each_signal_is_seen_once_and_a_second_one_stays_for_later() -> None:
    with waits(3) as process:
        for number in (signal.SIGHUP, signal.SIGQUIT):
            process.send_signal(number)
        came = process.communicate(timeout=30)[0].split()
    assert sorted(came[:2]) == ["1", "3"]
    assert came[2] == "None"


def test_the_end_of_a_child_is_heard_at_once() -> None:
    code = (
        "import os; from esid.daemon import signals; signals.block(); os.fork() or os._exit(3);"
        "print(signals.wait(20) == signals.CHILD_ENDED, os.waitstatus_to_exitcode(os.wait()[1]), signals.wait(0))"
    )
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert ended.stdout.split() == ["True", "3", "None"]
    assert time.monotonic() - started < 15


def test_signals_are_seen_where_no_descriptor_is_left_to_wait_with() -> None:
    code = (
        "import os, resource, signal; from esid.daemon import signals; signals.block(); signals.wait(0);"
        "free = os.dup(0); os.close(free); resource.setrlimit(resource.RLIMIT_NOFILE, (free, free));"
        "print(signals.wait(0.3)); os.kill(os.getpid(), signal.SIGTERM); print(signals.wait(20))"
    )
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert ended.stdout.split() == ["None", str(int(signal.SIGTERM))]


def test_a_process_that_stood_still_has_been_sent_nothing() -> None:
    with waits(6) as process:
        for _ in range(3):
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T")
            # Then one wait ends while nothing runs
            ended = time.monotonic() + 0.4
            wait_until(lambda ended=ended: time.monotonic() > ended, 5, "the end of a wait")
            process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=30)[0].split() == ["None"] * 6
