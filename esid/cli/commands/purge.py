"""`esid purge`: empties our queues."""

from __future__ import annotations

import argparse

from esid.assembly import core
from esid.catalogue import NAMES
from esid.cli.printing import confirmed
from esid.entities import BY_NAME
from esid.errors import UsageError
from esid.settings import Settings, nearest
from esid.words import counted


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid purge`: its exit code."""
    for name in options.entities:
        if name not in NAMES:
            raise UsageError(f"unknown entity {name!r}: one of {', '.join(NAMES)}{_lane_of(name) or nearest(name, NAMES)}")
    queues = list(dict.fromkeys(options.entities)) or NAMES
    if not options.yes and not confirmed(f"Empty the queues of {', '.join(queues)}?"):
        return 2
    store = core.ready_store(chosen)
    requests = core.open_requests(chosen, store)
    requests.check()
    for queue in queues:
        messages, jobs = requests.purge(queue)
        waiting = counted(jobs, "job waits", "jobs wait")
        print(f"{queue}: {counted(messages, 'message')} deleted, {waiting} for the next scheduled sync")
    store.close()
    return 0


def _lane_of(name: str) -> str:
    """Where the work of an entity goes that has no queue of its own, in words; "" where there is no such entity."""
    return f"; the work of {name} is in the queue of {BY_NAME[name].lane}" if name in BY_NAME else ""
