"""What a person or the schedule asks for: ids, full syncs, purges, dead letters back to work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from itertools import islice

from esid import clock
from esid.catalogue import NAMES
from esid.entities import ENTITIES, LISTS
from esid.entities.base import LIST_ID, Entity
from esid.queue.broker import PERSON, SCHEDULED, queue_name
from esid.queue.incoming import NoMessage, decode
from esid.queue.publish import Publisher
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.store.ledger import Accepted, due
from esid.store.model import Seen

#: Ids that are looked up and published at a time, so that memory stays flat however many there are.
AT_ONCE = 5000


class Asking:
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
        """A full sync of one lane: its lists, and every known id that may be asked again.

        Inside the cache time nothing is due and nothing is asked. The schedule asks less often for what has slept (see
        `entities.cadence`), and for the answers of bulk routes by `refresh`. Returns how many jobs were queued.
        """
        count, by_schedule = 0, priority == SCHEDULED
        for entity in LISTS[queue]:
            count += sum(len(part.queued) for part in self.enqueue(entity, [(LIST_ID, None)], priority))
        for entity in ENTITIES:
            if entity.lane == queue and entity not in LISTS[queue]:
                count += self._publish_all(
                    entity, priority, self._scheduled(entity) if by_schedule else self._expired(entity)
                )
        return count

    def refresh(self, queue: str) -> int:
        """Ask the bulk routes again for what they were not asked for within their cache time. Returns how many ids."""
        return sum(
            self._publish_all(entity, SCHEDULED, self._to_refresh(entity))
            for entity in ENTITIES
            if entity.lane == queue and entity.bulk
        )

    def purge(self, queue: str) -> tuple[int, int]:
        """Empty the queue of one lane; (messages, jobs) that waited. The jobs are due again at the next scheduled sync."""
        messages = self._publisher.broker.purge(queue_name(self._prefix, queue))
        return messages, sum(
            ledger.purge(self._store, entity.name, in_bulk=entity.bulk is not None)
            for entity in ENTITIES
            if entity.lane == queue
        )

    def retry_dead(self, wanted: Filter) -> int:
        """Ask again for dead ids, and send messages of once unknown actors again. Twice is one effect.

        Returns how many were queued.
        """
        count = 0
        for letters in dead_letters.pages(self._store, wanted):
            count += sum(map(self._send_again, letters))
            for entity in ENTITIES:
                keys = [
                    (one.entity_id, None) for one in letters if one.entity_type == entity.name and one.entity_id is not None
                ]
                count += sum(len(accepted.queued) for accepted in self.enqueue(entity, keys))
        return count

    def _send_again(self, letter: DeadLetter) -> bool:
        """A message that nobody understood, word for word; False for any other letter."""
        if letter.reason != dead_letters.RESENDABLE or letter.body is None:
            return False
        for name in sorted(queue_name(self._prefix, lane) for lane in NAMES):
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
        if entity.route.is_lasting:
            return self._scheduled(entity)
        return due.by_person(self._store, entity.name, _looked_before(entity), AT_ONCE)

    def _publish_all(self, entity: Entity, priority: int, parts: Iterable[list[int]]) -> int:
        count = 0
        for ids in parts:
            self._publisher.publish(entity, ids, priority)
            count += len(ids)
        return count


def _looked_before(entity: Entity) -> dt.datetime | None:
    return clock.now() - dt.timedelta(seconds=entity.bulk.good_s) if entity.bulk else None
