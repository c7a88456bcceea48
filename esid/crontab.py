"""Crontab expressions as crontab(5) has them, for APScheduler, which counts the days of the week from Monday."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from apscheduler.triggers.cron import CronTrigger

#: Days of the week by their numbers; 7 is Sunday too.
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = rf"[0-9]{{1,2}}|{'|'.join(_DAYS[:7])}"
_PART = re.compile(rf"(?:\*|(?P<first>{_DAY})(?:-(?P<last>{_DAY}))?)(?:/(?P<step>[0-9]{{1,2}}))?", re.ASCII)


def trigger(expression: str) -> Any:
    """APScheduler's trigger of a crontab expression, in UTC.

    Raises:
        ValueError: it is no crontab expression.
    """
    *others, weekdays = expression.split()
    return CronTrigger.from_crontab(" ".join([*others, _by_name(weekdays)]), timezone=dt.UTC)


def _by_name(field: str) -> str:
    """The days of the week of a field by their names, which mean the same to everybody."""
    days = {day % 7 for part in field.lower().split(",") for day in _days(part)}
    return ",".join(_DAYS[day] for day in sorted(days))


def _days(part: str) -> range:
    """The numbers of `*`, `1`, `mon`, `1-5`, `fri-sun` or one of these with a step."""
    match = _PART.fullmatch(part)
    if not match:
        raise ValueError(f"{part!r} is no day of the week")
    first, step = _number(match["first"] or "0"), int(match["step"] or 1)
    if match["last"]:
        last = _number(match["last"])
        # A week that ends with Sunday by its name ends with 7.
        last = 7 if match["last"] == "sun" and first > last else last
    else:
        last = first if match["first"] and not match["step"] else max(first, 6)
    if first > last or last > 7:
        raise ValueError(f"{part!r} names no days of the week from the first to the last")
    return range(first, last + 1, step)


def _number(day: str) -> int:
    return int(day) if day.isdecimal() else _DAYS.index(day)
