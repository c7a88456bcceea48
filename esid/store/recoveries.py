"""Deaths of workers with an id in hand, counted apart from failures: the id is asked again alone, and given up in time.

A message of many ids that kills its worker is split, and what was in hand at a second death runs in quarantine: one
message at a time in a process. So only the id that does it is given up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from esid import clock
from esid.store import ledger
from esid.store.connection import Store
from esid.store.ledger import lookup
from esid.store.model import Failure, utc_text, utc_time

#: Seconds that an id waits after the first, second and third death of a worker that held it; then it is dead.
WAITS_S = (0.0, 30.0, 300.0)
#: Seconds after which a death is forgotten.
WITHIN_S = 72 * 3600.0
#: Ids of a message made of one for a bulk route. An ordinary one, of twice as many at most, is taken apart at once.
PART = 10
#: Deaths from which on an id runs in quarantine.
QUARANTINE = 2
#: Seconds that a redelivered id waits, so that the death of its worker is booked before another one takes it.
SETTLE_S = 2.0
_FORGET_UNCOUNTED_S = 600.0
_COLUMNS = ("entity_type", "entity_id", "count", "ids_per_message", "again_at", "first_at", "last_at")


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of the ids that a dead worker held: seconds to wait by id, and the ids that are given up."""

    waits: dict[int, float]
    dead: tuple[int, ...]


def book(store: Store, entity: str, ids: Sequence[int], *, quarantined: bool = False) -> Booked:
    """A worker died while it worked on one message with these ids: count it for those that are still open.

    An id that was alone in quarantine when its worker died, for the fourth time within 72 h, is given up
    (`killed_worker`).
    """
    now = clock.now()
    return store.run(lambda: _book(store, entity, ids, quarantined, now)) if ids else Booked({}, ())


def isolate(store: Store, entity: str, ids: Sequence[int]) -> None:
    """A message came again although somebody works on it: those ids go on alone, a little later, uncounted.

    Its worker may have died, and only the replacement knows (see `book`); meanwhile nobody else is to die of it.
    """
    if ids:
        store.run(lambda: _isolate(store, entity, ids, _part(ids), SETTLE_S))


def divide(store: Store, entity: str, ids: Sequence[int]) -> None:
    """One of these ids of a message has failed all of them: they go on in halves, and a few of them alone, uncounted."""
    most = (len(ids) + 1) // 2 if len(ids) > 2 * PART else 1
    store.run(lambda: _isolate(store, entity, ids, most, 0.0))


def suspects(store: Store, entity: str) -> dict[int, tuple[int, bool]]:
    """Id -> (most ids of a message that it may be in, whether it runs in quarantine), for ids whose worker has died."""
    with store.connection():
        rows = store.rows("SELECT entity_id, ids_per_message, count FROM recoveries WHERE entity_type = %s", (entity,))
    return {key: (most, count >= QUARANTINE) for key, most, count in rows}


def prune(store: Store) -> int:
    """Forget what is long ago, or was written before the clock was set back; returns how many ids."""
    now = clock.now()
    old, uncounted, ahead = (
        utc_text(now - dt.timedelta(seconds=age)) for age in (WITHIN_S, _FORGET_UNCOUNTED_S, -_FORGET_UNCOUNTED_S)
    )
    sql = "DELETE FROM recoveries WHERE last_at <= %s OR (count = 0 AND last_at <= %s) OR last_at > %s RETURNING entity_id"
    return len(store.run(lambda: store.rows(sql, (old, uncounted, ahead))))


def counted(store: Store) -> list[tuple[str, int, int]]:
    """(entity, id, deaths) of every id that was in the hands of a worker when it died."""
    with store.connection():
        rows = store.rows("SELECT entity_type, entity_id, count FROM recoveries WHERE count > 0 ORDER BY 1, 2")
    return [(entity, key, count) for entity, key, count in rows]


def _isolate(store: Store, entity: str, ids: Sequence[int], most: int, wait_s: float) -> None:
    now = clock.now()
    again, stamp = utc_text(now + dt.timedelta(seconds=wait_s)), utc_text(now)
    rows = lookup.update(store, entity, ids, ("processing",), ledger.PENDING, (again, stamp), returning="entity_id")
    less = "MIN" if store.is_sqlite else "LEAST"
    store.insert(
        "recoveries",
        _COLUMNS,
        [(entity, key, 0, most, again, stamp, stamp) for (key,) in sorted(rows)],
        "ON CONFLICT (entity_type, entity_id) DO UPDATE SET "
        f"ids_per_message = {less}(recoveries.ids_per_message, excluded.ids_per_message)",
    )


def _book(store: Store, entity: str, ids: Sequence[int], quarantined: bool, now: dt.datetime) -> Booked:
    held = sorted(ids)
    # Two workers may have died of one id; who books second must see what the first has made of it.
    lock = "" if store.is_sqlite else " ORDER BY entity_id FOR UPDATE"
    jobs = store.rows(
        f"SELECT entity_id, status, updated_at FROM sync_jobs WHERE {lookup.among(store, (*ledger.OPEN, 'failed'))}{lock}",
        (entity, store.listed(held)),
    )
    before = {
        # A commit whose answer was lost is repeated, and finds the death that this very call has counted.
        key: (count - (utc_time(last) == now), first)
        for key, count, first, last in store.rows(
            "SELECT entity_id, count, first_at, last_at FROM recoveries WHERE entity_type = %s "
            f"AND {store.one_of('entity_id')}",
            (entity, store.listed(held)),
        )
        if (utc_time(last) or now) > now - dt.timedelta(seconds=WITHIN_S)
    }
    waits, dead = {}, []
    for key, status, touched in sorted(jobs):
        count, first = before.get(key, (0, now))
        if status == "failed":
            # Of those that are given up, only what this very call has given up when its commit was done before.
            dead += [key] if utc_time(touched) == now else []
            continue
        if quarantined and len(held) == 1 and count >= len(WAITS_S):
            _give_up(store, entity, key, now)
            dead.append(key)
            continue
        waits[key] = WAITS_S[min(count, len(WAITS_S) - 1)] if len(held) == 1 else 0.0
        _note(store, entity, key, count + 1, _part(held), waits[key], utc_time(first) or now, now)
    return Booked(waits, tuple(dead))


def _note(
    store: Store, entity: str, key: int, count: int, most: int, wait_s: float, first: dt.datetime, now: dt.datetime
) -> None:
    again = utc_text(now + dt.timedelta(seconds=wait_s))
    store.insert(
        "recoveries",
        _COLUMNS,
        [(entity, key, count, most, again, utc_text(first), utc_text(now))],
        "ON CONFLICT (entity_type, entity_id) DO UPDATE SET count = excluded.count, again_at = excluded.again_at, "
        "ids_per_message = excluded.ids_per_message, first_at = excluded.first_at, last_at = excluded.last_at",
    )
    store.rows(
        f"UPDATE sync_jobs SET {ledger.PENDING} WHERE entity_type = %s AND entity_id = %s",
        (again, utc_text(now), entity, key),
    )


def _give_up(store: Store, entity: str, key: int, now: dt.datetime) -> None:
    deaths = len(WAITS_S) + 1
    words = f"{deaths} worker processes died while they worked on it (the last one on nothing else that is suspect)"
    ledger.retry(store, entity, {}, {key: Failure("killed_worker", words)}, now)
    store.rows("DELETE FROM recoveries WHERE entity_type = %s AND entity_id = %s", (entity, key))


def _part(ids: Sequence[int]) -> int:
    return PART if len(ids) > 2 * PART else 1
