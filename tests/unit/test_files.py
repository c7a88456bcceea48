"""A command beside a running daemon sets up no second database, and the daemon knows its files by what they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esid import clock, settings
from esid.assembly import core
from esid.assembly.lock import InstanceLock
from esid.daemon.files import Files
from esid.errors import DatabaseLost, NoDatabase
from esid.settings import Settings


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The embedded default."""
    monkeypatch.setenv("ESID_DATA_DIR", str(tmp_path))
    return settings.read()


@pytest.fixture
def held(chosen: Settings) -> Iterator[InstanceLock]:
    """What a running daemon holds."""
    lock = InstanceLock(core.lock_path(chosen), alone=True)
    yield lock
    lock.release()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch, times: list[float]) -> list[float]:
    """Time passes only while somebody sleeps: how long each did."""
    slept = list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        times[0] += seconds

    monkeypatch.setattr(clock, "sleep", sleep)
    return slept


@pytest.mark.usefixtures("held")
def test_beside_a_running_daemon_no_command_sets_up_a_database(
    chosen: Settings, tmp_path: Path, sleeps: list[float]
) -> None:
    with pytest.raises(DatabaseLost, match=rf"esid\.db is not there, .*pid {os.getpid()} since .*stop the daemon"):
        core.ready_store(chosen)
    assert 4 < sum(sleeps) < 6
    assert not (tmp_path / "esid.db").exists()


@pytest.mark.usefixtures("held", "times")
def test_a_command_waits_for_a_daemon_that_has_just_begun(chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "sleep", lambda _: core.set_up_store(chosen).close())
    core.ready_store(chosen).close()


def test_without_a_daemon_a_command_makes_nothing(chosen: Settings, tmp_path: Path, sleeps: list[float]) -> None:
    with pytest.raises(NoDatabase, match=r"there is no database at .*esid\.db \(settings: no file, environment, defaults\)"):
        core.ready_store(chosen)
    assert list(tmp_path.iterdir()) == []
    core.set_up_store(chosen).close()
    core.ready_store(chosen).close()
    assert sleeps == []


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").rename(path)


def move_its_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def write_to_it(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("name", ["esid.db", "esid.db.lock"])
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (delete, "was deleted or moved"),
        (replace, "was replaced"),
        (move_its_directory, "was deleted or moved"),
        (write_to_it, ""),
    ],
)
def test_the_daemon_notices_a_file_that_is_another_one(
    tmp_path: Path, name: str, act: Callable[[Path], None], words: str
) -> None:
    both = [tmp_path / "data" / "esid.db", tmp_path / "data" / "esid.db.lock"]
    both[0].parent.mkdir()
    for path in both:
        path.write_bytes(b"old")
    files = Files(*both)
    files.check()
    act(tmp_path / "data" / name)
    if not words:
        files.check()
        return
    with pytest.raises(DatabaseLost, match=words) as raised:
        files.check()
    assert "\n" not in str(raised.value)


def test_who_cannot_look_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esid.db").touch()
    files = Files(tmp_path / "esid.db", tmp_path / "esid.db")

    def fails(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", fails)
    files.check()
