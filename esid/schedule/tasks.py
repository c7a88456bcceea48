"""What each task of the plan does, and says that it did. Called by the scheduler and by `esid schedule run`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from esid import log
from esid.catalogue import NAMES
from esid.entities import ENTITIES
from esid.entities.base import Entity
from esid.queue.asking import Asking
from esid.queue.dispatch import sweep
from esid.queue.publish import Publisher
from esid.store import audit, dead_letters, processes, recoveries, samples, ticks
from esid.store.connection import Store
from esid.store.drivers import LARGEST_WAL
from esid.words import counted

#: Seconds that an open job is left alone before the sweep takes its message for lost.
QUIET_S = 300.0
#: Seconds that are taken to look at all after the clock was set back, far less than a stop; the audit goes on with the rest.
LONGEST_LOOK_S = 30.0
_log = log.get("schedule")


def works(
    store: Store, publisher: Publisher, requests: Asking, began: Callable[[], object] = lambda: None
) -> dict[str, Callable[[], str]]:
    """Name of a task -> its work.

    Args:
        began: called when a full sync has given out work.
    """

    def sync(lane: str) -> str:
        if count := requests.sync(lane):
            began()
            words = f"{counted(count, 'due job')} for ESI in the {lane} queue"
            log.event(_log, "sync.started", words, entity=lane)
            return words
        return "nothing was due"

    def refresh() -> str:
        count = requests.refresh("character")
        return f"{counted(count, 'character is', 'characters are')} looked up in bulk" if count else "nothing was due"

    def swept() -> str:
        recoveries.prune(store)
        _mend_times(store)
        _forget_letters(store)
        # SQLite empties its WAL by itself, but not while somebody always reads.
        store.checkpoint(LARGEST_WAL)
        if count := sweep(store, publisher, NAMES, QUIET_S):
            log.event(_log, "schedule.swept", "jobs without a message are published again", jobs=count)
        words = f"{counted(count, 'job was', 'jobs were')} without a message and published again"
        return words if count else "no message was lost"

    def cleaned_up() -> str:
        processes.prune(store)
        return f"forgot {counted(ticks.prune(store), 'tick')} and {counted(samples.prune(store), 'sample')}"

    return {
        **{f"sync_{lane}": partial(sync, lane) for lane in NAMES},
        "refresh_character": refresh,
        "sweep": swept,
        "audit": partial(_audited, store),
        "clean_up": cleaned_up,
    }


def kind(entity: Entity) -> audit.Kind:
    """An entity as the audit sees it."""
    return audit.Kind(entity.name, entity.own, entity.argument, entity.route.is_lasting)


def _audited(store: Store) -> str:
    found = audit.look(store, [kind(entity) for entity in ENTITIES])
    if not found:
        return "nothing was found that must not be"
    words = ", ".join(counted(count, *audit.WORDS[what]) for what, count in sorted(found.items()))
    log.event(_log, "audit.mended", f"found and mended: {words}", level=logging.WARNING)
    return f"found and mended: {words}"


def _mend_times(store: Store) -> None:
    """What was written by a clock that was ahead is asked again, as soon as it is right."""
    if audit.clock_went_back(store):
        words = "the clock shows an earlier time than before; what was written with the later one is asked again"
        log.event(_log, "schedule.clock_went_back", words, level=logging.WARNING)
        kinds = [kind(entity) for entity in ENTITIES]
        audit.begin_anew(store, kinds)
        audit.look(store, kinds, LONGEST_LOOK_S)
    audit.note_time(store)


def _forget_letters(store: Store) -> None:
    """Keep dead letters to so many, and say which were too many."""
    for (entity, reason), count in dead_letters.prune(store).items():
        words = (
            f"only {dead_letters.MOST_LETTERS:,} dead letters are kept: the {count:,} oldest of {entity or 'messages'}, "
            f"{reason}, are forgotten (ids stay failed: `esid show`); see `esid dead list`"
        )
        log.event(_log, "dead.forgotten", words, level=logging.WARNING)
