"""`make dist` makes one executable file and a wheel, and both run where nothing else is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esid import __version__
from tests.tools.daemon import ROOT

#: What is downloaded may take its time on a busy network.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """What `make dist` leaves, of a copy of the sources."""
    copy = tmp_path / "copy"
    parts = ("esid", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "Makefile")
    copy.mkdir()
    for part in parts:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy / part)
    venv = Path(sys.executable).parent.parent
    # The virtual environment is there; the copy must not set up another.
    subprocess.run(["touch", str(venv / ".run"), str(venv / ".dev")], check=True)
    made = subprocess.run(["make", "dist", f"VENV={venv}"], cwd=copy, capture_output=True, timeout=170, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return copy / "dist"


def bare(home: Path) -> dict[str, str]:
    """An environment without this project, and without any setting."""
    return {"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin", "HOME": str(home)}


def run(command: list[str], home: Path) -> str:
    """Run a command outside of the project."""
    done = subprocess.run(command, env=bare(home), cwd=home, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_the_single_file_runs_on_a_bare_python_and_the_wheel_has_all_of_the_package(dist: Path, tmp_path: Path) -> None:
    try_single_file(dist, tmp_path)
    try_wheel(dist, tmp_path)


def try_single_file(dist: Path, tmp_path: Path) -> None:
    """On a Python that has nothing else."""
    program = tmp_path / "esid"
    shutil.copy2(dist / "esid", program)
    assert os.access(program, os.X_OK)
    assert run([str(program), "version"], tmp_path) == f"esid {__version__}\n"
    # With compiled parts, migrations and the page's files in it
    assert "applied 0001_initial" in run([str(program), "migrate"], tmp_path)
    assert "Queues" in run([str(program), "status"], tmp_path)
    code = "import psycopg2, esid.web.page as page; print(page._template().name)"
    ran = subprocess.run(
        [str(program), "-c", code],
        env={**bare(tmp_path), "SHIV_INTERPRETER": "1"},
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.decode() == "page.html\n", ran.stderr


def try_wheel(dist: Path, tmp_path: Path) -> None:
    """Installed into a folder of its own."""
    (wheel,) = dist.glob("*.whl")
    # Its dependencies are those of the single file; here they are taken from this environment.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(wheel)], check=True, timeout=120)
    packaged = {
        str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site" / "esid").rglob("*") if path.is_file()
    }
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "esid").rglob("*")
        if "__pycache__" not in str(path) and path.is_file()
    }
    assert {name for name in packaged if "__pycache__" not in name} == sources
    code = "import esid, sys; sys.path[:] = [p for p in sys.path if p != sys.argv[1]]; import esid.cli; print(esid.__file__)"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        env={**bare(tmp_path), "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.decode().startswith(str(tmp_path))
