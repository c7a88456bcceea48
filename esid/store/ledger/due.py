"""What of the ledger is to be asked again: the queries behind every full sync and refresh.

The schedule reads the times that stand in the ledger since an answer was booked, by one range of an index. A person waits
for the Expires alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import esid.store.ledger.lookup as lookup
from esid import bounds, clock
from esid.store import notes
from esid.store.connection import Store
from esid.store.ledger.words import OPEN, UNPLANNED, grace
from esid.store.model import utc_text

_NOT_BARRED = (
    "NOT EXISTS (SELECT 1 FROM unbatchable WHERE unbatchable.entity_type = sync_jobs.entity_type "
    "AND unbatchable.entity_id = sync_jobs.entity_id AND unbatchable.created_at > %s)"
)
#: The range of what the schedule asks of an id's own route: its parameters are the entity and now.
BY_SCHEDULE = "entity_type = %s AND next_at <= %s AND status IN ('completed', 'failed')"


def by_schedule(store: Store, entity: str, limit: int) -> list[int]:
    """Make up to `limit` known ids pending whose time has come, the longest waiting first, and return them."""
    return _take(store, entity, BY_SCHEDULE, (entity, utc_text(clock.now())), "next_at, entity_id", limit)


def to_refresh(store: Store, entity: str, limit: int) -> list[int]:
    """The same for the bulk routes, but for ids that break a batch. When their own route is asked stays as it is planned."""
    which = f"entity_type = %s AND refresh_at <= %s AND status = 'completed' AND {_NOT_BARRED}"
    values = (entity, utc_text(clock.now()), notes.barred_since())
    return _take(store, entity, which, values, "refresh_at, entity_id", limit, unplanned="refresh_at = NULL")


def by_person(store: Store, entity: str, looked_before: dt.datetime | None, at_once: int) -> Iterator[list[int]]:
    """The same for who asks now, all of them: whatever has expired, and what has failed and is due.

    Known ids are gone through in their order, so many at once that nobody waits long for any part: few may be due.

    Args:
        looked_before: also what was looked at last before this time (characters, whose bulk routes send no Expires).
        at_once: known ids of one look.
    """
    expired = "(expires_at <= %s OR expires_at > %s)"
    # Of a job that is open for its bulk route alone, somebody wants to know more now.
    is_known = f"(status = 'completed' OR (status IN {OPEN} AND next_at IS NOT NULL))"
    which = f"({is_known} AND {expired}) OR (status = 'failed' AND next_at <= %s)"
    if looked_before:
        which += f" OR (status = 'completed' AND (checked_at <= %s OR checked_at > %s) AND {_NOT_BARRED})"
    first: int | None = lookup.BEFORE_ALL
    while first is not None:
        now = clock.now()
        values: list[Any] = [utc_text(now), utc_text(bounds.expiry(now)), utc_text(now)]
        if looked_before:
            values += [utc_text(looked_before), utc_text(bounds.ahead(now)), notes.barred_since()]
        last = lookup.nth_after(store, entity, first, at_once)
        part = (entity, first, lookup.LAST_ID if last is None else last, *values)
        ids = _take(
            store,
            entity,
            f"entity_type = %s AND entity_id > %s AND entity_id <= %s AND ({which})",
            part,
            "entity_id",
            # More than that are there only if somebody adds ids meanwhile.
            2 * at_once,
        )
        if ids:
            yield ids
        first = last


def _take(
    store: Store, entity: str, which: str, values: Sequence[Any], order: str, limit: int, unplanned: str = UNPLANNED
) -> list[int]:
    def work() -> list[int]:
        now = clock.now()
        # What somebody else is making pending at this moment is passed over: waiting for it would end with an empty hand,
        # as if nothing more were due. Not materialized, the locking part would be read as often as PostgreSQL likes, for
        # more rows than the limit.
        locking = "" if store.is_sqlite else " FOR UPDATE SKIP LOCKED"
        returned = store.rows(
            "WITH wanted AS MATERIALIZED "
            f"(SELECT entity_id FROM sync_jobs WHERE {which} ORDER BY {order} LIMIT %s{locking}) "
            f"UPDATE sync_jobs SET status = 'pending', retry_count = 0, {unplanned}, due_at = %s, "
            "updated_at = %s WHERE entity_type = %s AND entity_id IN (SELECT entity_id FROM wanted) RETURNING entity_id",
            (*values, limit, grace(now), utc_text(now), entity),
        )
        return sorted(key for (key,) in returned)

    return store.run(work)
