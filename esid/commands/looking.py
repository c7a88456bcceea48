"""`esid status`, `esid show`: what there is."""

from __future__ import annotations

import argparse
import json
import sys

from esid import clock, log, plan, render, typed
from esid.commands.terminal import print_json, print_lines
from esid.daemon import lock, parts
from esid.entities import BY_NAME
from esid.settings import Settings
from esid.store import ledger
from esid.store.show import rows_of
from esid.web import status as states


def status(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid status`: its exit code."""
    store = parts.ready_store(chosen)
    sources = states.Sources(
        store,
        parts.open_publisher(chosen, store).broker,
        parts.open_budget(chosen),
        plan.schedules(chosen),
        parts.installation(store),
        chosen.entities,
    )
    in_place = options.watch and sys.stdout.isatty()
    while True:
        state = states.collect(sources)
        state["daemon"] = lock.holder(parts.lock_path(chosen))
        text = json.dumps(state, indent=2, default=str) if options.json else log.printable("\n".join(render.status(state)))
        # Drawn over the last one, line by line: a cleared screen would flicker.
        print("\033[H" + text.replace("\n", "\033[K\n") + "\033[K\n\033[J" if in_place else text, flush=True)
        if not options.watch:
            return 0
        clock.sleep(2)


def show(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid show`: its exit code."""
    key = typed.id_of(options.id.partition(":")[0])
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
