"""`esid heal`: fetches the killmails that days lack."""

from __future__ import annotations

import argparse
from typing import Any

from esid import log
from esid.assembly import core, killmails
from esid.cli import render, typed
from esid.cli.printing import print_json, print_lines
from esid.cli.progress_bar import Bar
from esid.clock import Stop
from esid.feeds.archives import SOURCES
from esid.settings import Settings


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid heal`: its exit code."""
    since = typed.first_day(options.since) if options.since is not None else None
    killmails.check_sources(chosen, *SOURCES)
    log.set_up("WARNING", chosen.esid_log_format)
    store = core.ready_store(chosen)
    bar = Bar(None)
    healer = killmails.open_healer(chosen, store, core.open_requests(chosen, store), Stop(), progress=bar.advance)

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
