"""Text for people: the lines that `esid status`, `dead`, `show` and `config` print. Prints nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from esid.clock import span

if TYPE_CHECKING:  # what is shown is made elsewhere, by more than it takes to show it
    from esid.feeds.day import Report
    from esid.feeds.heal import Healed
    from esid.store.dead_letters import DeadLetter
    from esid.store.ledger import Accepted

BAR_WIDTH = 30


def accepted(entity: str, what: Accepted) -> str:
    """What became of ids that were asked for."""
    words = [f"{len(what.queued):,} queued"]
    if what.pending:
        words.append(f"{len(what.pending):,} already pending")
    if what.fresh:
        words.append(f"{len(what.fresh):,} still fresh (ESI's cache time is not over)")
    return f"{entity}: " + ", ".join(words)


def bar(done: int, known: int, rate: float) -> str:
    """A progress bar with rate (ids a second) and time left."""
    filled = BAR_WIDTH * done // max(1, known)
    ends = f"  {rate:.0f}/s  {span((known - done) / rate)} left" if rate > 0.1 else ""
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done:,} of {known:,}{ends}"


def killmail_bar(done: int, expected: int | None, rate: float) -> str:
    """The same for killmails; `expected` is None where nobody knows how many there will be."""
    if expected is None:
        return f"{done:,} killmails  {rate:.0f}/s"
    known = max(done, expected)
    return bar(done, known, rate).replace("/s", " killmails/s")


def day_report(report: Report) -> Iterator[str]:
    """What became of one day of an import."""
    words = [f"{report.killmails:,} killmails", f"{report.new:,} new"]
    words += [f"{report.repaired:,} written anew"] if report.repaired else []
    words += [f"{report.refused:,} members refused"] if report.refused else []
    yield f"{report.day}  " + ("read before" if report.skipped else ", ".join(words))
    if report.error:
        yield f"{report.day}  not read to its end: {report.error}"
    yield from (f"{report.day}  refused {one}" for one in report.named)


def import_summary(reports: Sequence[Report], rate: float) -> str:
    """One line for a whole import."""
    killmails, new = sum(one.killmails for one in reports), sum(one.new for one in reports)
    ends = f", {rate:,.0f} killmails/s" if killmails else ""
    return f"{len(reports):,} days: {killmails:,} killmails, {new:,} new{ends}"


def healed(one: Healed) -> Iterator[str]:
    """What became of one day of healing."""
    words = [f"have {one.have:,} of {one.expected:,}", f"{one.fetched:,} fetched from archives"]
    words += [f"{one.asked:,} asked of ESI"] if one.asked else []
    words += [f"{one.missing:,} still missing"] if one.missing else []
    yield f"{one.day}  " + ", ".join(words)
    yield from (f"{one.day}  {error}" for error in one.errors)


def status(state: dict[str, Any]) -> Iterator[str]:
    """Everything that `esid status` knows."""
    queues = state["queues"]
    yield f"esid {state['version']} on {state['database']}"
    yield f"daemon      {'running, ' + state['daemon'] if state['daemon'] else 'not running here'}"
    if state["restarts"]:
        yield "restarts    " + ", ".join(f"{count:,} x {kind}" for kind, count in state["restarts"].items())
    yield ""
    yield "Queues" if queues["reachable"] else f"Queues      away: {queues['error']}"
    for name, pending in queues["pending"].items():
        yield f"  {name:<24}{pending:>12,} pending"
    yield ""
    yield from _limits(state["limits"])
    yield ""
    statuses = next(iter(state["ledger"].values()))
    yield f"{'Ledger':<26}" + "".join(f"{name:>12}" for name in statuses) + f"{'oldest open':>14}"
    for name, by_status in state["ledger"].items():
        oldest = state["oldest_open_s"].get(name)
        cells = "".join(f"{by_status[one]:>12,}" for one in statuses)
        yield f"  {name:<24}{cells}{span(oldest) if oldest is not None else '-':>14}"
    yield from _freshness(state["freshness"])
    yield from _throughput(state["throughput"])
    yield from _processes(state["processes"])
    yield ""
    yield "Schedule (esid schedule)"
    yield from ("  " + line for line in timetable(state["schedule"]))
    yield from _killmails(state["feeds"], state["killmail_days"])
    yield from _counts("Dead letters (esid dead list)", state["dead_letters"], "reason")
    yield from _counts("Fields of ESI that this release does not know", state["unknown_fields"], "field")


def _freshness(freshness: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'Freshness':<26}{'known':>12}{'not due':>12}{'share':>12}{'oldest look':>14}"
    for name, one in freshness.items():
        share = "-" if one["share"] is None else f"{100 * one['share']:.1f} %"
        oldest = "-" if one["oldest_s"] is None else span(one["oldest_s"])
        yield f"  {name:<24}{one['known']:>12,}{one['fresh']:>12,}{share:>12}{oldest:>14}"


def _throughput(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'Throughput':<26}" + "".join(f"{'last ' + str(row['minutes']) + ' min':>14}" for row in rows)
    for key, words in (
        ("ids_per_s", "ids a second"),
        ("failed_per_s", "failed a second"),
        ("requests_per_s", "requests a second"),
    ):
        yield f"  {words:<24}" + "".join(f"{'-' if row[key] is None else format(row[key], '.2f'):>14}" for row in rows)


def _processes(living: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield "Processes" if living else "Processes   none was heard of in the last 30 s"
    for one in living:
        works = [f"{work['entity']} {work['id']}{_more(work)}" for work in one["doing"]]
        rest = [f"{len(works) - 4} more"] if len(works) > 4 else []
        doing = ", ".join(works[:4] + rest) or ("idle" if one["kind"] == "worker" else "")
        yield f"  {one['kind']:<12}{one['name']:<32}up {span(one['up_s']):<12}{doing}".rstrip()


def _more(work: dict[str, Any]) -> str:
    more = f" and {work['ids'] - 1} more" if work["ids"] > 1 else ""
    return f"{more} for {span(work['for_s'])}"


def timetable(jobs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The schedule as a table; times in UTC."""
    rows = [
        (
            job["name"], job["schedule"], _minute(job["last_run"]), job["last_result"] or "-",
            "-" if job["last_duration_s"] is None else f"{job['last_duration_s']:.1f} s", _minute(job["next_run"]),
            job["last_words"] or "",
        )
        for job in jobs
    ]  # fmt: skip
    yield from table(("job", "schedule", "last run", "result", "took", "next run", "what it did"), rows)


