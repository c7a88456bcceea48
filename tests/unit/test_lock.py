"""The instance lock: one holder, and nobody who only looks keeps it from being taken."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from esid import clock
from esid.assembly import lock
from esid.assembly.lock import InstanceLock
from esid.errors import AlreadyRunning


@pytest.mark.parametrize("alone", [True, False])
def test_who_only_looks_keeps_no_daemon_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    # Given somebody who asks for the holder, and so holds the lock for a moment: until it is tried for the second time
    path = tmp_path / "esid.lock"
    looking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_EX)
    monkeypatch.setattr(clock, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))

    held = InstanceLock(path, alone=alone)
    assert (lock.holder(path) or "").startswith(f"pid {os.getpid()} since ")
    held.release()
    assert lock.holder(path) is None
    os.close(looking)


def test_a_second_daemon_is_refused_within_a_second_and_told_who_runs(tmp_path: Path) -> None:
    path = tmp_path / "esid.lock"
    held = InstanceLock(path, alone=True)
    before = clock.monotonic()
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()} since "):
        InstanceLock(path, alone=True)
    assert clock.monotonic() - before < lock.PATIENCE_S + 1
    held.release()


def test_of_several_daemons_the_first_one_is_named_whoever_else_tried_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "esid.lock"
    first = InstanceLock(path, alone=False)
    named = lock.holder(path)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    second = InstanceLock(path, alone=False)
    assert lock.holder(path) == named
    second.release()
    assert lock.holder(path) == named
    first.release()
    # And the next one is a first one again
    third = InstanceLock(path, alone=False)
    assert (lock.holder(path) or "").startswith("pid 1 since ")
    third.release()
