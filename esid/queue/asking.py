"""What a person or the schedule asks for: ids, full syncs, purges, dead letters back to work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from esid import clock
from esid.entities import ENTITIES, LISTS
from esid.entities.base import BULK_ABOVE, LIST_ID, Entity
from esid.queue.broker import PERSON, SCHEDULED, queue_name
from esid.queue.incoming import NoMessage, decode
from esid.queue.publish import Publisher
from esid.store import dead_letters, ledger, messages, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.store.ledger import Accepted, due
from esid.store.model import Seen

#: Ids that are looked up and published at a time, so that memory stays flat however many there are.
AT_ONCE = 5000
#: Seconds that an open job may be untouched while its queue has messages, and how many such jobs one sweep publishes again.
BUSY_QUIET_S, BUSY_AT_ONCE = 3000.0, 500
#: Seconds that ids for a bulk route wait for company while other work is open.
GATHER_S = 30.0


class Requests:
    """Asks the daemon (running now or later) for work."""

    def __init__(self, store: Store, publisher: Publisher, prefix: str) -> None:
        self._store, self._publisher, self._prefix = store, publisher, prefix

    def check(self) -> None:
        """See that a broker is there and that its queues are ours, before anything is asked for or taken away.

        Raises:
            BrokerUnavailable, BrokerRefused, QueueMismatch, QueueTaken: with the cause and the cure.
        """
        if not self._publisher.broker.stored_here:
            self._publisher.broker.check()

    def enqueue(
        self, entity: Entity, wanted: Iterable[tuple[int, str | None]], priority: int = PERSON, *, whole: bool = False
    ) -> Iterator[Accepted]:
        """Ask for ids, 5000 at a time; each part is safe when it is yielded.

        Args:
            wanted: (id, argument) each; the argument is a killmail's hash.
            whole: their answers are wanted whole, whatever their ETag says.
        """
        ids = iter(wanted)
        while part := dict(islice(ids, AT_ONCE)):
            seen = [Seen(entity.name, key, argument) for key, argument in part.items()]
            by_person = priority == PERSON
            accepted = ledger.request(
                self._store, seen, looked_before=_looked_before(entity), whole=whole, by_person=by_person
            )
            self._publisher.publish(entity, accepted.queued, priority)
            yield accepted

    def sync(self, queue: str, priority: int = SCHEDULED) -> int:
        """A full sync of one mirrored entity: its lists, and every known id that may be asked again.

        Inside the cache time nothing is due and nothing is asked. The schedule asks less often for what has slept (see
        `entities.cadence`), and for the answers of bulk routes by `refresh`. Returns how many jobs were queued.
        """
        count, by_schedule = 0, priority == SCHEDULED
        for entity in LISTS[queue]:
            count += sum(len(part.queued) for part in self.enqueue(entity, [(LIST_ID, None)], priority))
        for entity in ENTITIES:
            if entity.queue == queue and entity not in LISTS[queue]:
                count += self._publish_all(
                    entity, priority, self._scheduled(entity) if by_schedule else self._expired(entity)
                )
        return count

    def refresh(self, queue: str) -> int:
        """Ask the bulk routes again for what they were not asked for within their cache time. Returns how many ids."""
        return sum(
            self._publish_all(entity, SCHEDULED, self._to_refresh(entity))
            for entity in ENTITIES
            if entity.queue == queue and entity.bulk_s
        )

    def purge(self, queue: str) -> tuple[int, int]:
        """Empty one entity's queue; (messages, jobs) that waited. The jobs are due again at the next scheduled sync."""
        messages = self._publisher.broker.purge(queue_name(self._prefix, queue))
        return messages, sum(
            ledger.purge(self._store, entity.name, in_bulk=entity.bulk_s is not None)
            for entity in ENTITIES
            if entity.queue == queue
        )

    def retry_dead(self, wanted: Filter) -> int:
        """Ask again for dead ids, and send messages of once unknown actors again. Twice is one effect.

        Returns how many were queued.
        """
        count = 0
        for letters in dead_letters.pages(self._store, wanted):
            count += sum(map(self._send_again, letters))
            for entity in ENTITIES:
                keys = [(one.entity_id, None) for one in letters if one.entity_type == entity.name and one.entity_id]
                count += sum(len(accepted.queued) for accepted in self.enqueue(entity, keys))
        return count

    def _send_again(self, letter: DeadLetter) -> bool:
        """A message that nobody understood, word for word; False for any other letter."""
        if letter.reason != dead_letters.RESENDABLE or letter.body is None:
            return False
        for name in sorted({queue_name(self._prefix, entity.queue) for entity in ENTITIES}):
            try:
                message = decode(letter.body.encode(), name)
            except NoMessage:
                continue
            self._publisher.broker.enqueue_many([message])
            return dead_letters.drop(self._store, Filter(ids=(letter.id,))) > 0
        return False

    def _scheduled(self, entity: Entity) -> Iterator[list[int]]:
        while ids := due.by_schedule(self._store, entity.name, AT_ONCE):
            yield ids

    def _to_refresh(self, entity: Entity) -> Iterator[list[int]]:
        while ids := due.to_refresh(self._store, entity.name, AT_ONCE):
            yield ids

    def _expired(self, entity: Entity) -> Iterator[list[int]]:
        # What never changes never expires: a person may ask for what the schedule asks for.
        if entity.argument:
            return self._scheduled(entity)
        return due.by_person(self._store, entity.name, _looked_before(entity), AT_ONCE)

    def _publish_all(self, entity: Entity, priority: int, parts: Iterable[list[int]]) -> int:
        count = 0
        for ids in parts:
            self._publisher.publish(entity, ids, priority)
            count += len(ids)
        return count


