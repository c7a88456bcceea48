"""Surroundings with little in them: no locale, no home, no environment at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_esi import FakeEsi
from tests.tools.daemon import ROOT, Daemon

NAME = "Équipe Ünïcode 会社"
#: A process as a user that no /etc/passwd knows, as containers have them, with no environment.
NOBODY = ["unshare", "--user", "--map-user=54321", "env", "-i", f"PYTHONPATH={ROOT}"]


def test_a_name_that_standard_output_cannot_say_is_escaped(esi: FakeEsi, tmp_path: Path) -> None:
    key = min(esi.world.alliances)
    esi.world.alliances[key]["name"] = NAME
    daemon = Daemon(
        {"ESID_DATA_DIR": str(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}, directory=tmp_path
    )
    daemon.start("--no-scheduler")
    daemon.ok("enqueue", "alliance", str(key), "--wait")
    assert daemon.stop() == 0
    assert NAME in daemon.ok("show", "alliance", str(key), PYTHONIOENCODING="utf-8")
    said = daemon.ok("show", "alliance", str(key), PYTHONIOENCODING="ascii")
    assert NAME.encode("ascii", "backslashreplace").decode() in said


@pytest.mark.parametrize("typed", ["run", "status", "migrate", "enqueue alliance 1", "dead list"])
def test_a_user_without_a_home_is_told_what_to_set(typed: str, tmp_path: Path) -> None:
    def ran(**environment: str) -> tuple[int, str]:
        given = [f"{name}={value}" for name, value in environment.items()]
        command = [*NOBODY, *given, sys.executable, "-m", "esid", *typed.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stderr

    local = {"ESI_BASE_URL": "http://127.0.0.1:1", "ESID_HTTP_LISTEN": "off"}
    words = "esid: this user has no home directory; set ESID_DATA_DIR to a directory of its own\n"
    assert ran(**local) == (78, words)
    # And where the database is elsewhere, that is what is said
    code, said = ran(**local, DATABASE_URL="postgresql://a@127.0.0.1:1/b", ESID_DATA_DIR=str(tmp_path / "data"))
    assert (code, said.count("\n"), "Connection refused" in said) == (69, 1, True)
