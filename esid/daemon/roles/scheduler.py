"""The process that publishes what is due."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from esid.assembly import core, killmails
from esid.daemon.beats import Beats
from esid.daemon.child_loop import Life
from esid.esi.budget import Budget
from esid.feeds.heal import Healing
from esid.queue.asking import Asking
from esid.queue.dispatch import dispatch
from esid.queue.publish import Publisher
from esid.schedule import plan, runner, tasks
from esid.schedule.duty import Post
from esid.settings import Settings
from esid.status import history
from esid.status.progress import Progress
from esid.store import samples
from esid.store.connection import Store
from esid.store.leader import Leadership

#: Seconds between progress lines on a terminal, and elsewhere.
PROGRESS_TTY_S, PROGRESS_S = 5.0, 60.0


def run(settings: Settings, life: Life, *, with_syncs: bool = True) -> None:
    """Publish what is due, for the queues whose schedule is ours, until a stop.

    Args:
        with_syncs: False = retries, intents and sweeps only.
    """
    store = core.open_store(settings)
    budget = core.open_budget(settings, is_known=True)
    publisher = core.open_publisher(settings, store)
    lead = Leadership(store, settings.entities)
    texts = plan.schedules(settings, with_syncs=with_syncs)
    scheduler, post = _scheduler(settings, life, lead, texts, store, budget, publisher)

    def state() -> dict[str, Any]:
        """The tasks that run here: what is so, whatever settings somebody else has."""
        return {"jobs": {task.name: texts[task.name] for task in plan.plan(texts, "", post.on_duty)}}

    def look() -> None:
        scheduler.check_clock()
        post.look()

    beats = Beats(store, life, state)
    post.look()
    scheduler.start()
    beats.start()
    life.wait_for_stop(store, every_second=look)
    publisher.broker.is_stopping = True
    # What runs ends first, then another daemon takes over.
    scheduler.stop()
    lead.close()
    beats.end()
    publisher.broker.close()
    budget.close()
    store.close()


def _scheduler(
    settings: Settings,
    life: Life,
    lead: Leadership,
    texts: Mapping[str, str],
    store: Store,
    budget: Budget,
    publisher: Publisher,
) -> tuple[runner.Scheduler, Post]:
    """What runs tasks and errands, and what tells it whose they are."""
    requests = Asking(store, publisher, settings.esid_queue_prefix)
    healing = Healing(lambda: killmails.open_healer(settings, store, requests, life.stop))
    progress = Progress(store, budget, ())

    def publish() -> None:
        if queues := post.on_duty:
            dispatch(store, publisher, queues)

    def serve(queues: Sequence[str]) -> None:
        nonlocal progress
        progress = Progress(store, budget, queues)
        scheduler.serve(plan.plan(texts, core.installation(store), queues) if queues else ())

    works = tasks.works(store, publisher, requests, lambda: progress.began()) | {"heal": healing.run}
    errands: dict[str, tuple[float, Callable[[], object]]] = {
        "dispatch": (plan.DISPATCH_S, publish),
        "progress": (PROGRESS_TTY_S if sys.stderr.isatty() else PROGRESS_S, lambda: progress.say()),
        "sample": (samples.EVERY_S, lambda: history.sample(store, publisher.broker, budget)),
    }
    scheduler = runner.Scheduler(store, works, errands, lead.holds)
    post = Post(lead, serve, settings.entities)
    return scheduler, post
