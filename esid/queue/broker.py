"""The queue as the rest of esid sees it: a Dramatiq broker with four verbs more. Two of them exist, behind one suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import dramatiq

from esid.catalogue import NAMES
from esid.entities import ENTITIES
from esid.queue.database import DatabaseBroker
from esid.store.connection import Store

if TYPE_CHECKING:
    from esid.queue.rabbitmq import RabbitBroker

#: Priorities of messages: what a person asked for, what the schedule asks for, what an answer led to.
PERSON, SCHEDULED, FOLLOW_UP = 2, 1, 0
#: Lanes with a route that has a token bucket: their work may wait for minutes.
SLOW = frozenset(entity.lane for entity in ENTITIES if entity.route.group)


class Queue(Protocol):
    """What both brokers add to `dramatiq.Broker`. All of them but `close` raise BrokerUnavailable or a DatabaseUnavailable.

    Attributes:
        slow_queues: queues whose routes have a token bucket. A process takes one message at a time from each of them, so
            that work that waits for tokens neither fills its threads nor sits unacknowledged.
        is_stopping: its consumers, which have a method `wake`, do not wait for long any more.
    """

    slow_queues: frozenset[str]
    is_stopping: bool

    @property
    def stored_here(self) -> Sequence[str]:
        """Names of the queues whose messages are in the database."""

    def check(self) -> None:
        """Connect and declare every queue. Raises QueueMismatch, QueueTaken or BrokerRefused too."""

    def enqueue_many(self, messages: Sequence[dramatiq.Message]) -> None:  # type: ignore[type-arg]
        """Publish messages; on return all of them are safe. Raises NotTaken where that is known of some only."""

    def ready(self) -> None:
        """Return when messages can be published now."""

    def depths(self) -> dict[str, int]:
        """Messages that wait, by queue name."""

    def busy(self) -> set[str]:
        """Names of the queues with messages that a worker would get now."""

    def purge(self, queue_name: str) -> int:
        """Empty one queue; returns how many messages were in it."""

    def close(self) -> None:
        """Close what it has opened."""


def queue_name(prefix: str, lane: str) -> str:
    """The name of a lane's queue at the broker."""
    return f"{prefix}.{lane}"


def open_broker(
    store: Store, rabbitmq_url: str, prefix: str, middleware: Sequence[dramatiq.Middleware] = ()
) -> RabbitBroker | DatabaseBroker:
    """The broker that the settings name, with one queue for each lane. Connects to nothing yet.

    Args:
        rabbitmq_url: empty = the queue lives in the database.
        middleware: all of it; Dramatiq's defaults are not used.
    """
    slow = frozenset(queue_name(prefix, lane) for lane in SLOW)
    broker: RabbitBroker | DatabaseBroker
    if rabbitmq_url:
        from esid.queue import marker  # a library that the embedded default has no use for
        from esid.queue.rabbitmq import RabbitBroker

        broker = RabbitBroker(rabbitmq_url, list(middleware), store, queue_name(prefix, marker.NAME), slow)
    else:
        broker = DatabaseBroker(store, list(middleware), slow)
    for lane in NAMES:
        broker.declare_queue(queue_name(prefix, lane))
    return broker
