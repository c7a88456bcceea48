"""What was typed: arguments of the command line turned into ids, times and days, or a UsageError that says what is meant."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from esid import clock, settings
from esid.errors import UsageError
from esid.settings import nearest

#: Beside those that people ask for by id, in the ledger: the lists.
LIST_NAMES = ("alliances", "alliance_corporations", "npccorps")
SYNC_NAMES = tuple(f"{name}s" for name in settings.ENTITY_NAMES if name != "killmail")
#: Where killmails come from by day; the first is the default.
IMPORT_SOURCES = ("everef", "zkillboard", "esi")


class Parser(argparse.ArgumentParser):
    """Errors are one line, with the nearest word that would have been right; no option may be shortened."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        typed = message.partition("invalid choice: '")[2].partition("'")[0]
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [word for action in self._actions for word in (*(action.choices or ()), *action.option_strings)]
        hint = nearest(typed or unknown, [str(word) for word in known]) if typed or unknown else ""
        raise UsageError(f"{message}{hint} (see `{self.prog} --help`)")


def tokens(ids: Sequence[str]) -> Iterator[str]:
    """The words that were typed; `-` stands for those of standard input."""
    for text in ids:
        if text == "-":
            if not sys.stdin:
                raise UsageError("`-` takes ids from standard input, which is closed")
            sys.stdin.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            yield from (word for line in sys.stdin for word in line.split())
        else:
            yield text


def id_of(token: str) -> int:
    """An id. Raises UsageError."""
    if not (token.isascii() and token.isdigit() and len(token) <= 19 and 0 < int(token) < 2**63):
        raise UsageError(f"{token[:60]!r} is not an id: a whole number from 1 to 9223372036854775807")
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


def day(option: str, text: str) -> dt.date:
    """A day of EVE, which began in 2003. Raises UsageError."""
    try:
        found = dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a day like 2021-11-29") from None
    if not 2003 <= found.year <= clock.now().year + 1:
        raise UsageError(f"{option} {text!r} is no day of EVE, which began in 2003")
    return found


def count(option: str, text: str, most: int) -> int:
    """A number from 1. Raises UsageError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise UsageError(f"{option} {text!r} is not a whole number from 1 to {most}")
    return int(text)
