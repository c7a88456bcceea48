"""Publishes what waits in the ledger: what is due, what has gathered, and what has lost its message."""

from __future__ import annotations

from collections.abc import Sequence

from esid.entities import ENTITIES
from esid.entities.base import BULK_ABOVE, Entity
from esid.queue.asking import AT_ONCE
from esid.queue.broker import SCHEDULED
from esid.queue.publish import Publisher
from esid.store import ledger, messages, recoveries
from esid.store.connection import Store

#: Seconds that an open job may be untouched while its queue has messages, and how many such jobs one sweep publishes again.
BUSY_QUIET_S, BUSY_AT_ONCE = 3000.0, 500
#: Seconds that ids for a bulk route wait for company while other work is open.
GATHER_S = 30.0


def dispatch(store: Store, publisher: Publisher, queues: Sequence[str]) -> int:
    """Publish what waits in the ledger and whose time has come: retries, intents, and full batches before their time."""
    count, waiting = 0, ledger.waiting(store, [entity.name for entity in ENTITIES if entity.lane in queues])
    for entity in (entity for entity in ENTITIES if entity.name in waiting):
        if entity.bulk:
            count += _dispatch_batches(store, publisher, entity)
        ids = ledger.claim(store, entity.name, ledger.unpublished(store, entity.name, AT_ONCE, far=not entity.bulk))
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
        ids = ids[: len(ids) - len(ids) % (entity.bulk.batch if entity.bulk else 1)]
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
    names = ledger.with_orphans(store, [entity.name for entity in ENTITIES if entity.lane in queues], quiet_s)
    for entity in (entity for entity in ENTITIES if entity.name in names):
        is_busy = any(name.endswith(f".{entity.lane}") for name in busy)
        wait_s, most = (max(quiet_s, BUSY_QUIET_S), BUSY_AT_ONCE) if is_busy else (quiet_s, AT_ONCE)
        ids = ledger.orphaned(store, entity.name, wait_s, most)
        ids = ledger.adopt(store, entity.name, ids, wait_s)
        publisher.publish(entity, ids, SCHEDULED)
        count += len(ids)
    return count


def publish_anew(store: Store, publisher: Publisher) -> int:
    """Have everything that waits published again, by whoever schedules; the messages that nobody will consume go.

    For a queue that is in another place than before. A message too many is harmless. Returns how many jobs wait.
    """
    messages.clear_but(store, publisher.broker.stored_here)
    return sum(ledger.publish_again(store, entity.name) for entity in ENTITIES)
