"""Log lines: one event a line, name first, then the words for a person, then fields.

Called by everything that has something to say; prints nothing that `hide` was told about.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from esid import clock, log_outage
from esid.log_outage import Known
from esid.log_rate import Rate
from esid.stderr import Stderr

# A command that sets up no log says what is wrong once, at its end; Python would print the names of events.
logging.getLogger("esid").addHandler(logging.NullHandler())

_secrets: set[str] = set()
_outages: dict[str, Outage] = {}

#: Seconds without a failure after which a fault that only some met is over: a little more than the longest wait of those
#: who try again.
QUIET_S = 35.0
#: Seconds after the end of an outage in which other processes of a daemon may still meet it, and those after which one that
#: no process meets any more is over, whoever was to say so.
LATE_S, FORGOTTEN_S = 5.0, 120.0
#: Other people's loggers and the level from which they are of interest here.
_FOREIGN_LEVELS = {
    "dramatiq": logging.CRITICAL + 1,
    "pika": logging.CRITICAL + 1,
    # It warns each second of a job that is not run because it still runs: an outage is said once, by `outage`.
    "apscheduler": logging.ERROR,
    "urllib3": logging.ERROR,
    "peewee": logging.WARNING,
}


def hide(*secrets: str) -> None:
    """From now on print `***` in the place of each of these texts.

    One of less than 4 characters would stand in every other word and give itself away by what is missing.
    """
    for secret in secrets:
        if len(secret) >= 4:
            _secrets.update({secret, json.dumps(secret, ensure_ascii=False)[1:-1]})


#: Characters that make a terminal do something, or a line look like another one, and their escapes (which JSON reads, too).
_UNPRINTABLE = {
    code: f"\\u{code:04x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def printable(text: str) -> str:
    """The text as it may be printed whoever wrote it: without any control character but tabs and ends of lines."""
    return text.translate(_UNPRINTABLE)


def redacted(text: str) -> str:
    """The text with every hidden secret replaced."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


def get(name: str) -> logging.Logger:
    """The logger of one station, named `esid.NAME`."""
    return logging.getLogger(f"esid.{name}")


def event(logger: logging.Logger, name: str, words: str = "", *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event.

    Args:
        name: `station.what`, the stable key to search for.
        words: what a person wants to read; may be empty where the fields say it.
        fields: values; floats are printed with three significant digits.
    """
    logger.log(level, "%s", name, extra={"esid_words": words, "esid_fields": fields})


class Outage:
    """Says once that something is away, and once that it is back: once for all processes that share `known`. The others say
    it at DEBUG."""

    def __init__(self, logger: logging.Logger, name: str, known: Known | None = None) -> None:
        self._logger, self._name, self._known = logger, name, known or Known()
        self._is_down = False
        self._words = ""

    @property
    def words(self) -> str:
        """What this process was told when it went away; "" = it is there."""
        return self._words

    @property
    def lasts(self) -> bool:
        """Whether any process of the daemon has said that it is away, and still meets that."""
        return self._known.since > 0 and clock.monotonic() - self._known.failed_at < FORGOTTEN_S

    def down(self, error: object) -> None:
        """It is away; only the first call in a row logs."""
        known, now = self._known, clock.monotonic()
        with known.locked():
            # What a process has told that died of it is told anew.
            lasts = known.since > 0 and (self._is_down or now - known.failed_at < FORGOTTEN_S)
            # Who is late met the end of an outage that is over for the others. If it is not, it is met again.
            is_said = lasts or (known.is_shared and 0 < known.back_at > now - LATE_S)
            known.fail(now, is_partial=getattr(error, "is_partial", False))
            if not is_said:
                known.begin(now)
            elif self._is_down:
                return
            if not self._is_down:
                self._is_down, self._words = True, str(error)
        level = logging.DEBUG if is_said else logging.ERROR
        event(self._logger, f"{self._name}.away", f"{error}; work waits", level=level)

    def up(self) -> None:
        """It has done its work (of a database: a write was committed); logs when it was away before.

        Where a part of it may work while another does not, it is back when nobody has met the fault for `QUIET_S`.
        """
        if not self._is_down:
            return
        known = self._known
        with known.locked():
            now, since = clock.monotonic(), known.since
            if not self._is_down or (known.is_partial and now - known.failed_at < QUIET_S):
                return
            self._is_down, self._words = False, ""
            if since:
                known.end(now)
        level, away_s = (logging.INFO, round(now - since, 1)) if since else (logging.DEBUG, None)
        event(self._logger, f"{self._name}.back", "it answers again, work goes on", level=level, away_s=away_s)


def outage(thing: str) -> Outage:
    """The one `Outage` of this process for `database`, `rabbitmq`, `queue` (another installation has ours),
    `consumer` (a right is missing) or `sharing`."""
    return _outages.setdefault(thing, Outage(get("daemon"), thing))


def share_outages() -> None:
    """From now on this process and those that are forked from it tell of an outage once among them."""
    names = ("database", "rabbitmq", "queue", "consumer", "sharing")
    _outages.update({name: Outage(get("daemon"), name, known) for name, known in log_outage.shared(names).items()})


def set_up(level: str, style: str, *, journal: bool = False) -> None:
    """Send everything to standard error in one style, so many lines of an event a minute.

    Args:
        level: DEBUG, INFO, WARNING or ERROR. With DEBUG nothing is left out.
        style: "text" or "json".
        journal: systemd's journal reads it: lines begin with their priority, and it adds the time itself.
    """
    handler = logging.StreamHandler(Stderr())
    formatter = _JsonFormatter() if style == "json" else _TextFormatter()
    handler.setFormatter(_JournalFormatter(formatter) if journal else formatter)
    if level != "DEBUG":
        handler.addFilter(Rate())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, foreign in _FOREIGN_LEVELS.items():
        logging.getLogger(name).setLevel(max(foreign, root.level))


def _value(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n\r\t') else text


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "esid_fields", {})
        words = getattr(record, "esid_words", "")
        parts = [clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"), record.levelname, record.getMessage()]
        if words:
            parts.append(" " + words)
        parts += [f"{name}={_value(value)}" for name, value in fields.items() if value is not None]
        text = " ".join(parts).replace("\n", "\\n")
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return printable(redacted(text))


class _JournalFormatter(logging.Formatter):
    """Puts `<6>` and the like before each line (sd-daemon(3)); the time of a text line is the journal's."""

    _PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        text = self._inner.format(record)
        if isinstance(self._inner, _TextFormatter):
            text = text.partition(" ")[2]
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": clock.now().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if words := getattr(record, "esid_words", ""):
            line["words"] = words
        line.update(getattr(record, "esid_fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return printable(redacted(json.dumps(line, ensure_ascii=False, default=str)))
