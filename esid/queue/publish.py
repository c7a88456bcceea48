"""Turns ids into messages and tells the ledger that they are in the queue. The only module that makes messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dramatiq

from esid import clock
from esid.entities.base import BULK_ABOVE, IDS_PER_MESSAGE, Entity
from esid.queue.broker import Queue, queue_name
from esid.queue.incoming import QUARANTINE
from esid.store import ledger
from esid.store.connection import Store

#: Ids that are marked as queued in one transaction.
_AT_ONCE = 5000


class Publisher:
    """Publishes to the queues of one prefix.

    Args:
        broker: where to.
        prefix: first part of the queues' names.
    """

    def __init__(self, store: Store, broker: Queue, prefix: str) -> None:
        self._store, self.broker, self._prefix = store, broker, prefix

    def publish(
        self,
        entity: Entity,
        ids: Sequence[int],
        priority: int,
        *,
        in_batches: bool = True,
        most: int = IDS_PER_MESSAGE,
        quarantined: bool = False,
    ) -> None:
        """Put pending ids of one entity into its queue.

        Args:
            in_batches: many ids go into messages for the bulk routes, where the entity has some.
            most: ids of a message for the other routes.
            quarantined: a process works on one such message at a time.

        Raises:
            BrokerUnavailable, DatabaseUnavailable: what was not published stays pending in the ledger and is
                published by the scheduler.
        """
        size = most
        if entity.batch:
            size = entity.batch if in_batches and len(ids) > BULK_ABOVE else min(most, BULK_ABOVE)
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            since = clock.now()
            self.broker.enqueue_many([self._message(entity, chunk, priority, quarantined) for chunk in _chunks(part, size)])
            ledger.queued(self._store, entity.name, part, since)

    def _message(self, entity: Entity, ids: Sequence[int], priority: int, quarantined: bool) -> dramatiq.Message[Any]:
        return dramatiq.Message(
            queue_name=queue_name(self._prefix, entity.queue),
            actor_name=entity.name,
            args=(list(ids),),
            kwargs={},
            options={"broker_priority": priority, **({QUARANTINE: True} if quarantined else {})},
        )


def _chunks(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
