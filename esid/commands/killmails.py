"""`esid import`, `esid heal`: killmails from outside of ESI."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from esid import log, render, typed
from esid.clock import Stop
from esid.commands import killreport
from esid.commands.terminal import print_json, print_lines
from esid.commands.waiting import Bar
from esid.daemon import parts, sources
from esid.errors import EsidError, UsageError
from esid.feeds import importing
from esid.feeds.archives import HASHES, SOURCES, Folder
from esid.feeds.importing import Unit
from esid.settings import Settings
from esid.typed import IMPORT_SOURCES


def import_(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid import`: its exit code."""
    if options.what == "killreport":
        return killreport.import_(options, chosen)
    if options.from_url:
        raise UsageError("--from-url names the database of a killreport: `esid import killreport --from-url …`")
    source = options.source or IMPORT_SOURCES[0]
    first, last = (
        typed.day(f"--{name}", text) if text is not None else None
        for name, text in (("from", options.first), ("to", options.last))
    )
    processes = typed.count("--processes", options.processes, 64) if options.processes else os.cpu_count() or 1
    folder = Folder(Path(options.dir)) if options.dir else None
    days = sources.days_to_import(source, first, last, folder)
    if folder is None:
        sources.check_sources(chosen, source)
    log.set_up("WARNING", chosen.esid_log_format)
    parts.wait_for_file(chosen)
    store = parts.set_up_store(chosen)
    expected = sources.expected_killmails(chosen, source, days, folder)
    bar, reports = Bar(expected), list[Any]()
    lines: Callable[[Any], Iterable[str]] = render.healed if source == HASHES else render.day_report

    def on_day(report: Any) -> None:
        reports.append(report)
        bar.clear()
        if not options.json:
            print_lines(lines(report))

    if source == HASHES:
        sources.ask_days(chosen, store, days, folder, on_day)
        store.close()
    else:
        # No connection may cross the fork into the processes that import.
        store.close()
        units = [Unit(source, day, options.again) for day in days]
        try:
            importing.run(sources.import_parts(chosen, folder), units, processes, bar.advance, on_day)
            bar.end(is_whole=all(report.is_whole for report in reports))
        finally:
            bar.leave()
            with suppress(EsidError):
                parts.put_away(chosen)
    if options.json:
        print_json([report.as_dict() for report in sorted(reports, key=lambda report: report.day)])
    elif source != HASHES:
        print(render.import_summary(reports, bar.rate))
    return int(not all(report.is_whole for report in reports))


def heal(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid heal`: its exit code."""
    since = typed.first_day(options.since) if options.since is not None else None
    sources.check_sources(chosen, *SOURCES)
    log.set_up("WARNING", chosen.esid_log_format)
    store = parts.ready_store(chosen)
    bar = Bar(None)
    healer = sources.open_healer(chosen, store, parts.open_requests(chosen, store), Stop(), progress=bar.advance)

    def on_day(healed: Any) -> None:
        bar.clear()
        if not options.json:
            print_lines(render.healed(healed))

    try:
        days = healer.run(since, on_day)
    finally:
        bar.leave()
        healer.close()
    if options.json:
        print_json([day.as_dict() for day in days])
    elif not days:
        print("no day lacks a killmail")
    store.close()
    return int(any(day.missing for day in days))
