"""`esid status`: the state of everything."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from esid import clock
from esid.assembly import core, lock
from esid.cli import overview
from esid.cli.printing import columns, print_json, print_lines
from esid.cli.screen import has_screen
from esid.cli.watch import AGAIN_S, watch
from esid.schedule import plan
from esid.settings import Settings
from esid.status import collect as states


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid status`: its exit code."""
    store = core.ready_store(chosen)
    broker, place = core.open_publisher(chosen, store).broker, core.queue_place(chosen)
    schedules, installation = plan.schedules(chosen), core.installation(store)

    def collect() -> dict[str, Any]:
        # Opened for each look: a daemon may have begun meanwhile.
        with core.shown_budget(chosen) as budget:
            state = states.collect(states.Sources(store, broker, budget, schedules, installation, place))
        return {**state, "daemon": lock.holder(core.lock_path(chosen))}

    if options.watch and not options.json and has_screen():
        return watch(collect, overview.lines)
    while True:
        state = collect()
        print_json(state) if options.json else print_lines(overview.lines(state, columns()))
        sys.stdout.flush()
        if not options.watch:
            return 0
        clock.sleep(AGAIN_S)
