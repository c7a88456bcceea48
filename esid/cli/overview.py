"""Text for people: the lines of `esid status`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from esid.cli.render import timetable
from esid.clock import span
from esid.words import called, counted

#: Columns of a terminal as it comes.
WIDTH = 80


def lines(state: dict[str, Any], width: int | None = None) -> Iterator[str]:
    """Everything that `esid status` knows, what matters most first; lines no longer than `width`, where there is one, as far
    as they are tables."""
    yield f"esid {state['version']} on {state['database']}"
    yield f"daemon      {'running, ' + state['daemon'] if state['daemon'] else 'not running here'}"
    yield from _verdicts(state)
    if found := {what: count for what, count in state.get("audit", {}).items() if count}:
        yield "mended      " + ", ".join(f"{count:,} x {what}" for what, count in found.items())
    if state["restarts"]:
        yield "restarts    " + ", ".join(f"{count:,} x {kind}" for kind, count in state["restarts"].items())
    yield from _ledger(state["ledger"], state["oldest_open_s"])
    yield from _throughput(state["throughput"])
    yield ""
    yield from _limits(state["limits"])
    yield from _queues(state["queues"])
    yield from _counts("Dead letters (esid dead list)", state["dead_letters"], "reason")
    yield from _counts("Dead letters that were forgotten, as there were too many", state["dead_letters_forgotten"], "reason")
    yield from _processes(state["processes"], width)
    yield from _freshness(state["freshness"])
    yield ""
    yield "Schedule (esid schedule)"
    yield from ("  " + line for line in timetable(state["schedule"], width - 2 if width else None))
    yield from _killmails(state["feeds"], state["killmail_days"])
    yield from _counts("Fields of ESI that this release does not know", state["unknown_fields"], "field")


def _verdicts(state: dict[str, Any]) -> Iterator[str]:
    words = [line for one in state["trouble"] for line in textwrap.wrap(one, WIDTH - 12)]
    for place, line in enumerate(words):
        yield f"{'' if place else 'attention':<12}{line}"


def _ledger(ledger: dict[str, dict[str, int]], oldest_open_s: dict[str, float]) -> Iterator[str]:
    yield ""
    statuses = next(iter(ledger.values()))
    yield f"{'Ledger':<24}" + "".join(f"{name:>11}" for name in statuses) + f"{'oldest open':>12}"
    for name, by_status in ledger.items():
        oldest = oldest_open_s.get(name)
        cells = "".join(f"{by_status[one]:>11,}" for one in statuses)
        yield f"  {called(name):<22}{cells}{span(oldest) if oldest is not None else '-':>12}"


def _queues(queues: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "Queues" if queues["reachable"] else f"Queues      away: {queues['error']}"
    for name, pending in queues["pending"].items():
        yield f"  {name:<24}{pending:>12,} pending"


def _freshness(freshness: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'Freshness':<26}{'known':>12}{'not due':>12}{'share':>12}{'oldest data':>14}"
    for name, one in freshness.items():
        share = "-" if one["share"] is None else f"{100 * one['share']:.1f} %"
        oldest = "-" if one["oldest_s"] is None else span(one["oldest_s"])
        yield f"  {called(name):<24}{one['known']:>12,}{one['fresh']:>12,}{share:>12}{oldest:>14}"


def _throughput(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'Throughput':<26}" + "".join(f"{'last ' + str(row['minutes']) + ' min':>14}" for row in rows)
    for key, words in (
        ("ids_per_s", "ids a second"),
        ("failed_per_s", "failed a second"),
        ("requests_per_s", "requests a second"),
    ):
        yield f"  {words:<24}" + "".join(f"{'-' if row[key] is None else format(row[key], '.2f'):>14}" for row in rows)


def _processes(living: Sequence[dict[str, Any]], width: int | None) -> Iterator[str]:
    yield ""
    yield "Processes" if living else "Processes   none was heard of in the last 30 s"
    names = {one["name"]: ":".join(one["name"].split(":")[:2]) for one in living}
    widest = max(map(len, names.values()), default=0)
    for one in living:
        line = f"  {one['kind']:<12}{names[one['name']]:<{widest}}  up {span(one['up_s']):<12}"
        works = [f"{called(work['entity'])} {work['id']}{_more(work)}" for work in one["doing"]]
        doing = _listing(works, width - len(line) if width else None)
        yield f"{line}{doing or ('idle' if one['kind'] == 'worker' else '')}".rstrip()


def _listing(items: Sequence[str], room: int | None) -> str:
    """As many of them as fit, four at most, and how many there are more."""
    for count in range(min(4, len(items)), 0, -1):
        rest = [f"{len(items) - count} more"] if len(items) > count else []
        words = ", ".join([*items[:count], *rest])
        if room is None or len(words) <= room:
            return words
    return f"{counted(len(items), 'message')} in hand" if items else ""


def _more(work: dict[str, Any]) -> str:
    more = f" and {work['ids'] - 1} more" if work["ids"] > 1 else ""
    return f"{more} for {span(work['for_s'])}"


def _limits(limits: dict[str, Any]) -> Iterator[str]:
    reset = f", resets in {limits['error_reset_s']:.0f} s" if limits["error_reset_s"] else ""
    sent = max(1, limits["requests"])
    outcomes = f"({limits['errors']:,} errors, {100 * limits['not_modified'] // sent} % were 304)"
    pace = f" of {limits['max_rps']:g}" if limits["max_rps"] else ""
    divided = f"shared with {limits['members'] - 1} more" if limits["members"] > 1 else ""
    yield f"Rate limit{'':16}{divided}".rstrip()
    reserve = f"of {limits['error_limit']} (reserve {limits['error_reserve']}{reset})"
    yield f"  error limit remaining   {limits['error_remain']:>10} {reserve}"
    yield f"  requests waiting        {limits['waiting']:>10}"
    yield f"  requests in flight      {limits['in_flight']:>10} of {limits['max_in_flight']}"
    yield f"  requests a second       {limits['rps']:>10}{pace} (last minute)"
    yield f"  requests sent           {limits['requests']:>10,} {outcomes}"
    yield from _breaker(limits["breaker"])
    if limits["paused_s"]:
        yield f"  paused by ESI (420)     {limits['paused_s']:>10} s more"
    for bucket in limits["buckets"]:
        is_open = f" in {bucket['window_s']} s (reserve {bucket['reserve']})"
        closed = f", closed for {bucket['closed_s']} s" if bucket["closed_s"] else is_open
        waiting = f", {bucket['waiting']} waiting" if bucket["waiting"] else ""
        yield f"  bucket {bucket['group']:<18} {bucket['available']:>8,} of {bucket['limit']:,}{closed}{waiting}"


def _breaker(breaker: dict[str, Any]) -> Iterator[str]:
    words = {
        "closed": "ESI answers",
        "open": "ESI is away",
        "vip": "ESI is there for CCP's staff only",
        "probing": "ESI answers /status again",
    }[breaker["state"]]
    since = f" for {span(breaker['open_s'])}, and probed" if breaker["open_s"] else ""
    yield f"  breaker                 {breaker['state']:>10} ({words}{since})"
    for path in breaker["routes"]:
        yield f"  route away              {path:>10}"


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
        yield f"  {called(row['entity'] or '(message)'):<24}{row['count']:>12,} {row[what]}"
