"""`esid run` under a real pm2, by the ecosystem file that people copy. Run by `make tries`; pm2 comes from npm."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import ROOT
from tests.tools.waiting import wait_until

PM2 = Path(os.environ.get("PM2", ROOT / ".venv" / "pm2" / "node_modules" / ".bin" / "pm2"))


class Pm2:
    """A pm2 with a home of its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        binary = home / "esid"
        binary.write_text(f'#!/bin/sh\nexec {ROOT}/.venv/bin/python -m esid "$@"\n')
        binary.chmod(0o755)
        path = {"PATH": os.environ["PATH"], "HOME": str(home), "PM2_HOME": str(home / "pm2"), "PYTHONPATH": str(ROOT)}
        self._home, self._environment = home, {**path, "PM2_ESID": str(binary), **settings}

    def run(self, *arguments: str) -> str:
        """Run one command."""
        done = subprocess.run(
            [PM2, *arguments], env=self._environment, cwd=self._home, capture_output=True, timeout=150, check=False
        )
        return done.stdout.decode()

    def app(self) -> dict[str, Any]:
        """How the one app stands."""
        (found,) = json.loads(self.run("jlist").splitlines()[-1])
        return {"pid": found["pid"], **found["pm2_env"]}

    def log(self) -> str:
        """What the app has printed."""
        return "".join(path.read_text() for path in (self._home / "pm2" / "logs").glob("*.log"))


@pytest.fixture
def pm2(tmp_path: Path) -> Iterator[Pm2]:
    """pm2 with the app started."""
    world = World.generate(alliances=6, corporations=40, characters=80, npc_corporations=3)
    with FakeEsi(world) as esi:
        made = Pm2(
            tmp_path, ESI_BASE_URL=esi.base_url, ESID_DATA_DIR=str(tmp_path / "data"), ESID_HTTP_LISTEN="off",
            ESID_FEED_URL="off",
        )  # fmt: skip
        made.run("start", str(ROOT / "contrib" / "pm2" / "ecosystem.config.js"))
        yield made
        made.run("kill")


def children(pid: int) -> list[int]:
    """Pids of the child processes."""
    found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, check=False)
    return [int(one) for one in found.stdout.split()]


def test_it_starts_stops_in_good_order_and_restarts(pm2: Pm2) -> None:
    wait_until(lambda: "daemon.started" in pm2.log(), 60, pm2.log)
    first = pm2.app()
    assert first["status"] == "online"
    before = wait_until(lambda: len(found := children(first["pid"])) >= 2 and found, 30, "the children")

    # When pm2 restarts it, everything has ended before it is started anew
    pm2.run("restart", "esid")
    wait_until(lambda: pm2.log().count("daemon.started") == 2, 120, pm2.log)
    assert pm2.log().count("daemon.stopped") == 1
    assert pm2.log().count("daemon.child_killed") == 0
    assert [pid for pid in before if Path(f"/proc/{pid}").exists()] == []

    pm2.run("stop", "esid")
    assert pm2.app()["status"] == "stopped"
    assert pm2.log().count("daemon.stopped") == 2


def test_what_no_restart_cures_is_not_restarted(pm2: Pm2, tmp_path: Path) -> None:
    wait_until(lambda: "daemon.started" in pm2.log(), 60, pm2.log)
    pm2.run("stop", "esid")
    # Given a data directory that is a file: exit code 77
    for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
        path.unlink()
    (tmp_path / "data").rmdir()
    (tmp_path / "data").write_text("")
    pm2.run("start", "esid")
    wait_until(lambda: "cannot be" in pm2.log(), 60, pm2.log)
    wait_until(lambda: pm2.app()["pid"] == 0, 30, "its end")
    assert pm2.app()["exit_code"] == 77
    # Then nothing comes after the 5 s of the ecosystem file's restart delay (pm2 calls that "waiting restart" for ever)
    threading.Event().wait(8.0)
    assert pm2.app()["pid"] == 0
    assert pm2.log().count("cannot be made") == 1
