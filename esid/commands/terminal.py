"""What commands print and ask back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from esid.errors import UsageError


def print_lines(lines: Iterable[str]) -> None:
    """Lines, as they come."""
    for line in lines:
        print(line)


def print_json(value: Any) -> None:
    """One JSON value, for programs."""
    print(json.dumps(value, indent=2, default=str))


def confirmed(question: str) -> bool:
    """True after a yes. Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Say --yes where nobody can answer")
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
