"""`esid sync`: starts full syncs."""

from __future__ import annotations

import argparse

from esid.assembly import core
from esid.catalogue import LANES
from esid.cli import typed
from esid.cli.printing import print_json
from esid.cli.progress_bar import Synced, follow
from esid.entities import ENTITIES
from esid.queue.broker import PERSON
from esid.settings import Settings
from esid.words import counted, plural


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid sync`: its exit code."""
    store = core.ready_store(chosen)
    requests = core.open_requests(chosen, store)
    requests.check()
    wanted = set(typed.SYNC_NAMES if "all" in options.what else options.what)
    queues = [lane.name for lane in LANES if lane.plural in wanted]
    work = Synced(store, [entity.name for entity in ENTITIES if entity.lane in queues])
    counts = {queue: requests.sync(queue, priority=PERSON) for queue in queues}
    if options.json:
        print_json({"queued": counts})
    else:
        for queue, count in counts.items():
            words = f"{counted(count, 'job')} queued" if count else "everything is fresh or queued"
            print(f"{plural(queue)}: {words}", flush=True)
    code = follow(work, chosen, waits=options.wait)
    store.close()
    return code
