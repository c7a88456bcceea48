"""The list of faults is whole, and each test that it names exists."""

from __future__ import annotations

import re

from tests.tools.daemon import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (F\d\d) \| [^|]+ \| ([^|]+) \|$", PAGE, re.M))
NUMBERS = (
    *range(1, 16), *range(20, 30), *range(30, 41), *range(50, 70), *range(70, 76), *range(80, 88), *range(90, 96),
)  # fmt: skip


def test_every_fault_is_a_test_or_says_why_not() -> None:
    assert list(ROWS) == [f"F{number:02d}" for number in NUMBERS]
    for row, text in ROWS.items():
        assert "`test_" in text or text.strip() == "budget", row


def test_every_named_test_exists() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.M)
    }
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - there == set()
