"""A command that is forked by who has imported esid already is the command that a new Python would run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.daemon import ROOT
from tests.tools.zygote import Zygote

PLAIN = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    """One of our own."""
    made = Zygote(PLAIN)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("words", "stdin", "changes"),
    [
        ("version", "", {}),
        ("config", "", {"ESI_CONTACT": "you@example.com", "ESID_THREADS": "3"}),
        ("config", "", {"ESID_THREADS": "many"}),
        ("status", "", {}),
        ("nonsense", "", {}),
        ("enqueue alliance -", "abc\n", {}),
    ],
)
def test_exit_code_and_both_outputs_are_the_same(
    zygote: Zygote, tmp_path: Path, words: str, stdin: str, changes: dict[str, str]
) -> None:
    environment = {**PLAIN, "HOME": str(tmp_path), "ESID_DATA_DIR": str(tmp_path / "data"), **changes}
    real = subprocess.run(
        [sys.executable, "-m", "esid", *words.split()],
        env=environment,
        cwd=tmp_path,
        input=stdin.encode(),
        capture_output=True,
        check=False,
    )
    # Twice: what one command does to its process is no matter of the next one.
    for _ in range(2):
        forked = zygote.run(words.split(), environment, str(tmp_path), stdin.encode(), 60.0)
        assert forked == (real.returncode, real.stdout, real.stderr)
