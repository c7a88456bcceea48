"""`esid enqueue`, `esid sync`, `esid purge`: what puts jobs into the queues, and takes them out."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from esid import render, typed
from esid.commands.terminal import confirmed, print_json
from esid.commands.waiting import Asked, Synced, note_no_daemon, wait
from esid.daemon import parts
from esid.entities import BY_NAME, ENTITIES
from esid.errors import UsageError
from esid.feeds import links
from esid.queue.broker import PERSON
from esid.queue.progress import PLURALS
from esid.settings import ENTITY_NAMES, Settings, nearest
from esid.store.ledger import Accepted

if TYPE_CHECKING:
    from esid.feeds.http import Source


def enqueue(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid enqueue`: its exit code."""
    wanted = [_wanted(options.entity, token) for token in typed.tokens(options.ids)]
    if not wanted:
        raise UsageError("no ids were given")
    store = parts.ready_store(chosen)
    if options.entity == "killmail":
        wanted = list(links.with_hashes(store, partial(_zkillboard, chosen), wanted))
    total = Accepted((), (), ())
    for part in parts.open_requests(chosen, store).enqueue(BY_NAME[options.entity], wanted):
        total = Accepted(total.queued + part.queued, total.pending + part.pending, total.fresh + part.fresh)
    code = wait(Asked(store, options.entity, total.queued + total.pending), chosen) if options.wait else 0
    if options.json:
        print_json({"queued": len(total.queued), "pending": len(total.pending), "fresh": len(total.fresh)})
    else:
        print(render.accepted(options.entity, total))
        note_no_daemon(chosen, waits=options.wait)
    store.close()
    return code


def sync(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid sync`: its exit code."""
    store = parts.ready_store(chosen)
    requests = parts.open_requests(chosen, store)
    queues = [name for name, plural in PLURALS.items() if options.what in {plural, "all"} and plural in typed.SYNC_NAMES]
    work = Synced(store, [entity.name for entity in ENTITIES if entity.queue in queues])
    counts = {queue: requests.sync(queue, priority=PERSON) for queue in queues}
    code = wait(work, chosen) if options.wait else 0
    if options.json:
        print_json({"queued": counts})
    else:
        for queue, count in counts.items():
            nothing = "everything is up to date" if options.wait else "everything is fresh or queued"
            print(f"{PLURALS[queue]}: {count:,} jobs queued" if count else f"{PLURALS[queue]}: {nothing}")
        note_no_daemon(chosen, waits=options.wait)
    store.close()
    return code


def purge(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid purge`: its exit code."""
    for name in options.entities:
        if name not in ENTITY_NAMES:
            raise UsageError(f"unknown entity {name!r}: one of {', '.join(ENTITY_NAMES)}{nearest(name, ENTITY_NAMES)}")
    queues = options.entities or ENTITY_NAMES
    if not options.yes and not confirmed(f"Empty the queues of {', '.join(queues)}?"):
        return 2
    store = parts.ready_store(chosen)
    requests = parts.open_requests(chosen, store)
    for queue in queues:
        messages, jobs = requests.purge(queue)
        print(f"{queue}: {messages:,} messages deleted, {jobs:,} jobs wait for the next scheduled sync")
    store.close()
    return 0


def _wanted(entity: str, token: str) -> tuple[int, str | None]:
    """(id, argument) of one word. A link to zKillboard names no hash: its argument is None and has to be asked for.

    Raises:
        UsageError: it is no id, or no killmail.
    """
    if entity != "killmail":
        return typed.id_of(token), None
    key, hash_ = links.killmail(token)
    return typed.id_of(key), hash_


def _zkillboard(chosen: Settings) -> Source:
    from esid.daemon import sources  # only a link without a hash takes it

    return sources.open_zkillboard(chosen)
