"""What runs in the child processes: workers, scheduler, feed, status server. Each returns when it was told to stop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dramatiq.middleware import CurrentMessage

from esid import clock, jobs, plan, schedule
from esid.daemon import parts, sources
from esid.daemon.beats import Beats
from esid.daemon.life import Life
from esid.daemon.post import Post
from esid.esi.budget import Budget
from esid.esi.client import Client
from esid.feeds import r2z2
from esid.feeds.follow import Follower
from esid.feeds.heal import Healing
from esid.queue.actors import Work, declare_actors
from esid.queue.broker import SLOW, queue_name
from esid.queue.database import DatabaseBroker
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.middleware.doing import Doing
from esid.queue.middleware.hold import Hold
from esid.queue.middleware.recoveries import Recoveries, settle
from esid.queue.middleware.retries import Retries
from esid.queue.progress import Progress
from esid.queue.requests import Requests, dispatch
from esid.queue.touching import Touching
from esid.queue.worker import Worker
from esid.settings import Settings
from esid.store import samples
from esid.store.leader import Leadership
from esid.web import history

#: Seconds that a worker gives running work at a stop. Smaller than the supervisor's budget for all of them.
WORKER_STOP_S = 60.0
#: Seconds after which a stop cuts off what is on its way to ESI; it goes back uncounted.
CUT_S = 20.0
#: Seconds that PostgreSQL may take for one statement of a worker; all of them touch a few rows by their keys.
WORKER_STATEMENT_S = 15
#: Seconds between progress lines on a terminal, and elsewhere.
PROGRESS_TTY_S, PROGRESS_S = 5.0, 60.0
#: Connections of a worker process to PostgreSQL: its threads share them.
WORKER_POOL = 12


def _open_client(settings: Settings, budget: Budget) -> Client:
    """The HTTP edge."""
    return Client(
        settings.esi_base_url,
        budget,
        contact=settings.esi_contact,
        compatibility_date=settings.esi_compatibility_date,
        ca_file=settings.esid_ca_file,
        proxy=settings.proxy(settings.esi_base_url),
    )


def worker_threads(settings: Settings) -> int:
    """Threads of a worker process that work on messages.

    Each slow queue has a thread of its own: work that waits for an empty bucket keeps no other from working.
    """
    slow = SLOW & set(settings.entities)
    return (settings.esid_threads if set(settings.entities) - slow else 0) + len(slow)


def worker(settings: Settings, life: Life) -> None:
    """Consume the queues of the chosen entities until a stop."""
    stop = life.stop
    store = parts.open_store(settings, WORKER_POOL, WORKER_STATEMENT_S)
    budget = parts.open_budget(settings, stop, is_known=True)
    sharing = parts.open_sharing(settings, store, budget, stop)
    if sharing:
        sharing.start()
    client = _open_client(settings, budget)
    middleware = [
        CurrentMessage(),
        Hold(store, client, stop),
        doing := Doing(),
        Retries(store, client),
        DeadLetters(store),
        Recoveries(store, life.hands, stop),
    ]
    publisher = parts.open_publisher(settings, store, middleware)
    broker: Any = publisher.broker
    work = Work(store, client, publisher, settings.entities, stop)
    declare_actors(broker, work, settings.esid_queue_prefix)
    settle(store, life.hands, life.wait_a_second)
    queues = {queue_name(settings.esid_queue_prefix, entity) for entity in settings.entities}
    consumer = Worker(broker, queues, worker_threads(settings), settings.esid_prefetch * settings.esid_threads)
    if isinstance(broker, DatabaseBroker):
        broker.release_dead()
    consumer.start()
    touching = Touching(store, life.hands)
    beats = Beats(store, life, partial(_worker_state, settings, broker, consumer), doing, touching.look)
    beats.start()
    life.wait_for_stop(store, broker.moves.oldest)
    client.end_within(CUT_S)
    consumer.stop(timeout=int(WORKER_STOP_S * 1000))
    work.close()
    beats.end()
    broker.close()
    if sharing:
        sharing.join()
    budget.close()
    store.close()


def scheduler(settings: Settings, life: Life, *, with_syncs: bool = True) -> None:
    """Publish what is due, for the queues whose schedule is ours, until a stop.

    Args:
        with_syncs: False = retries, intents and sweeps only.
    """
    store = parts.open_store(settings)
    budget = parts.open_budget(settings, is_known=True)
    publisher = parts.open_publisher(settings, store)
    requests = Requests(store, publisher, settings.esid_queue_prefix)
    healing = Healing(lambda: sources.open_healer(settings, store, requests, life.stop))
    lead = Leadership(store, settings.entities)
    progress_s = PROGRESS_TTY_S if sys.stderr.isatty() else PROGRESS_S
    texts = plan.schedules(settings, with_syncs=with_syncs)
    in_hand = schedule.InHand()

    def start(queues: Sequence[str]) -> schedule.Scheduler:
        """A scheduler of some queues, running."""
        progress = Progress(store, budget, queues)
        works = jobs.works(store, publisher, requests, progress.began) | {"heal": healing.run}
        errands: dict[str, tuple[float, Callable[[], object]]] = {
            "dispatch": (plan.DISPATCH_S, lambda: dispatch(store, publisher, queues)),
            "progress": (progress_s, progress.say),
            "sample": (samples.EVERY_S, lambda: history.sample(store, publisher.broker, budget)),
        }
        runner = schedule.Scheduler(store, works, errands, lead.holds, in_hand)
        runner.start(plan.plan(texts, parts.installation(store), queues))
        return runner

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


def feed(settings: Settings, life: Life) -> None:
    """Follow the live feed of killmails until a stop. An error of our own ends the process, and it is replaced."""
    store = parts.open_store(settings)
    source = sources.open_feed_source(settings, life.stop)
    broken: list[BaseException] = []

    def follow() -> None:
        try:
            Follower(store, r2z2.feed(), source, life.stop).run()
        except BaseException as error:  # noqa: BLE001
            broken.append(error)

    def look() -> None:
        if broken:
            raise broken[0]

    thread = threading.Thread(target=follow, name="feed", daemon=True)
    thread.start()
    beats = Beats(store, life)
    beats.start()
    life.wait_for_stop(store, every_second=look)
    thread.join(WORKER_STOP_S)
    beats.end()
    source.close()
    store.close()


def web(settings: Settings, life: Life, listener: Any) -> None:
    """Answer health until a stop, on the socket that the supervisor bound."""
    from esid.web.server import serve  # no other process is to carry what the page and the metrics are made with
    from esid.web.view import View

    store = parts.open_store(settings)
    publisher = parts.open_publisher(settings, store)
    budget = parts.open_budget(settings, is_known=True)
    beats = Beats(store, life)
    beats.start()
    view = View(
        store, publisher.broker, budget, plan.schedules(settings), parts.installation(store), parts.queue_place(settings),
        workers=settings.esid_processes, daemon=os.getppid(),
    )  # fmt: skip
    with serve(listener, view):
        life.wait_for_stop(store)
    beats.end()
    publisher.broker.close()
    budget.close()
    store.close()


def _worker_state(settings: Settings, broker: Any, consumer: Worker) -> dict[str, Any]:
    moved_s = clock.monotonic() - broker.moves.oldest()
    return {
        "entities": list(settings.entities),
        "threads": worker_threads(settings),
        "moved_s": round(max(0.0, moved_s), 1),
        "queue": parts.queue_place(settings),
        "held": consumer.held(),
    }
