"""What was typed: arguments of the command line turned into ids, times and days, or a UsageError that says what is meant."""

from __future__ import annotations

import codecs
import datetime as dt
import re
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from esid import clock, settings
from esid.catalogue import LANES, NAMES
from esid.errors import UsageError

SYNC_NAMES = tuple(lane.plural for lane in LANES if not lane.unlisted)
#: Where killmails come from by day; the first is the default.
IMPORT_SOURCES = ("everef", "zkillboard", "esi")
_Read = TypeVar("_Read")
#: Between two ids of standard input: what tables and lists of other programs have there.
_BETWEEN = re.compile(r"[\s,;]+")


class EntityNames:
    """Names of entities in the order of their lanes, read when somebody asks: the pages import the database library.

    Args:
        are_rows: True = those with tables of their own, False = the lists.
    """

    def __init__(self, *are_rows: bool) -> None:
        self._are_rows = are_rows

    def __iter__(self) -> Iterator[str]:
        from esid.entities import ENTITIES  # nobody waits for it who asks for none

        for are_rows in self._are_rows:
            for lane in NAMES:
                yield from (one.name for one in ENTITIES if one.lane == lane and bool(one.own) == are_rows)

    def __contains__(self, name: object) -> bool:
        return any(name == one for one in self)


#: What people ask for by id, what else is in the ledger, and both.
ROW_NAMES, LIST_NAMES, ALL_NAMES = EntityNames(True), EntityNames(False), EntityNames(False, True)


def standard_input(read: Callable[[str], _Read], command: str = "") -> list[_Read]:
    """What `read` makes of each word of standard input: in lines or columns, behind blanks, commas or semicolons. What
    follows a `#` at the beginning of a word is a comment.

    Args:
        command: what takes a column of ids; "" where a column of a table would not do.

    Raises:
        UsageError: as `read` does, with the number of the line; or standard input is closed.
    """
    if not sys.stdin:
        raise UsageError("`-` takes ids from standard input, which is closed")
    found = []
    for number, line in _lines():
        for word in filter(None, _BETWEEN.split(re.sub(r"(^|[\s,;])#.*", "", line))):
            try:
                found.append(read(word))
            except UsageError as error:
                cure = _cure_of_table(line.strip(), command, is_first=number == 1) if command else ""
                raise UsageError(f"standard input, line {number:,}: {error}{cure}") from None
    return found


def _cure_of_table(line: str, command: str, *, is_first: bool) -> str:
    """How to take the ids out of a table whose line this is; "" where it looks like none."""
    mark = next((one for one in ",;\t" if one in line), "")
    cells = [cell.strip(' "') for cell in line.split(mark or None)]
    ids = [place for place, cell in enumerate(cells, 1) if cell.isdigit()]
    named = [place for place, cell in enumerate(cells, 1) if is_first and cell.lower().endswith("id")]
    is_header, steps = bool(named and not ids), list[str]()
    if mark and (ids or named):
        between = {",": "-d, ", ";": "-d';' ", "\t": ""}[mark]
        steps.append(f"cut {between}-f{(*ids, *named)[0]}")
    steps += ["tail -n +2"] if is_header else []
    if not steps:
        return ""
    steps[0] += " FILE"
    steps += ["tr -d '\"'"] if '"' in line else []
    what = "the column of ids alone, without the header" if is_header else "the column of ids alone"
    return f"; of a table give {what}: {' | '.join([*steps, command])}"


def _lines() -> Iterator[tuple[int, str]]:
    """Numbered from 1, of UTF-8 or (as Windows' PowerShell writes it) UTF-16 with its mark. Bytes that are no text stand as
    escapes."""
    mark = sys.stdin.buffer.peek(2)[:2]  # type: ignore[union-attr]
    encoding = "utf-16" if mark in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"
    sys.stdin.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
    return enumerate(sys.stdin, 1)


def id_of(token: str, first: int = 1) -> int:
    """An id, of an entity whose ids begin with `first`. Raises UsageError."""
    if not (token.isascii() and token.isdigit() and len(token) <= 19 and first <= int(token) < 2**63):
        raise UsageError(f"{token[:60]!r} is not an id: a whole number from {first} to 9223372036854775807")
    return int(token)


def since(text: str) -> dt.datetime:
    """The time that an age (`2d`) or a date names. Raises UsageError."""
    try:
        return clock.now() - dt.timedelta(seconds=settings.duration(text))
    except (OverflowError, ValueError):
        pass
    try:
        time = dt.datetime.fromisoformat(text)
        return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
    except (OverflowError, ValueError):
        raise UsageError(f"--since {text!r} is neither an age like 2d or 12h nor a date like 2026-11-24") from None


def first_day(text: str) -> dt.date:
    """The day of EVE with which a time begins that is given as `since` is. Raises UsageError."""
    found = since(text).date()
    if found > clock.now().date():
        raise UsageError(f"--since {text!r} is in the future: that day has not ended yet")
    return found


def day(option: str, text: str) -> dt.date:
    """A day of EVE, which began in 2003, up to today. Raises UsageError."""
    try:
        found = dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a day like 2021-11-29") from None
    if found.year < 2003:
        raise UsageError(f"{option} {text!r} is no day of EVE, which began in 2003")
    if found > clock.now().date():
        raise UsageError(f"{option} {text!r} is no day of EVE so far: it has not ended yet")
    return found


def count(option: str, text: str, most: int) -> int:
    """A number from 1. Raises UsageError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise UsageError(f"{option} {text!r} is not a whole number from 1 to {most}")
    return int(text)
