"""Ids that somebody asks for, and those that are asked for no more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import esid.store.ledger.lookup as lookup
from esid import bounds, clock
from esid.store import sets
from esid.store.connection import Store
from esid.store.ledger.discovery import add, known, own_time
from esid.store.ledger.words import IS_OPEN, OPEN, UNPLANNED, grace, planned
from esid.store.model import Seen, utc_text, utc_time


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of ids that somebody asked for."""

    queued: tuple[int, ...]
    pending: tuple[int, ...]
    fresh: tuple[int, ...]


def request(
    store: Store,
    seen: Sequence[Seen],
    *,
    looked_before: dt.datetime | None = None,
    whole: bool = False,
    by_person: bool = False,
) -> Accepted:
    """Somebody asks for these ids (of one entity) now: new, due and failed ones become pending.

    Args:
        looked_before: also those last looked at before this time are due, whatever their Expires (see `due`).
        whole: their answers are wanted whole, whatever their ETag.
        by_person: what waits and was not asked yet waits no longer, and none shares a source with any other (see `Job`).
    """
    now = clock.now()
    if not seen:
        return Accepted((), (), ())
    return store.run(lambda: _request(store, seen, looked_before, now, whole=whole, by_person=by_person))


def reopen(store: Store, entity: str, ids: Sequence[int]) -> None:
    """Their rows are gone or spoiled although they were done: the next request for them is not answered by "fresh"."""
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        unknown = "error = 'its rows are missing', etag = NULL, expires_at = NULL"
        sets = f"status = 'failed', {unknown}, next_at = %s, updated_at = %s"
        now = utc_text(clock.now())
        lookup.update(store, entity, part, ("completed",), sets, (now, now))


def purge(store: Store, entity: str, *, in_bulk: bool = False) -> int:
    """The queue of `entity` was emptied: what waited in it is due again at the next scheduled sync.

    A job that has an answer goes back to it, with its expiry: a character that waited for its affiliation alone must not
    be asked for its details before they expire.

    Args:
        in_bulk: the entity has bulk routes.
    """

    def work() -> int:
        now = utc_text(clock.now())
        if not store.is_sqlite:
            # In the order of the ids, as everybody: see `lookup.update`.
            store.rows(
                f"SELECT 1 FROM sync_jobs WHERE entity_type = %s AND {IS_OPEN} ORDER BY entity_id FOR UPDATE", (entity,)
            )
        answered = store.rows(
            f"UPDATE sync_jobs SET status = 'completed', error = NULL, due_at = NULL, {planned(in_bulk=in_bulk)}, "
            f"updated_at = %s WHERE entity_type = %s AND {IS_OPEN} "
            "AND checked_at IS NOT NULL AND expires_at IS NOT NULL RETURNING entity_id",
            (now, entity),
        )
        others = store.rows(
            "UPDATE sync_jobs SET status = 'failed', error = 'purged', due_at = NULL, next_at = %s, "
            f"updated_at = %s WHERE entity_type = %s AND {IS_OPEN} RETURNING entity_id",
            (now, now, entity),
        )
        return len(answered) + len(others)

    return store.run(work)


def forget_etags(store: Store) -> None:
    """ETags belong to a compatibility date: after a change of it every answer is asked for whole. Joins a transaction."""
    store.rows("UPDATE sync_jobs SET etag = NULL WHERE etag IS NOT NULL")
    sets.forget_versions(store)


def _request(
    store: Store, seen: Sequence[Seen], looked_before: dt.datetime | None, now: dt.datetime, *, whole: bool, by_person: bool
) -> Accepted:
    by_id = {one.id: one for one in seen}
    entity = seen[0].entity
    late, again, pending, fresh = set[int](), set[int](), set[int](), set[int]()
    read = {}
    for status, key, expires, argument, due_at, checked, touched, next_at, error in known(store, entity, by_id):
        read[key] = status, touched, next_at
        wanted = by_id[key].argument
        other = wanted is not None and wanted != argument and status != "completed"
        is_put_off = by_person and status == "pending" and due_at is not None and checked is error is None
        if status in {"pending", "processing"} and not (other or is_put_off):
            # An intent that nobody published in time is published now.
            (late if _is_before(due_at, now) else pending).add(key)
        elif status == "completed" and _is_fresh(checked, expires, argument, looked_before, now):
            fresh.add(key)
        else:
            again.add(key)
    # What is open for its bulk route alone is open for all that may be asked from now on.
    if planned := [key for key in sorted(late | pending) if read[key][2] is not None]:
        lookup.update(store, entity, planned, OPEN, "next_at = NULL", ())
    own = {key: own_time(now, place) if by_person else None for place, key in enumerate(sorted(again))}
    taken = {
        key for key in sorted(again) if not _ask(store, by_id[key], read[key][:2], now, whole=whole, created_at=own[key])
    }
    # Somebody else has asked for these, or brought an answer, since they were read.
    again, pending = again - taken, pending | taken
    # Rows that are there are locked before others are added, as a unit of work does it.
    unknown = set(by_id) - late - again - pending - fresh
    new = {
        one.id for one in add(store, [by_id[key] for key in sorted(unknown)], now, own_from=len(own) if by_person else None)
    }
    pending |= unknown - new
    return Accepted(tuple(sorted(new | late | again)), tuple(sorted(pending)), tuple(sorted(fresh)))


def _ask(store: Store, seen: Seen, read: tuple[str, Any], now: dt.datetime, *, whole: bool, created_at: str | None) -> bool:
    """Make one known job pending; False where it is not as it was read any more: its state, and when it was touched.

    Args:
        created_at: of one without an answer; None = as it is.
    """
    own = "created_at = CASE WHEN checked_at IS NULL THEN COALESCE(%s, created_at) ELSE created_at END"
    sets = f"due_at = %s, updated_at = %s, argument = COALESCE(%s, argument), {own}, {UNPLANNED}"
    etag = ", etag = NULL" if whole else ""
    rows = store.rows(
        f"UPDATE sync_jobs SET status = 'pending', retry_count = 0, {sets}{etag} "
        "WHERE entity_type = %s AND entity_id = %s AND status = %s AND updated_at = %s RETURNING entity_id",
        (grace(now), utc_text(now), seen.argument, created_at, seen.entity, seen.id, *read),
    )
    return bool(rows)


def _is_fresh(checked: Any, expires: Any, argument: str | None, looked_before: dt.datetime | None, now: dt.datetime) -> bool:
    """True of an answer that need not be asked for; of one that never expires its times say nothing."""
    looked_at, until = bounds.happened(utc_time(checked), now), utc_time(expires)
    if until is not None and (bounds.expires(until, now) is None or until <= now):
        return False
    if looked_at is None:
        return checked is None and argument is not None
    return not (looked_before is not None and looked_at <= looked_before)


def _is_before(time: Any, limit: dt.datetime | None) -> bool:
    value = utc_time(time)
    return value is not None and limit is not None and value <= limit
