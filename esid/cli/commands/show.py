"""`esid show`: one thing, with everything that belongs to it."""

from __future__ import annotations

import argparse

from esid.assembly import core
from esid.cli import render, typed
from esid.cli.printing import print_json, print_lines
from esid.entities import BY_NAME
from esid.feeds import links
from esid.settings import Settings
from esid.store import ledger
from esid.store.show import rows_of


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid show`: its exit code."""
    key = typed.id_of(links.pasted(options.entity, options.id)[0], BY_NAME[options.entity].first_id)
    store = core.ready_store(chosen)
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