def dispatch(store: Store, publisher: Publisher, queues: Sequence[str]) -> int:
    """Publish what waits in the ledger and whose time has come: retries, intents, and full batches before their time."""
    count, waiting = 0, ledger.waiting(store, [entity.name for entity in ENTITIES if entity.queue in queues])
    for entity in (entity for entity in ENTITIES if entity.name in waiting):
        if entity.batch:
            count += _dispatch_batches(store, publisher, entity)
        ids = ledger.claim(store, entity.name, ledger.unpublished(store, entity.name, AT_ONCE, far=not entity.batch))
        if ids:
            # An id whose worker died or whose message was divided goes in a smaller message: see `store.recoveries`.
            suspects = recoveries.suspects(store, entity.name)
            publisher.publish(entity, [key for key in ids if key not in suspects], SCHEDULED)
            for kind in sorted({suspects[key] for key in ids if key in suspects}):
                part = [key for key in ids if suspects.get(key) == kind]
                in_batches = kind[0] > BULK_ABOVE
                publisher.publish(entity, part, SCHEDULED, in_batches=in_batches, most=kind[0], quarantined=kind[1])
        count += len(ids)
    return count


def publish_anew(store: Store, publisher: Publisher) -> int:
    """Have everything that waits published again, by whoever schedules; the messages that nobody will consume go.

    For a queue that is in another place than before. A message too many is harmless. Returns how many jobs wait.
    """
    messages.clear_but(store, publisher.broker.stored_here)
    return sum(ledger.publish_again(store, entity.name) for entity in ENTITIES)


def _dispatch_batches(store: Store, publisher: Publisher, entity: Entity) -> int:
    """Publish ids that wait for company: full batches at once, the rest when nothing may add to it or it has waited.

    Work of any daemon may add to it: one that works on characters alone would otherwise ask for each handful by itself.
    """
    ids, waited_s = ledger.gathered(store, entity.name, AT_ONCE)
    others = [other.name for other in ENTITIES if other.name != entity.name]
    if ids and not ledger.was_asked(store, entity.name):
        # The first handful that anybody has ever seen does not wait: whoever has just begun wants to see rows.
        ids = ids[:BULK_ABOVE]
    elif ids and waited_s < GATHER_S and ledger.is_open(store, others):
        ids = ids[: len(ids) - len(ids) % (entity.batch or 1)]
    ids = ledger.claim(store, entity.name, ids)
    publisher.publish(entity, ids, SCHEDULED)
    return len(ids)


def sweep(store: Store, publisher: Publisher, queues: Sequence[str], quiet_s: float) -> int:
    """Publish again what has no live message: open jobs that nothing touched for `quiet_s` while their queue is empty.

    Where a queue is never empty, nobody can tell a lost message from one that waits: the oldest of those are published
    again that wait for most of an hour, a few at a time, so that a queue which is that long grows by little.

    A message too many is harmless: what was done meanwhile is not taken again.
    """
    count, busy = 0, publisher.broker.busy()
    for entity in (entity for entity in ENTITIES if entity.queue in queues):
        is_busy = any(name.endswith(f".{entity.queue}") for name in busy)
        wait_s, most = (max(quiet_s, BUSY_QUIET_S), BUSY_AT_ONCE) if is_busy else (quiet_s, AT_ONCE)
        ids = ledger.orphaned(store, entity.name, wait_s, most)
        ids = ledger.adopt(store, entity.name, ids, wait_s)
        publisher.publish(entity, ids, SCHEDULED)
        count += len(ids)
    return count


def _looked_before(entity: Entity) -> dt.datetime | None:
    return clock.now() - dt.timedelta(seconds=entity.bulk_s) if entity.bulk_s else None
