"""Turns ids into messages and tells the ledger that they are in the queue. The only module that makes messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dramatiq

from esid import clock
from esid.entities.base import BULK_ABOVE, IDS_PER_MESSAGE, Entity
from esid.errors import NotTaken
from esid.queue.broker import Queue, queue_name
from esid.queue.incoming import QUARANTINE
from esid.store import ledger
from esid.store.connection import Store

#: Messages at the beginning of many that are small, and ids of each.
_SMALLS, _SMALL = 32, 3
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
        most: int | None = None,
        quarantined: bool = False,
    ) -> None:
        """Put pending ids of one entity into its queue.

        Args:
            in_batches: many ids go into messages for the bulk routes, where the entity has some.
            most: ids of a message, where it is to have fewer than usual.
            quarantined: a process works on one such message at a time.

        Raises:
            BrokerUnavailable, DatabaseUnavailable: what was not published stays pending in the ledger and is
                published by the scheduler.
        """
        size = IDS_PER_MESSAGE
        if entity.bulk:
            size = entity.bulk.batch if in_batches and len(ids) > BULK_ABOVE else BULK_ABOVE
        size = min(size, most or size)
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            since = clock.now()
            messages = [self._message(entity, chunk, priority, quarantined) for chunk in _chunks(part, size)]
            try:
                self.broker.enqueue_many(messages)
            except NotTaken as error:
                left = {key for message in error.messages for key in message.args[0]}
                ledger.queued(self._store, entity.name, [key for key in part if key not in left], since)
                raise
            ledger.queued(self._store, entity.name, part, since)

    def _message(self, entity: Entity, ids: Sequence[int], priority: int, quarantined: bool) -> dramatiq.Message[Any]:
        return dramatiq.Message(
            queue_name=queue_name(self._prefix, entity.lane),
            actor_name=entity.name,
            args=(list(ids),),
            kwargs={},
            options={"broker_priority": priority, **({QUARANTINE: True} if quarantined else {})},
        )


def _chunks(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Parts of at most that size. The first ones of many are small: while all threads are busy with whole messages of one
    kind, no other kind has its turn."""
    start, small = 0, min(size, _SMALL)
    if len(ids) > _SMALLS * size and size <= IDS_PER_MESSAGE:
        for start in range(0, _SMALLS * small, small):
            yield ids[start : start + small]
        start += small
    yield from (ids[place : place + size] for place in range(start, len(ids), size))
