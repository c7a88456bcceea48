"""What a person or the schedule asks for: ids, full syncs, purges, dead letters back to work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from esid import clock
from esid.entities import ENTITIES, LISTS
from esid.entities.base import LIST_ID, Entity
from esid.entities.cadence import patience
from esid.queue.broker import PERSON, SCHEDULED, queue_name
from esid.queue.incoming import NoMessage, decode
from esid.queue.publish import Publisher
from esid.store import dead_letters, due, ledger, recoveries
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.store.ledger import Accepted
from esid.store.model import Seen

#: Ids that are looked up and published at a time, so that memory stays flat however many there are.
AT_ONCE = 5000
#: Seconds that ids for a bulk route wait for company while other work is open.
GATHER_S = 30.0


class Requests:
    """Asks the daemon (running now or later) for work."""

    def __init__(self, store: Store, publisher: Publisher, prefix: str) -> None:
        self._store, self._publisher, self._prefix = store, publisher, prefix

    def enqueue(
        self, entity: Entity, wanted: Iterable[tuple[int, str | None]], priority: int = PERSON
    ) -> Iterator[Accepted]:
        """Ask for ids, 5000 at a time; each part is safe when it is yielded.

        Args:
            wanted: (id, argument) each; the argument is a killmail's hash.
        """
        ids = iter(wanted)
        while part := dict(islice(ids, AT_ONCE)):
            seen = [Seen(entity.name, key, argument) for key, argument in part.items()]
            accepted = ledger.request(self._store, seen, looked_before=_looked_before(entity))
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
                count += self._sync_due(entity, priority, bulk=not by_schedule, patient=by_schedule)
        return count

    def refresh(self, queue: str) -> int:
        """Ask the bulk routes again for what they were not asked for within their cache time. Returns how many ids."""
        return sum(
            self._sync_due(entity, SCHEDULED, expired=False, patient=True)
            for entity in ENTITIES
            if entity.queue == queue and entity.bulk_s
        )

    def purge(self, queue: str) -> tuple[int, int]:
        """Empty one entity's queue; (messages, jobs) that waited. The jobs are due again at the next scheduled sync."""
        messages = self._publisher.broker.purge(queue_name(self._prefix, queue))
        return messages, sum(ledger.purge(self._store, entity.name) for entity in ENTITIES if entity.queue == queue)

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
        if letter.reason != "unknown_actor" or letter.body is None:
            return False
        for name in sorted({queue_name(self._prefix, entity.queue) for entity in ENTITIES}):
            try:
                message = decode(letter.body.encode(), name)
            except NoMessage:
                continue
            self._publisher.broker.enqueue_many([message])
            return dead_letters.drop(self._store, Filter(ids=(letter.id,))) > 0
        return False

    def _sync_due(self, entity: Entity, priority: int, *, expired: bool = True, bulk: bool = True, patient: bool) -> int:
        count, cache_s = 0, entity.route.cache_s if expired else entity.bulk_s or 0.0
        while ids := due.due(
            self._store,
            entity.name,
            expired=expired,
            looked_before=_looked_before(entity) if bulk else None,
            patience=patience(cache_s, clock.now()) if patient else (),
            limit=AT_ONCE,
        ):
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
            # An id whose worker died goes alone, or in a small message: see `store.recoveries`.
            suspects = recoveries.suspects(store, entity.name)
            publisher.publish(entity, [key for key in ids if key not in suspects], SCHEDULED)
            for kind in sorted({suspects[key] for key in ids if key in suspects}):
                part = [key for key in ids if suspects.get(key) == kind]
                publisher.publish(entity, part, SCHEDULED, in_batches=False, most=kind[0], quarantined=kind[1])
        count += len(ids)
    return count


def _dispatch_batches(store: Store, publisher: Publisher, entity: Entity) -> int:
    """Publish ids that wait for company: full batches at once, the rest when nothing may add to it or it has waited.

    Work of any daemon may add to it: one that works on characters alone would otherwise ask for each handful by itself.
    """
    ids, waited_s = ledger.gathered(store, entity.name, AT_ONCE)
    others = [other.name for other in ENTITIES if other.name != entity.name]
    if ids and waited_s < GATHER_S and ledger.is_open(store, others):
        ids = ids[: len(ids) - len(ids) % (entity.batch or 1)]
    ids = ledger.claim(store, entity.name, ids)
    publisher.publish(entity, ids, SCHEDULED)
    return len(ids)


def sweep(store: Store, publisher: Publisher, queues: Sequence[str], quiet_s: float) -> int:
    """Publish again what has no live message: open jobs that nothing touched for `quiet_s` while their queue is empty.

    A message too many is harmless: what was done meanwhile is not taken again.
    """
    count, busy = 0, publisher.broker.busy()
    for entity in (entity for entity in ENTITIES if entity.queue in queues):
        if any(name.endswith(f".{entity.queue}") for name in busy):
            continue
        ids = ledger.orphaned(store, entity.name, quiet_s, AT_ONCE)
        ids = ledger.adopt(store, entity.name, ids, quiet_s)
        publisher.publish(entity, ids, SCHEDULED)
        count += len(ids)
    return count


def _looked_before(entity: Entity) -> dt.datetime | None:
    return clock.now() - dt.timedelta(seconds=entity.bulk_s) if entity.bulk_s else None
