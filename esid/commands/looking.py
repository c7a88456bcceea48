"""`esid status`, `esid show`: what there is."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from esid import clock, overview, plan, render, typed
from esid.commands.screen import has_screen
from esid.commands.terminal import columns, print_json, print_lines
from esid.commands.watching import AGAIN_S, watch
from esid.daemon import lock, parts
from esid.entities import BY_NAME
from esid.feeds import links
from esid.settings import Settings
from esid.store import ledger
from esid.store.show import rows_of
from esid.web import status as states


def status(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid status`: its exit code."""
    store = parts.ready_store(chosen)
    broker, place = parts.open_publisher(chosen, store).broker, parts.queue_place(chosen)
    schedules, installation = plan.schedules(chosen), parts.installation(store)

    def collect() -> dict[str, Any]:
        # Opened for each look: a daemon may have begun meanwhile.
        with parts.shown_budget(chosen) as budget:
            state = states.collect(states.Sources(store, broker, budget, schedules, installation, place))
        return {**state, "daemon": lock.holder(parts.lock_path(chosen))}

    if options.watch and not options.json and has_screen():
        return watch(collect, overview.lines)
    while True:
        state = collect()
        print_json(state) if options.json else print_lines(overview.lines(state, columns()))
        sys.stdout.flush()
        if not options.watch:
            return 0
        clock.sleep(AGAIN_S)


def show(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid show`: its exit code."""
    key = typed.id_of(links.pasted(options.entity, options.id)[0])
    store = parts.ready_store(chosen)
    rows = rows_of(store, BY_NAME[options.entity].tables, key)
    job = ledger.job(store, options.entity, key)
    if options.json:
        print_json({"rows": rows, "job": job})
    elif job is None and not any(rows.values()):
        asked = f"{key}:HASH" if options.entity == "killmail" else key
        print(f"{options.entity} {key} is not known; ask for it with `esid enqueue {options.entity} {asked}`")
    else:
        for table, found in rows.items():
            for row in found:
                print_lines(render.fields(table, row))
        print_lines(render.fields("job", job or {}))
    store.close()
    return 0 if job is not None or any(rows.values()) else 1
