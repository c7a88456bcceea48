"""The process that publishes what is due."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from esid.assembly import core, killmails
from esid.daemon.beats import Beats
from esid.daemon.child_loop import Life
from esid.feeds.heal import Healing
from esid.queue.asking import Asking
from esid.queue.dispatch import dispatch
from esid.schedule import plan, runner, tasks
from esid.schedule.duty import Post
from esid.settings import Settings
from esid.status import history
from esid.status.progress import Progress
from esid.store import samples
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
    requests = Asking(store, publisher, settings.esid_queue_prefix)
    healing = Healing(lambda: killmails.open_healer(settings, store, requests, life.stop))
    lead = Leadership(store, settings.entities)
    progress_s = PROGRESS_TTY_S if sys.stderr.isatty() else PROGRESS_S
    texts = plan.schedules(settings, with_syncs=with_syncs)
    in_hand = runner.InHand()

    def start(queues: Sequence[str]) -> runner.Scheduler:
        """A scheduler of some queues, running."""
        progress = Progress(store, budget, queues)
        works = tasks.works(store, publisher, requests, progress.began) | {"heal": healing.run}
        errands: dict[str, tuple[float, Callable[[], object]]] = {
            "dispatch": (plan.DISPATCH_S, lambda: dispatch(store, publisher, queues)),
            "progress": (progress_s, progress.say),
            "sample": (samples.EVERY_S, lambda: history.sample(store, publisher.broker, budget)),
        }
        running = runner.Scheduler(store, works, errands, lead.holds, in_hand)
        running.start(plan.plan(texts, core.installation(store), queues))
        return running

    post = Post(lead, start, settings.entities)

    def state() -> dict[str, Any]:
        """The jobs that run here: what is so, whatever settings somebody else has."""
        return {"jobs": {job.name: texts[job.name] for job in plan.plan(texts, "", post.on_duty)}}

    beats = Beats(store, life, state)
    post.look()
    beats.start()
    life.wait_for_stop(store, every_second=post.look)
    publisher.broker.is_stopping = True
    post.leave()
    beats.end()
    publisher.broker.close()
    budget.close()
    store.close()
