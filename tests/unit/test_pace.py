"""The pace of a source holds for all processes of a machine, and outlives them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from esid import clock
from esid.clock import Stop
from esid.errors import NotPermitted, Stopping
from esid.feeds.pace import LONGEST_WAIT_S, ZKILLBOARD_S, Pace
from tests.tools.daemon import ROOT

_CHILD = """
import sys, time
from pathlib import Path
from esid.feeds.pace import Pace
pace = Pace(Path(sys.argv[1]), 0.05)
for _ in range(5):
    pace.wait()
    print(time.monotonic())
"""


def test_no_second_holds_more_requests_than_zkillboard_permits() -> None:
    # Even where one request comes late and the others do not.
    assert 14 * ZKILLBOARD_S > 1.0


def test_several_processes_keep_one_distance(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "pace")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(3)]
    times = sorted(float(line) for child in children for line in child.communicate(timeout=60)[0].split())
    assert len(times) == 15
    # Places in the row are 0.05 s apart, whoever took them.
    assert times[-1] - times[0] >= 14 * 0.05 - 0.03


def test_a_hold_is_for_all_and_outlives_its_process(tmp_path: Path) -> None:
    Pace(tmp_path / "pace", 0.01).hold(0.3)
    started = clock.monotonic()
    Pace(tmp_path / "pace", 0.01).wait()
    assert clock.monotonic() - started >= 0.29


def test_a_hold_beyond_belief_is_cut(tmp_path: Path) -> None:
    Pace(tmp_path / "pace", 0.01).hold(1e9)
    assert float((tmp_path / "pace").read_text()) <= time.monotonic() + LONGEST_WAIT_S


@pytest.mark.parametrize("content", [b"", b"nonsense", b"1e300\n", b"nan\n", b"\xff\xff"])
def test_a_file_of_another_boot_or_of_nonsense_holds_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pace").write_bytes(content)
    started = clock.monotonic()
    Pace(tmp_path / "pace", 0.01).wait()
    assert clock.monotonic() - started < 5


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = Stop()
    pace = Pace(tmp_path / "pace", 0.01, stop)
    pace.hold(60)
    stop.set()
    with pytest.raises(Stopping):
        pace.wait()
    with pytest.raises(Stopping):
        pace.check()


def test_a_file_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="ESID_DATA_DIR"):
        Pace(tmp_path / "nowhere" / "pace", 0.01)
