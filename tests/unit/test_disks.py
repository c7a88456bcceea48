"""A daemon does not begin on a network file system, where neither its locks nor its budget would hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from esid import host, settings
from esid.assembly import core, lock
from esid.daemon.supervisor import Supervisor
from esid.errors import SettingsError

EXT4, TMPFS, FUSE = 0xEF53, 0x01021994, 0x65735546
Mount = Callable[[Path, int], None]


@pytest.fixture
def mount(monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Has statfs(2) find a file system at a path and below it."""
    found: dict[Path, int] = {}

    def file_system(path: Path) -> int:
        assert path.exists()
        return next((kind for place, kind in found.items() if place in (path, *path.parents)), EXT4)

    monkeypatch.setattr(host, "_file_system", file_system)
    return found.__setitem__


@pytest.mark.parametrize(("kind", "name"), [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (0xFE534D42, "SMB")])
@pytest.mark.parametrize("database", ["", "postgresql://esid@127.0.0.1:1/esid"])
def test_a_data_directory_on_a_network_is_refused_with_name_and_cure(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: int, name: str, database: str
) -> None:
    mount(tmp_path, kind)
    monkeypatch.setenv("ESID_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setattr(lock, "InstanceLock", None)  # nothing is locked there
    monkeypatch.setenv("ESID_HTTP_LISTEN", "off")
    monkeypatch.setattr("esid.daemon.signals.block", lambda: None)
    with pytest.raises(SettingsError, match=rf"data lies on {name}, .*; set ESID_DATA_DIR to .*local disk") as raised:
        Supervisor(settings.read()).run()
    assert (raised.value.exit_code, "\n" in str(raised.value)) == (78, False)


def test_a_database_file_on_a_network_is_refused(mount: Mount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESID_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/there/deep/esid.db")
    core.check_disks(settings.read())
    (tmp_path / "there").mkdir()
    mount(tmp_path / "there", 0x6969)
    with pytest.raises(SettingsError, match=r"there/deep lies on NFS, .*; set DATABASE_URL to .*local disk"):
        core.check_disks(settings.read())


@pytest.mark.parametrize("kind", [EXT4, TMPFS, FUSE, 0])
def test_any_other_file_system_will_do(mount: Mount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: int) -> None:
    mount(tmp_path, kind)
    monkeypatch.setenv("ESID_DATA_DIR", str(tmp_path / "data"))
    core.check_disks(settings.read())


def test_the_kernel_tells_which_file_system_it_is(tmp_path: Path) -> None:
    assert host._file_system(Path("/proc")) == 0x9FA0  # statfs(2): PROC_SUPER_MAGIC
    assert host._file_system(tmp_path / "nowhere") == 0
