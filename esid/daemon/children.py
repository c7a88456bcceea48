"""What runs in the child processes: workers, scheduler, feed, status server. Each returns when it was told to stop."""

from __future__ import annotations

import sys
import threading
from typing import Any

import dramatiq

from esid import schedule
from esid.clock import Stop
from esid.daemon import parts, signals
from esid.feeds import r2z2
from esid.feeds.follow import Follower
from esid.feeds.heal import Healing
from esid.queue.actors import Work, declare_actors
from esid.queue.broker import queue_name
from esid.queue.database import DatabaseBroker
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.middleware.hold import Hold
from esid.queue.middleware.retries import Retries
from esid.settings import Settings
from esid.web.server import serve

#: Seconds that a worker gives running work at a stop. Smaller than the supervisor's budget for all of them.
WORKER_STOP_S = 60.0
#: Seconds between progress lines on a terminal, and elsewhere.
PROGRESS_TTY_S, PROGRESS_S = 5.0, 60.0
#: Connections of a worker process to PostgreSQL: its threads share them.
WORKER_POOL = 12


def worker(settings: Settings, stop: Stop) -> None:
    """Consume the queues of the chosen entities until `stop`."""
    store = parts.open_store(settings, WORKER_POOL)
    budget = parts.open_budget(settings, stop)
    publisher = parts.open_publisher(settings, store, [Hold(store, budget, stop), Retries(store), DeadLetters(store)])
    broker: Any = publisher.broker
    work = Work(store, parts.open_client(settings, budget), publisher, settings.entities, stop)
    declare_actors(broker, work, settings.esid_queue_prefix)
    if isinstance(broker, DatabaseBroker):
        broker.release_dead()
    queues = {queue_name(settings.esid_queue_prefix, entity) for entity in settings.entities}
    consumer = dramatiq.Worker(broker, queues=queues, worker_threads=settings.esid_threads, worker_timeout=500)
    consumer.queue_prefetch = settings.esid_prefetch * settings.esid_threads
    consumer.start()
    signals.wait_for_stop(stop)
    consumer.stop(timeout=int(WORKER_STOP_S * 1000))
    work.close()
    broker.close()
    budget.close()
    store.close()


def scheduler(settings: Settings, stop: Stop) -> None:
    """Publish what is due until `stop`."""
    store = parts.open_store(settings)
    budget = parts.open_budget(settings)
    publisher = parts.open_publisher(settings, store)
    requests = parts.open_requests(settings, store)
    heals = settings.esid_schedule_heal if settings.follows_killmails else "off"
    healing = Healing(store, lambda: parts.open_healer(settings, store, requests, stop), schedule.heals_every_s(heals))
    runner = schedule.Scheduler(store, publisher, requests, budget, settings.entities, {"heal": healing.run})
    schedules = {
        "alliance": settings.esid_schedule_alliances,
        "corporation": settings.esid_schedule_corporations,
        "character": settings.esid_schedule_characters,
    }
    chosen = {entity: text for entity, text in schedules.items() if entity in settings.entities}
    progress_s = PROGRESS_TTY_S if sys.stderr.isatty() else PROGRESS_S
    runner.start(schedule.plan(chosen, progress_s=progress_s, heal=heals))
    signals.wait_for_stop(stop)
    runner.stop()
    budget.close()
    store.close()


def feed(settings: Settings, stop: Stop) -> None:
    """Follow the live feed of killmails until `stop`."""
    # The feed has the main thread, so that an error of our own ends the process, and the supervisor replaces it.
    threading.Thread(target=signals.wait_for_stop, args=(stop,), name="stop", daemon=True).start()
    store = parts.open_store(settings)
    source = parts.open_feed_source(settings, stop)
    Follower(store, r2z2.feed(), source, stop).run()
    source.close()
    store.close()


def web(settings: Settings, stop: Stop, listener: Any) -> None:
    """Answer health until `stop`, on the socket that the supervisor bound."""
    store = parts.open_store(settings)
    publisher = parts.open_publisher(settings, store)
    budget = parts.open_budget(settings)
    with serve(listener, store, publisher.broker, budget):
        signals.wait_for_stop(stop)
    budget.close()
    store.close()
