"""How the text of one setting is read. Each function returns the value, or raises ValueError with what would be right."""

from __future__ import annotations

import datetime as dt
import difflib
import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from esid.catalogue import LANES, NAMES
from esid.words import entity

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def text(value: str) -> str:
    """Any text."""
    return value


def host(value: str) -> str:
    """A host, several with commas, or a directory with a socket; the port has a setting of its own."""
    if any(re.fullmatch(r"[^:]+:[0-9]+|\[.*\]:[0-9]+", one) for one in value.split(",")):
        raise ValueError("a host alone: its port is DB_PORT")
    return value


def integer(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number of this range."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a number of this range."""

    def parse(value: str) -> float:
        found = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII) else math.nan
        if not low <= found <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return found

    return parse


def flag(value: str) -> bool:
    """0 or 1."""
    if value not in {"0", "1"}:
        raise ValueError("0 or 1")
    return value == "1"


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of these words, in any case."""

    def parse(value: str) -> str:
        found = [choice for choice in choices if choice.lower() == value.lower()]
        if not found:
            raise ValueError("one of " + ", ".join(choices))
        return found[0]

    return parse


def date(value: str) -> str:
    """A day as ISO 8601 writes it."""
    try:
        return dt.date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError("a date like 2026-08-18") from None


def duration(value: str) -> float:
    """Seconds in a text like `90s`, `15m`, `6h` or `1d`."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value, re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("a duration like 30s, 15m, 6h or 1d")
    return float(int(match[1]) * _UNITS[match[2]])


def schedule(value: str) -> str:
    """An interval, a crontab expression or off, as it was written."""
    if value == "off":
        return value
    try:
        duration(value)
    except ValueError:
        from esid import crontab  # nobody waits for APScheduler who has no crontab expression

        try:
            cron = crontab.trigger(value)
        except ValueError:
            raise ValueError("an interval like 10m, a crontab expression like `17 * * * *`, or off") from None
        if _is_always_in_downtime(cron):
            raise ValueError("a time outside of ESI's downtime, 11:00 to 11:15 UTC, when nothing is asked") from None
    return value


def _is_always_in_downtime(cron: Any) -> bool:
    """True for a crontab expression none of whose next times could be used (see `plan`)."""
    time = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for _ in range(20):
        time = cron.get_next_fire_time(None, time + dt.timedelta(seconds=1))
        if time is None or time.hour != 11 or time.minute >= 15:
            return False
    return True


def actors(value: str) -> str:
    """A list of lanes like `alliance,corporation`, checked and in lower case; empty means those that work by default."""
    names = [entity(name.strip().lower()) for name in value.split(",") if name.strip()]
    for name in names:
        if name not in NAMES and name != "all":
            raise ValueError(f"a list of {', '.join(NAMES)}{nearest(name, NAMES)}")
    if "all" in names:
        names = [] if all(lane.by_default for lane in LANES) else list(NAMES)
    return ",".join(dict.fromkeys(names))


def listen(value: str) -> str:
    """An address and a port, or off."""
    if value == "off":
        return value
    host, _, port = value.rpartition(":")
    if host == "localhost":
        host, value = "127.0.0.1", f"127.0.0.1:{port}"
    try:
        ipaddress.ip_address(host.strip("[]"))
        integer(0, 65535)(port)
    except ValueError:
        raise ValueError("an address like 127.0.0.1:8580, or off") from None
    return value


def prefix(value: str) -> str:
    """A part of a name."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value, re.ASCII):
        raise ValueError("1 to 40 letters, digits, dots, dashes or underscores")
    return value


def contact(value: str) -> str:
    """A mail address or a URL that an HTTP header can carry; or nothing."""
    form = r"([^\s@;()]+@[^\s@;()]+\.[^\s@;()]+|https?://[^\s;()]+)?"
    if not re.fullmatch(form, value) or not value.isascii() or not value.isprintable():
        raise ValueError("a mail address or a URL, in ASCII")
    return value


def is_example(contact: str) -> bool:
    """True for a mail address or URL in a domain that belongs to nobody (RFC 2606)."""
    domain = (urlsplit(contact).hostname or "") if "://" in contact else contact.rpartition("@")[2].lower()
    return bool(re.search(r"(^|\.)(example\.(com|org|net)|[^.]+\.(example|invalid|test))$", domain))


def nearest(name: str, known: tuple[str, ...] | list[str], likeness: float = 0.6) -> str:
    """The end of an error message: `; did you mean X?`, or nothing where no name is as like, from 0 to 1."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=likeness)
    return f"; did you mean {found[0]}?" if found else ""
