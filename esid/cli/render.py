"""Text for people: the lines that commands print (`esid status`: see `overview`). Prints nothing itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from esid import clock
from esid.clock import span
from esid.words import counted

if TYPE_CHECKING:  # what is shown is made elsewhere, by more than it takes to show it
    from esid.feeds.day import Report
    from esid.feeds.heal import Healed
    from esid.feeds.killreport import Copied
    from esid.store.dead_letters import DeadLetter
    from esid.store.ledger import Accepted

BAR_WIDTH = 30
#: Characters, the least that a last column of words is cut to.
LEAST_CELL = 20


def accepted(entity: str, what: Accepted) -> str:
    """What became of ids that were asked for."""
    words = [f"{len(what.queued):,} queued"]
    if what.pending:
        words.append(f"{len(what.pending):,} already pending")
    if what.fresh:
        words.append(f"{len(what.fresh):,} still fresh (ESI's cache time is not over)")
    return f"{entity}: " + ", ".join(words)


def taken(count: int, different: int) -> str:
    """What standard input held."""
    words = f"{counted(count, 'id')} taken from standard input"
    return words if different == count else f"{words}, {different:,} different"


def bar(done: int, known: int, rate: float) -> str:
    """A progress bar with rate (ids a second) and time left."""
    filled, percent = (whole * done // max(1, known) for whole in (BAR_WIDTH, 100))
    ends = f"  {rate:.0f}/s  {span((known - done) / rate)} left" if rate > 0.1 else ""
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {percent:>3} %  {done:,} of {known:,}{ends}"


def killmail_bar(done: int, expected: int | None, rate: float, unit: str = "killmails", *, is_end: bool = False) -> str:
    """The same for killmails, or what `unit` says.

    Args:
        expected: about how many there will be; None where nobody knows.
        is_end: these were all, whatever was expected. Before, it is never the whole.
    """
    if expected is None:
        return f"{counted(done, unit.removesuffix('s'), unit)}  {rate:.0f}/s"
    known = done if is_end else max(done + 1, expected)
    return bar(done, known, rate).replace("/s", f" {unit}/s")


def day_report(report: Report) -> Iterator[str]:
    """What became of one day of an import."""
    if report.absent:
        yield f"{report.day}  {_no_archive(report.day)}: {report.error}"
        return
    words = [counted(report.killmails, "killmail"), f"{report.new:,} new"]
    words += [f"{report.repaired:,} written anew"] if report.repaired else []
    words += [f"{counted(report.refused, 'member')} refused"] if report.refused else []
    yield f"{report.day}  " + ("read before" if report.skipped else ", ".join(words))
    if report.error:
        yield f"{report.day}  not read to its end: {report.error}"
    yield from (f"{report.day}  refused {one}" for one in report.named)


def _no_archive(day: dt.date) -> str:
    age = (clock.now().date() - day).days
    if age < 1:
        return "no archive so far, the day has not ended yet"
    return "no archive so far (it may come up to two days later)" if age < 3 else "there is no archive of this day"


def import_summary(reports: Sequence[Report], rate: float) -> str:
    """One line for a whole import."""
    killmails, new = sum(one.killmails for one in reports), sum(one.new for one in reports)
    ends = f", {rate:,.0f} killmails/s" if killmails else ""
    return f"{counted(len(reports), 'day')}: {counted(killmails, 'killmail')}, {new:,} new{ends}"


def taken_over(one: Copied) -> str:
    """What became of one table of another program."""
    words = [f"{one.read:,} read", f"{one.new:,} new"]
    words += [f"{one.newer:,} newer than ours"] if one.newer else []
    words += [f"{one.kept:,} here already"] if one.kept else []
    words += [f"{one.asked:,} incomplete, ESI is asked"] if one.asked else []
    words += [f"{one.left_out:,} left out"] if one.left_out else []
    words += [f"gone on after id {one.after}"] if one.after else []
    return "\n".join([f"{one.table:<13} " + ", ".join(words), *(f"{'':<13} left out {which}" for which in one.named)])


def healed(one: Healed) -> Iterator[str]:
    """What became of one day of healing."""
    words = [f"have {one.have:,} of {one.expected:,}", f"{one.fetched:,} fetched from archives"]
    words += [f"{one.asked:,} asked of ESI"] if one.asked else []
    words += [f"{one.missing:,} still missing"] if one.missing else []
    yield f"{one.day}  " + ", ".join(words)
    yield from (f"{one.day}  {error}" for error in one.errors)


def timetable(jobs: Sequence[dict[str, Any]], width: int | None = None) -> Iterator[str]:
    """The schedule as a table, of lines no longer than `width`; times in UTC."""
    rows = [
        (
            job["name"], job["schedule"], _minute(job["last_run"]), job["last_result"] or "-",
            "-" if job["last_duration_s"] is None else f"{job['last_duration_s']:.1f} s", _minute(job["next_run"]),
            job["last_words"] or "",
        )
        for job in jobs
    ]  # fmt: skip
    head = ("job", "schedule", "last run", "result", "took", "next run", "what it did")
    yield from table(head, rows, width, ("took", "what it did"))


def _minute(text: str | None) -> str:
    return text[:16].replace("T", " ") if text else "-"


def letters(found: Sequence[DeadLetter], width: int | None = None) -> Iterator[str]:
    """Dead letters as a table, of lines no longer than `width`."""
    if not found:
        yield "no dead letters"
        return
    rows = [
        (
            str(one.id), f"{one.last_at:%Y-%m-%d %H:%M}", one.entity_type or "-", _cell(one.entity_id), one.reason,
            str(one.attempts), f"{one.count:,}", f"{one.again_at:%Y-%m-%d %H:%M}" if one.again_at else "-", one.message[:70],
        )
        for one in found
    ]  # fmt: skip
    head = ("number", "last", "entity", "id", "reason", "attempts", "count", "asked again", "message")
    yield from table(head, rows, width, ("count", "attempts", "asked again", "last"))


def no_such_letters(others: Sequence[tuple[str | None, str, int]]) -> Iterator[str]:
    """What a filter passes over: (entity, reason, how many)."""
    if not others:
        yield from letters(())
        return
    yield "no such dead letters; there are:"
    yield from table(("number", "entity", "reason"), [(f"{count:,}", entity or "-", why) for entity, why, count in others])


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def letter(one: DeadLetter) -> Iterator[str]:
    """One dead letter in full."""
    told = {name: None if value == "" else value for name, value in dataclasses.asdict(one).items()}
    yield from fields(f"dead letter {one.id}", told)


def in_force(rows: Sequence[tuple[str, str, str, str]], width: int | None = None) -> Iterator[str]:
    """Settings, each with value, origin and unit. No value is cut short: where lines would be longer than `width`, the unit
    goes, and the value comes last and goes on in the lines below."""
    lines = list(table(("setting", "value", "from", "unit"), rows))
    if width is None or max(map(len, lines)) <= width:
        yield from lines
        return
    begin = _length([max(len(row[place]) for row in (("setting", "", "from"), *rows)) for place in (0, 2)]) + 2
    room, cells = max(LEAST_CELL, width - begin), list[tuple[str, str, str]]()
    for name, value, origin, _ in rows:
        first, *more = [value[start : start + room] for start in range(0, len(value), room)] or [""]
        cells += [(name, origin, first), *(("", "", part) for part in more)]
    yield from table(("setting", "from", "value"), cells)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, spare: Sequence[str] = ()
) -> Iterator[str]:
    """Columns as wide as they have to be.

    Args:
        width: how long a line may be; None = as long as it is.
        spare: columns that are left out, one after the other, where lines would be longer, before the last one is cut short.
    """
    all_rows = [head, *rows]
    widths = {name: max(len(row[place]) for row in all_rows) for place, name in enumerate(head)}
    shown = list(head)
    for name in spare if width is not None else ():
        if _length([*(widths[one] for one in shown[:-1]), min(widths[shown[-1]], LEAST_CELL)]) > (width or 0):
            shown.remove(name)
    places = [head.index(name) for name in shown]
    for row in all_rows:
        yield "  ".join(row[place].ljust(widths[head[place]]) for place in places).rstrip()[:width]


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def fields(title: str, values: dict[str, Any]) -> Iterator[str]:
    """A title and its values, one a line."""
    yield title
    for name, value in values.items():
        yield f"  {name:<24}{'-' if value is None else value}"
