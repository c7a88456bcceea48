"""`esid import`: killmails of whole days, and the rows of a killreport."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from esid import log
from esid.assembly import core, killmails
from esid.cli import render, typed
from esid.cli.commands import import_killreport
from esid.cli.printing import print_json, print_lines
from esid.cli.progress_bar import Bar
from esid.cli.typed import IMPORT_SOURCES
from esid.errors import EsidError, UsageError
from esid.feeds import importing
from esid.feeds.archives import HASHES, Folder
from esid.feeds.importing import Unit
from esid.settings import Settings


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid import`: its exit code."""
    if options.what == "killreport":
        return import_killreport.run(options, chosen)
    _check_options(options)
    source = options.source or IMPORT_SOURCES[0]
    first, last = (
        typed.day(f"--{name}", text) if text is not None else None
        for name, text in (("from", options.first), ("to", options.last))
    )
    processes = typed.count("--processes", options.processes, 64) if options.processes else os.cpu_count() or 1
    folder = Folder(Path(options.dir)) if options.dir else None
    days = killmails.days_to_import(source, first, last, folder)
    if folder is None:
        killmails.check_sources(chosen, source)
    log.set_up("WARNING", chosen.esid_log_format)
    core.wait_for_file(chosen)
    store = core.set_up_store(chosen)
    expected = killmails.expected_killmails(chosen, source, days, folder)
    bar, reports = Bar(expected), list[Any]()
    lines: Callable[[Any], Iterable[str]] = render.healed if source == HASHES else render.day_report

    def on_day(report: Any) -> None:
        reports.append(report)
        bar.clear()
        if not options.json:
            print_lines(lines(report))

    if source == HASHES:
        killmails.ask_days(chosen, store, days, folder, on_day)
        store.close()
    else:
        # No connection may cross the fork into the processes that import.
        store.close()
        units = [Unit(source, day, options.again) for day in days]
        try:
            importing.run(killmails.import_parts(chosen, folder), units, processes, bar.advance, on_day)
            bar.end(is_whole=all(report.is_whole for report in reports))
        finally:
            bar.leave()
            with suppress(EsidError):
                core.put_away(chosen)
    if options.json:
        print_json([report.as_dict() for report in sorted(reports, key=lambda report: report.day)])
    elif source != HASHES:
        print(render.import_summary(reports, bar.rate))
    return int(not all(report.is_whole for report in reports))


def _check_options(options: argparse.Namespace) -> None:
    if options.address:
        cure = "days are named by --from DAY and --to DAY, a folder by --dir PATH (see `esid import --help`)"
        raise UsageError(f"`esid import killmails` takes no more words: {cure}")
    if options.from_url:
        raise UsageError("--from-url names the database of a killreport: `esid import killreport --from-url …`")
