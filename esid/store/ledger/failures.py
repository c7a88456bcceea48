"""Jobs that were not answered: failed attempts, and those that are put back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import esid.store.ledger.lookup as lookup
from esid import clock
from esid.errors import DAY_S
from esid.store import dead_letters
from esid.store.connection import Store
from esid.store.ledger.words import IS_OPEN, OPEN, PENDING, grace
from esid.store.model import Failure, utc_text

#: Seconds after which an id is asked again that never had an answer and is given up, where its error says nothing else.
UNKNOWN_AGAIN_S = 7 * DAY_S


def retry(
    store: Store,
    entity: str,
    waits: Mapping[int, float],
    failures: Mapping[int, Failure],
    at: dt.datetime | None = None,
) -> set[int]:
    """Count a failed attempt of each id and let it wait. Returns those of which that is so: a job that somebody else has
    done meanwhile, or is to be asked for with another argument, has not failed.

    Args:
        waits: seconds by id. An id of `failures` without a wait is given up: dead letter, status failed.
        at: when they failed; now.
    """

    now = at or clock.now()
    return store.run(lambda: count(store, entity, waits, failures, now))


def count(
    store: Store, entity: str, waits: Mapping[int, float], failures: Mapping[int, Failure], now: dt.datetime
) -> set[int]:
    """The same in the caller's transaction."""
    counted = set[int]()
    for key in sorted(failures):
        failure, wait_s = failures[key], waits.get(key)
        due = None if wait_s is None else utc_text(now + dt.timedelta(seconds=wait_s))
        attempts, was_known = _count(store, entity, key, failure, now, due)
        if attempts and due is None:
            first_at = dead_letters.add(store, entity, key, failure, attempts, now)
            _plan(store, entity, key, _again_at(failure, first_at, now, was_known=was_known))
        counted |= {key} if attempts else set()
    return counted


def defer(store: Store, entity: str, ids: Sequence[int], wait_s: float, *, locking: Sequence[int] = ()) -> None:
    """Put ids back that could not be asked now; no attempt is counted. `locking`: see `lookup.update`."""
    if ids:
        now = clock.now()
        values = utc_text(now + dt.timedelta(seconds=wait_s)), utc_text(now)
        lookup.update(store, entity, ids, OPEN, PENDING, values, locking=locking)


def touch(store: Store, entity: str, ids: Sequence[int]) -> None:
    """Somebody works on these ids still: those of which that is so are not taken for orphaned."""
    stamp = utc_text(clock.now())
    lookup.update(store, entity, ids, ("processing",), "updated_at = %s", (stamp,))


def give_back(
    store: Store, entity: str, ids: Sequence[int], *, comes_back: bool = True, locking: Sequence[int] = ()
) -> None:
    """Nobody works on these ids any more.

    Args:
        comes_back: their message is on its way back to the queue. One that was lost with its connection somebody else may
            have had since, and the scheduler publishes what is not taken in time.
        locking: see `lookup.update`.
    """
    if ids:
        now = clock.now()
        values = None if comes_back else grace(now), utc_text(now)
        lookup.update(store, entity, ids, ("processing",), PENDING, values, locking=locking)


def revive(store: Store, entities: Sequence[str], since: dt.datetime) -> int:
    """What failed since then was not the ids' own: it is due now, and has had no attempt; the error that it had stays until
    it is answered. Returns how many.

    An id that killed its worker did so whatever ESI answered.
    """

    def work() -> int:
        now = clock.now()
        stamp, began, count = utc_text(now), utc_text(since), 0
        for entity in entities:
            rows = store.rows(
                "SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND updated_at >= %s AND error IS NOT NULL "
                "AND (status = 'failed' OR (status = 'pending' AND due_at > %s)) AND error <> 'purged' "
                "AND error NOT LIKE 'killed_worker:%%' ORDER BY entity_id",
                (entity, began, stamp),
            )
            ids = [key for (key,) in rows]
            lookup.update(
                store, entity, ids, ("failed", "pending"), "next_at = CASE status WHEN 'failed' THEN NULL ELSE next_at END, "
                "status = 'pending', due_at = %s, retry_count = 0, updated_at = %s", (stamp, stamp),
            )  # fmt: skip
            count += len(ids)
        return count

    return store.run(work)


def _count(store: Store, entity: str, key: int, failure: Failure, now: dt.datetime, due_at: str | None) -> tuple[int, bool]:
    """Count a failed attempt of one job, which is given up where it has no time.

    Returns:
        (its attempts so far, whether it ever had an answer). 0 = it is not open.
    """
    booked = ("pending" if due_at else "failed", _line(failure), due_at)
    rows = store.rows(
        "UPDATE sync_jobs SET status = %s, error = %s, due_at = %s, updated_at = %s, retry_count = retry_count + 1 "
        f"WHERE entity_type = %s AND entity_id = %s AND {IS_OPEN} AND COALESCE(argument, '') = COALESCE(%s, argument, '') "
        "AND retry_count = COALESCE(%s, retry_count) RETURNING retry_count, COALESCE(checked_at, expires_at)",
        (*booked, utc_text(now), entity, key, failure.argument, failure.attempt),
    )
    if not rows and failure.attempt is not None:
        # A commit whose answer was lost is repeated, and finds what this very call has written.
        rows = store.rows(
            "SELECT retry_count, COALESCE(checked_at, expires_at) FROM sync_jobs WHERE entity_type = %s AND entity_id = %s "
            "AND status = %s AND error = %s AND updated_at = %s AND retry_count = %s",
            (entity, key, *booked[:2], utc_text(now), failure.attempt + 1),
        )
    return (int(rows[0][0]), rows[0][1] is not None) if rows else (0, False)


def _again_at(failure: Failure, first_at: dt.datetime, now: dt.datetime, *, was_known: bool) -> dt.datetime:
    """When an id that is given up is asked again. Nothing is given up for good, least of all what once had an answer."""
    after_s, for_s = failure.ask_again_after_s, failure.ask_again_for_s
    if after_s is None or (for_s is not None and now - first_at > dt.timedelta(seconds=for_s)):
        after_s = DAY_S if was_known else UNKNOWN_AGAIN_S
    return now + dt.timedelta(seconds=after_s)


def _plan(store: Store, entity: str, key: int, at: dt.datetime) -> None:
    store.rows("UPDATE sync_jobs SET next_at = %s WHERE entity_type = %s AND entity_id = %s", (utc_text(at), entity, key))


def _line(failure: Failure) -> str:
    return dead_letters.clean(f"{failure.reason}: {failure.message}"[:500])
