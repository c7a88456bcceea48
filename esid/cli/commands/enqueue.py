"""`esid enqueue`: asks for ids."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from esid.assembly import core
from esid.cli import render, typed
from esid.cli.printing import note, print_json
from esid.cli.progress_bar import Asked, follow
from esid.entities import BY_NAME
from esid.errors import UsageError
from esid.feeds import links
from esid.settings import Settings
from esid.store.ledger import Accepted

if TYPE_CHECKING:
    from esid.feeds.http import Source


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid enqueue`: its exit code."""
    wanted = _all_wanted(options.entity, options.ids)
    store = core.ready_store(chosen)
    if options.entity == "killmail":
        wanted = list(links.with_hashes(store, partial(_zkillboard, chosen), wanted))
    total = Accepted((), (), ())
    requests = core.open_requests(chosen, store)
    requests.check()
    for part in requests.enqueue(BY_NAME[options.entity], wanted, whole=True):
        total = Accepted(total.queued + part.queued, total.pending + part.pending, total.fresh + part.fresh)
    if options.json:
        print_json({"queued": len(total.queued), "pending": len(total.pending), "fresh": len(total.fresh)})
    else:
        print(render.accepted(options.entity, total), flush=True)
    code = follow(Asked(store, options.entity, total.queued + total.pending), chosen, waits=options.wait)
    store.close()
    return code


def _all_wanted(entity: str, ids: Sequence[str]) -> list[tuple[int, str | None]]:
    """(id, argument) of every word; `-` stands for those of standard input, and how many they are is said.

    Raises:
        UsageError: one of them is no id, or there is none.
    """
    read = partial(_wanted, entity)
    wanted, taken = list[tuple[int, str | None]](), list[tuple[int, str | None]]()
    for text in ids:
        if text == "-":
            if sys.stdin and sys.stdin.isatty():
                note("ids, please, in as many lines as you like; Ctrl-D ends them")
            taken += typed.standard_input(read, f"esid enqueue {entity} -" if entity != "killmail" else "")
        else:
            wanted += map(read, text.split(","))
    if not (wanted or taken):
        raise UsageError("no ids were given")
    if taken:
        note(render.taken(len(taken), len(set(taken))))
    return wanted + taken


def _wanted(entity: str, token: str) -> tuple[int, str | None]:
    """(id, argument) of one word. A link to zKillboard names no hash: its argument is None and has to be asked for.

    Raises:
        UsageError: it is no id, or no killmail.
    """
    key, hash_ = links.killmail(token) if entity == "killmail" else links.pasted(entity, token)
    return typed.id_of(key, BY_NAME[entity].first_id), hash_


def _zkillboard(chosen: Settings) -> Source:
    from esid.assembly import killmails

    return killmails.open_zkillboard(chosen)
