"""What a host knows of its processes: only what has ended for sure is gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esid import host
from tests.tools.daemon import ROOT
from tests.tools.namespaces import IN_A_NAMESPACE, as_root

NAMES_ITSELF = "from esid import host; print(host.me(), flush=True); input()"


def process(*before: str) -> tuple[subprocess.Popen[str], str]:
    """One that lives until its input ends, and its name."""
    words = [*before, sys.executable, "-c", NAMES_ITSELF]
    started = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    return started, started.stdout.readline().strip()


def test_who_runs_is_not_gone_and_who_has_ended_is_also_as_a_zombie() -> None:
    one, name = process()
    assert name.split(":")[:2] == [host.NAME, str(one.pid)]
    assert (host.is_here(name), host.is_gone(name), host.is_gone(f"{name}:anything")) == (True, False, False)
    with one:
        one.kill()
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        assert host.is_gone(name)
    assert host.is_gone(name)


def test_a_number_that_another_process_has_got_is_not_its_own() -> None:
    name = host.me()
    assert not host.is_gone(name)
    before = name.split(":")
    assert host.is_gone(":".join([*before[:2], str(int(before[2]) + 1), *before[3:]]))


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO])
def test_who_cannot_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    name = host.me()

    def fails(*_: object, **__: object) -> str:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "read_text", fails)
    assert not host.is_gone(name)


@as_root
def test_whoever_lives_in_another_namespace_is_neither_here_nor_gone() -> None:
    # Given the first processes of two containers of one host name
    one, name = process(*IN_A_NAMESPACE)
    other, second = process(*IN_A_NAMESPACE)
    assert name.split(":")[:2] == second.split(":")[:2] == [host.NAME, "1"]
    assert name.split(":")[3] != second.split(":")[3]
    for there in (name, second):
        assert (host.is_here(there), host.is_gone(there)) == (False, False)
    for process_ in (one, other):
        process_.communicate("\n", timeout=30)
    # Their namespaces cannot be looked into
    assert not host.is_gone(name)


@as_root
def test_a_foreign_proc_tells_nothing() -> None:
    # A new PID namespace in which /proc is still that of the other one
    one, name = process("unshare", "--pid", "--fork", "--kill-child")
    assert name.split(":")[3] == ""
    assert not host.is_gone(name)
    one.communicate("\n", timeout=30)


@pytest.mark.parametrize("owner", ["", "x", "a:b:c", "a:1:2:", f"{host.NAME}:999999999", f"{host.NAME}:999999999:x"])
def test_of_other_names_time_alone_tells(owner: str) -> None:
    assert not host.is_gone(owner)