def _minute(text: str | None) -> str:
    return text[:16].replace("T", " ") if text else "-"


def letters(found: Sequence[DeadLetter]) -> Iterator[str]:
    """Dead letters as a table."""
    if not found:
        yield "no dead letters"
        return
    rows = [
        (
            str(one.id), f"{one.last_at:%Y-%m-%d %H:%M}", one.entity_type or "-", str(one.entity_id or "-"), one.reason,
            str(one.attempts), one.message[:70],
        )
        for one in found
    ]  # fmt: skip
    yield from table(("number", "last", "entity", "id", "reason", "attempts", "message"), rows)


def no_such_letters(others: Sequence[tuple[str | None, str, int]]) -> Iterator[str]:
    """What a filter passes over: (entity, reason, how many)."""
    if not others:
        yield from letters(())
        return
    yield "no such dead letters; there are:"
    yield from table(("number", "entity", "reason"), [(f"{count:,}", entity or "-", why) for entity, why, count in others])


def letter(one: DeadLetter) -> Iterator[str]:
    """One dead letter in full."""
    yield from fields(f"dead letter {one.id}", dataclasses.asdict(one))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they have to be."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def fields(title: str, values: dict[str, Any]) -> Iterator[str]:
    """A title and its values, one a line."""
    yield title
    for name, value in values.items():
        yield f"  {name:<24}{'-' if value is None else value}"


def _limits(limits: dict[str, Any]) -> Iterator[str]:
    reset = f", resets in {limits['error_reset_s']:.0f} s" if limits["error_reset_s"] else ""
    sent = max(1, limits["requests"])
    outcomes = f"({limits['errors']:,} errors, {100 * limits['not_modified'] // sent} % were 304)"
    pace = f" of {limits['max_rps']:g}" if limits["max_rps"] else ""
    divided = f"shared with {limits['members'] - 1} more" if limits["members"] > 1 else ""
    yield f"Rate limit{'':16}{divided}".rstrip()
    reserve = f"of {limits['error_limit']} (reserve {limits['error_reserve']}{reset})"
    yield f"  error limit remaining   {limits['error_remain']:>12} {reserve}"
    yield f"  requests waiting        {limits['waiting']:>12}"
    yield f"  requests in flight      {limits['in_flight']:>12} of {limits['max_in_flight']}"
    yield f"  requests a second       {limits['rps']:>12}{pace} (last minute)"
    yield f"  requests sent           {limits['requests']:>12,} {outcomes}"
    yield from _breaker(limits["breaker"])
    if limits["paused_s"]:
        yield f"  paused by ESI (420)     {limits['paused_s']:>12} s more"
    for bucket in limits["buckets"]:
        closed = f", closed for {bucket['closed_s']} s" if bucket["closed_s"] else ""
        waiting = f", {bucket['waiting']} waiting" if bucket["waiting"] else ""
        words = f"of {bucket['limit']:,} in {bucket['window_s']} s (reserve {bucket['reserve']}){waiting}{closed}"
        yield f"  bucket {bucket['group']:<16} {bucket['available']:>12,} {words}"


def _breaker(breaker: dict[str, Any]) -> Iterator[str]:
    words = {
        "closed": "ESI answers",
        "open": "ESI is away",
        "vip": "ESI is there for CCP's staff only",
        "probing": "ESI answers /status again",
    }[breaker["state"]]
    since = f" for {span(breaker['open_s'])}, one probe every 5 s" if breaker["open_s"] else ""
    yield f"  breaker                 {breaker['state']:>12} ({words}{since})"
    for path in breaker["routes"]:
        yield f"  route away              {path:>12}"


def _killmails(feeds: Sequence[dict[str, Any]], by_day: Sequence[dict[str, Any]]) -> Iterator[str]:
    for feed in feeds:
        moved = "never read" if feed["moved_s"] is None else f"moved {span(feed['moved_s'])} ago"
        reader = f"read by {feed['reader']}" if feed["reader"] else "read by nobody"
        yield ""
        yield f"Feed {feed['name']:<20} at {feed['position'] or '-'}, {moved}, {reader}"
    if by_day:
        yield ""
        yield f"{'Killmails by day':<26}{'have':>12}{'expected':>12}{'missing':>12}"
    for day in by_day:
        cells = ("-" if day[name] is None else f"{day[name]:,}" for name in ("have", "expected", "missing"))
        yield f"  {day['day']:<24}" + "".join(f"{cell:>12}" for cell in cells)


def _counts(title: str, rows: Sequence[dict[str, Any]], what: str) -> Iterator[str]:
    if rows:
        yield ""
        yield title
    for row in rows:
        yield f"  {row['entity'] or '(message)':<24}{row['count']:>12,} {row[what]}"
