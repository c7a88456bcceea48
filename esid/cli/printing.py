"""What commands print and ask back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

from esid import log
from esid.errors import UsageError

#: Columns and lines of a terminal that does not tell.
WIDTH, HEIGHT = 80, 24


def print_lines(lines: Iterable[str]) -> None:
    """Lines, as they come. What others have written in them does nothing to the terminal."""
    for line in lines:
        print(log.printable(line))


def print_json(value: Any) -> None:
    """One JSON value, for programs."""
    print(json.dumps(value, indent=2, default=str))


def note(words: str) -> None:
    """Say something beside the result: on standard error."""
    print(f"esid: {log.printable(words)}", file=sys.stderr, flush=True)


def columns(stream: TextIO | None = None) -> int | None:
    """How wide the terminal is; None where standard output (or another stream) is none: lines may be of any length."""
    stream = stream or sys.stdout
    if not (stream and stream.isatty()):
        return None
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else size(stream)[0]


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of a terminal, just now."""
    with suppress(OSError, ValueError):
        wide, high = os.get_terminal_size(stream.fileno())
        return wide or WIDTH, high or HEIGHT
    return WIDTH, HEIGHT


def confirmed(question: str) -> bool:
    """True after a yes. Raises UsageError where nobody can answer."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"{question} Say --yes where nobody can answer")
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False
