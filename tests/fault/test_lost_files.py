"""A SQLite database that is taken away under a daemon ends it with cause and cure; nobody sets up another one beside it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tools.daemon import Make
from tests.tools.processes import processes
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

sqlite_only = pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
#: The exit code of a damaged or lost database.
LOST = 65


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.rename(path)


def rename_the_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


@sqlite_only
@pytest.mark.parametrize(
    ("name", "act", "words"),
    [
        ("esid.db", delete, "esid.db was deleted or moved while esid runs: what esid has written since is lost"),
        ("esid.db", replace, "esid.db was replaced while esid runs: what esid has written since is lost"),
        ("esid.db", rename_the_directory, "esid.db was deleted or moved while esid runs"),
        ("esid.db.lock", delete, "esid.db.lock was deleted or moved while esid runs: a second daemon could begin"),
    ],
)
def test_a_file_that_is_taken_away_ends_the_daemon_with_cause_and_cure(
    make_daemon: Make, tmp_path: Path, name: str, act: Callable[[Path], None], words: str
) -> None:
    daemon = make_daemon().start()
    file = tmp_path / "data" / name
    act(file)
    assert daemon.wait(5) == LOST
    assert file.exists() == (act is replace)
    (line,) = [line for line in daemon.log.splitlines() if "daemon.database_lost" in line]
    assert words in line
    assert "start esid again" in line
    assert processes(daemon) == set()
    assert "Traceback" not in daemon.log


@sqlite_only
def test_commands_set_up_no_second_database_beside_a_daemon(make_daemon: Make, tmp_path: Path) -> None:
    # Given a daemon that is stopped for a moment, so that it does not notice, and whose file is gone
    daemon = make_daemon().start()
    wait_until(lambda: "schedule.owned" in daemon.log, 20, lambda: daemon.log)
    daemon.signal(signal.SIGSTOP, group=True)
    file = tmp_path / "data" / "esid.db"
    file.rename(tmp_path / "elsewhere")

    with ThreadPoolExecutor() as pool:
        commands = [["enqueue", "alliance", "99000006"], ["migrate"], ["status"]]
        done = list(pool.map(lambda command: daemon.run(*command), commands))
    for ran in done:
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (LOST, "", 1), ran
        assert f"{file} is not there, and its daemon runs (pid {daemon.process.pid} since " in ran.err  # type: ignore[union-attr]
    assert not file.exists()

    # And it ends as soon as it runs again
    daemon.signal(signal.SIGCONT, group=True)
    assert daemon.wait(5) == LOST
