"""A process that works on messages."""

from __future__ import annotations

from functools import partial
from typing import Any

from dramatiq.middleware import CurrentMessage

from esid import clock
from esid.assembly import core
from esid.daemon.beats import Beats
from esid.daemon.child_loop import Life
from esid.esi.budget import Budget
from esid.esi.client import Client
from esid.queue.broker import SLOW, queue_name
from esid.queue.database import DatabaseBroker
from esid.queue.middleware.crashes import Crashes
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.middleware.doing import Doing
from esid.queue.middleware.hold import Hold
from esid.queue.middleware.recoveries import Recoveries, settle
from esid.queue.touching import Touching
from esid.queue.work import Work, declare_actors
from esid.queue.worker import Worker
from esid.settings import Settings

#: Seconds that a worker gives running work at a stop. Smaller than the supervisor's budget for all of them.
STOP_S = 60.0
#: Seconds after which a stop cuts off what is on its way to ESI; it goes back uncounted.
CUT_S = 20.0
#: Seconds that PostgreSQL may take for one statement of a worker; all of them touch a few rows by their keys.
STATEMENT_S = 15
#: Connections of a worker process to PostgreSQL: its threads share them.
POOL = 12


def threads(settings: Settings) -> int:
    """Threads of a worker process that work on messages.

    Each slow queue has a thread of its own: work that waits for an empty bucket keeps no other from working.
    """
    slow = SLOW & set(settings.entities)
    return (settings.esid_threads if set(settings.entities) - slow else 0) + len(slow)


def run(settings: Settings, life: Life) -> None:
    """Consume the queues of the chosen entities until a stop."""
    stop = life.stop
    store = core.open_store(settings, POOL, STATEMENT_S)
    budget = core.open_budget(settings, stop, is_known=True)
    sharing = core.open_sharing(settings, store, budget, stop)
    if sharing:
        sharing.start()
    client = _open_client(settings, budget)
    middleware = [
        CurrentMessage(),
        Hold(store, client, stop),
        doing := Doing(),
        Crashes(store),
        DeadLetters(store),
        Recoveries(store, life.hands, stop),
    ]
    publisher = core.open_publisher(settings, store, middleware)
    broker: Any = publisher.broker
    work = Work(store, client, publisher, settings.entities, stop)
    declare_actors(broker, work, settings.esid_queue_prefix)
    settle(store, life.hands, life.wait_a_second)
    queues = {queue_name(settings.esid_queue_prefix, entity) for entity in settings.entities}
    consumer = Worker(broker, queues, threads(settings), settings.esid_prefetch * settings.esid_threads)
    if isinstance(broker, DatabaseBroker):
        broker.release_dead()
    consumer.start()
    touching = Touching(store, life.hands)
    beats = Beats(store, life, partial(_state, settings, broker, consumer), doing, touching.look)
    beats.start()
    life.wait_for_stop(store, broker.moves.oldest)
    client.end_within(CUT_S)
    consumer.stop(timeout=int(STOP_S * 1000))
    work.close()
    beats.end()
    broker.close()
    if sharing:
        sharing.join()
    budget.close()
    store.close()


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


def _state(settings: Settings, broker: Any, consumer: Worker) -> dict[str, Any]:
    moved_s = clock.monotonic() - broker.moves.oldest()
    return {
        "entities": list(settings.entities),
        "threads": threads(settings),
        "moved_s": round(max(0.0, moved_s), 1),
        "queue": core.queue_place(settings),
        "held": consumer.held(),
    }
