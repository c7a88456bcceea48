"""Standard streams that are closed and too few open files: a daemon and its commands work, or say in one line why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_esi import FakeEsi
from tests.tools.daemon import Daemon, Ran
from tests.tools.waiting import wait_until

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
each_way = pytest.mark.parametrize("closed", CLOSED)
NOT_PERMITTED = 77


@pytest.fixture
def daemon(esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on the embedded default."""
    made = Daemon(
        {"ESID_DATA_DIR": str(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}, directory=tmp_path
    )
    yield made
    made.end()


def in_a_shell(typed: str, before: str = "") -> list[str]:
    """`esid` as a shell starts it."""
    return ["bash", "-c", f"{before} exec {sys.executable} -m esid {typed}"]


def ran(daemon: Daemon, typed: str, before: str = "") -> Ran:
    """One command to its end."""
    command = in_a_shell(typed, before)
    done = subprocess.run(
        command, env=daemon.environment, cwd=daemon.directory, capture_output=True, text=True, timeout=30, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def wait_for_work(daemon: Daemon, esi: FakeEsi, typed: str, before: str = "") -> int:
    """Start a daemon and wait until it has come down to characters; its pid."""
    with (daemon.directory / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            in_a_shell(typed, before),
            env=daemon.environment,
            cwd=daemon.directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process = daemon.process
    wait_until(lambda: esi.count(prefix="/characters/") or process.poll() is not None, 30, lambda: f"work: {daemon.log}")
    assert process.poll() is None, daemon.log
    return process.pid


@each_way
def test_a_daemon_with_closed_standard_streams_works(daemon: Daemon, esi: FakeEsi, closed: str) -> None:
    supervisor = wait_for_work(daemon, esi, f"run --threads 2 {closed}")

    # And no file of its own has the number of one
    for pid in (supervisor, *daemon.children().values()):
        for number in range(3):
            name = str(Path(f"/proc/{pid}/fd/{number}").readlink())
            assert name in {"/dev/null", str(daemon.directory / "log")}, (pid, number)
    assert daemon.stop() == 0


@each_way
def test_a_command_with_closed_standard_streams_does_what_it_does(daemon: Daemon, closed: str) -> None:
    words, note = "character: 1 queued\n", "esid: no daemon is running here; it is kept until `esid run` is started\n"
    daemon.set_up()
    expected = Ran(0, words if ">&- 2" not in closed and closed != ">&-" else "", note if "2>&-" not in closed else "")
    assert ran(daemon, f"enqueue character 95000001 {closed}") == expected
    assert json.loads(daemon.ok("status", "--json"))["ledger"]["character"]["pending"] == 1

    status = ran(daemon, f"status --json {closed}")
    assert (status.code, status.err) == (0, "")
    assert status.out == "" or json.loads(status.out)


def test_too_few_open_files_are_more_where_that_is_permitted(daemon: Daemon, esi: FakeEsi) -> None:
    wait_for_work(daemon, esi, "run", "ulimit -S -n 20;")
    assert daemon.stop() == 0
    assert "WARNING" not in daemon.log
    assert "ERROR" not in daemon.log


@pytest.mark.parametrize("most", [8, 20, 80])
def test_too_few_open_files_end_a_start_with_what_it_needs(daemon: Daemon, esi: FakeEsi, most: int) -> None:
    done = ran(daemon, "run", f"ulimit -n {most};")
    assert (done.code, done.out, len(done.err.splitlines())) == (NOT_PERMITTED, "", 1), done
    assert "esid needs 88 open files" in done.err
    assert "LimitNOFILE=" in done.err
    assert esi.count() == 0


def test_a_command_with_too_few_open_files_does_not_look_for_another_cause(daemon: Daemon) -> None:
    done = ran(daemon.set_up(), "status", "ulimit -n 8;")
    assert done.code == 0 or (len(done.err.splitlines()) == 1 and "ulimit -n" in done.err), done
