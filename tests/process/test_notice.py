"""What a service manager is told, over a socket as systemd makes one; and what its journal gets."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid import log, settings
from esid.daemon.notice import Notice
from esid.log_rate import MOST, Rate
from tests.tools.daemon import Daemon
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, path: str) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(4096):
            self.heard += data.decode().splitlines()

    def close(self) -> None:
        """No more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager."""
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_the_units_contract_ready_watchdog_stopping_exit_code(daemon: Daemon, manager: Manager, tmp_path: Path) -> None:
    daemon.settings |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"}
    daemon.start()
    wait_until(lambda: "READY=1" in manager.heard, 30, lambda: daemon.log)
    wait_until(lambda: manager.heard.count("WATCHDOG=1") >= 3, 30, "the watchdog")

    # When a worker hangs, the watchdog hears nothing more
    worker = next(pid for pid in daemon.children().values() if "worker" in name_of(pid) or is_busiest(pid, daemon))
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: is_quiet(manager), 30, "silence")
    os.kill(worker, signal.SIGCONT)
    before = len(manager.heard)
    wait_until(lambda: "WATCHDOG=1" in manager.heard[before:], 30, "the watchdog again")

    assert daemon.stop() == 0
    wait_until(lambda: "STOPPING=1" in manager.heard, 10, "the notice of the stop")
    assert manager.heard.index("READY=1") < manager.heard.index("STOPPING=1")


def name_of(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/comm").read_text()


def is_busiest(pid: int, daemon: Daemon) -> bool:
    """True for the child with the most threads: the worker."""
    count = {one: len(list(Path(f"/proc/{one}/task").iterdir())) for one in daemon.children().values()}
    return count[pid] == max(count.values())


def is_quiet(manager: Manager) -> bool:
    """True when nothing comes for twice as long as the watchdog allows."""
    before = len(manager.heard)
    threading.Event().wait(3.0)
    return len(manager.heard) == before


def test_the_watchdog_is_told_nothing_while_a_child_is_silent(manager: Manager, tmp_path: Path) -> None:
    notice = Notice(str(tmp_path / "notify"), 0.003)
    notice.look(started=False, well=False)
    notice.look(started=True, well=False)
    wait_until(lambda: manager.heard == ["READY=1", "STATUS=working"], 10, manager.heard)
    notice.look(started=True, well=True)
    wait_until(lambda: manager.heard[2:] == ["WATCHDOG=1"], 10, manager.heard)
    notice.stopping()
    wait_until(lambda: "STOPPING=1" in manager.heard, 10, manager.heard)


def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    Notice("", 1.0).look(started=True, well=True)
    Notice(str(tmp_path / "nobody"), 1.0).stopping()
    Notice("@esid-test-nobody", 1.0).stopping()


def test_the_watchdogs_time_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert settings.service_manager(42) == ("/x", 60.0)
    monkeypatch.setenv("WATCHDOG_PID", "42")
    assert settings.service_manager(42) == ("/x", 60.0)
    assert settings.service_manager(43) == ("/x", 0.0)


@pytest.mark.parametrize("stack", [STACKS[0]], indirect=True)
def test_the_journal_gets_priorities_and_no_second_time(daemon: Daemon) -> None:
    with (daemon.directory / "log").open("ab") as file:
        told = os.fstat(file.fileno())
    daemon.settings["JOURNAL_STREAM"] = f"{told.st_dev}:{told.st_ino}"
    daemon.start()
    assert daemon.stop() == 0
    lines = daemon.log.splitlines()
    assert lines
    assert all(line.startswith(("<6>INFO ", "<4>WARNING ", "<3>ERROR ")) for line in lines), lines


def test_a_flood_of_one_event_is_some_lines_and_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("esid.clock.monotonic", lambda: now[0])
    rate, logger = Rate(), log.get("test")
    record = lambda name: logger.makeRecord(logger.name, logging.INFO, "", 0, "%s", (name,), None)  # noqa: E731
    assert sum(rate.filter(record("work.dead")) for _ in range(100_000)) == MOST
    assert rate.filter(record("another.event"))
    now[0] += 61
    late = record("work.dead")
    assert rate.filter(late)
    assert late.esid_fields == {"left_out": 100_000 - MOST}
