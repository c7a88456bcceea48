"""What each job of the plan does, and says that it did. Called by the scheduler and by `esid schedule run`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from esid import log
from esid.entities import MIRRORED
from esid.queue.publish import Publisher
from esid.queue.requests import Requests, sweep
from esid.store import processes, recoveries, samples, ticks
from esid.store.connection import Store

#: Seconds that an open job is left alone before the sweep takes its message for lost.
QUIET_S = 300.0
_log = log.get("schedule")


def works(
    store: Store, publisher: Publisher, requests: Requests, began: Callable[[], object] = lambda: None
) -> dict[str, Callable[[], str]]:
    """Name of a job -> its work.

    Args:
        began: called when a full sync has given out work.
    """

    def sync(entity: str) -> str:
        if count := requests.sync(entity):
            began()
            words = f"{count:,} due {'job' if count == 1 else 'jobs'} for ESI in the {entity} queue"
            log.event(_log, "sync.started", words, entity=entity)
            return words
        return "nothing was due"

    def refresh() -> str:
        count = requests.refresh("character")
        return f"{count:,} characters are looked up in bulk" if count else "nothing was due"

    def swept() -> str:
        recoveries.prune(store)
        if count := sweep(store, publisher, [entity.name for entity in MIRRORED], QUIET_S):
            log.event(_log, "schedule.swept", "jobs without a message are published again", jobs=count)
        return f"{count:,} jobs without a message were published again" if count else "no message was lost"

    def cleaned_up() -> str:
        processes.prune(store)
        return f"{ticks.prune(store):,} ticks and {samples.prune(store):,} samples were forgotten"

    return {
        **{f"sync_{entity.name}": partial(sync, entity.name) for entity in MIRRORED},
        "refresh_character": refresh,
        "sweep": swept,
        "clean_up": cleaned_up,
    }
