"""What commands print and ask back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from esid import log
from esid.errors import UsageError


def print_lines(lines: Iterable[str]) -> None:
    """Lines, as they come. What others have written in them does nothing to the terminal."""
    for line in lines:
        print(log.printable(line))


def print_json(value: Any) -> None:
    """One JSON value, for programs."""
    print(json.dumps(value, indent=2, default=str))


def confirmed(question: str) -> bool:
    """True after a yes. Raises UsageError where nobody can answer."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"{question} Say --yes where nobody can answer")
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False
