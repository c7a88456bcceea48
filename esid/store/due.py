"""What of the ledger is to be asked again: the query behind every full sync and refresh."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from esid import clock
from esid.store import notes
from esid.store.connection import Store
from esid.store.ledger import PUBLISH_GRACE_S
from esid.store.model import Patience, utc_text


def due(
    store: Store,
    entity: str,
    *,
    expired: bool = True,
    looked_before: dt.datetime | None = None,
    patience: Sequence[Patience] = (),
    limit: int = 10_000,
) -> list[int]:
    """Make up to `limit` known ids pending that are to be asked again, and return them.

    Args:
        expired: those whose answer has expired.
        looked_before: those last looked at before this time (characters, whose bulk routes send no Expires), but for the
            ones that break a batch.
        patience: how much longer what has slept may lie, the longest sleep first.
    """

    def work() -> list[int]:
        now = clock.now()
        condition, parameters = is_due(now if expired else None, looked_before, patience)
        # What somebody else is making pending at this moment is passed over: waiting for it would end with an empty hand,
        # as if nothing more were due. Not materialized, the locking part would be read as often as PostgreSQL likes, for
        # more rows than the limit.
        # By the time of expiry where nothing else is asked for: with few expired among many that never do, the order of the
        # ids would have PostgreSQL read them all.
        order = "entity_id" if looked_before else "expires_at, entity_id"
        locking = "" if store.is_sqlite else " FOR UPDATE SKIP LOCKED"
        returned = store.rows(
            "WITH wanted AS MATERIALIZED (SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND status IN "
            f"('completed', 'failed') AND ({condition}) ORDER BY {order} LIMIT %s{locking}) "
            "UPDATE sync_jobs SET status = 'pending', retry_count = 0, error = NULL, due_at = %s, updated_at = %s "
            "WHERE entity_type = %s AND entity_id IN (SELECT entity_id FROM wanted) RETURNING entity_id",
            (entity, *parameters, limit, utc_text(now + dt.timedelta(seconds=PUBLISH_GRACE_S)), utc_text(now), entity),
        )
        return sorted(key for (key,) in returned)

    return store.run(work)


def is_due(
    expired_by: dt.datetime | None, looked_before: dt.datetime | None, patience: Sequence[Patience]
) -> tuple[str, list[Any]]:
    """The condition of `due`, and its parameters."""
    conditions, parameters = [], list[Any]()
    if expired_by:
        slept, more = _lies_for("expires_at", expired_by, patience)
        conditions.append(f"expires_at <= %s AND (status = 'failed' OR {slept})")
        parameters += [utc_text(expired_by), *more]
    if looked_before:
        slept, more = _lies_for("checked_at", looked_before, patience)
        conditions.append(
            f"status = 'completed' AND checked_at <= %s AND {slept} AND NOT EXISTS (SELECT 1 FROM unbatchable "
            "WHERE unbatchable.entity_type = sync_jobs.entity_type AND unbatchable.entity_id = sync_jobs.entity_id "
            "AND unbatchable.created_at > %s)"
        )
        parameters += [utc_text(looked_before), *more, notes.barred_since()]
    return " OR ".join(f"({one})" for one in conditions) or "1 = 0", parameters


def _lies_for(column: str, time: dt.datetime, patience: Sequence[Patience]) -> tuple[str, list[Any]]:
    """True for a row whose time lies as far before `time` as its sleep asks for."""
    if not patience:
        return "1 = 1", []
    changed = "COALESCE(changed_at, created_at)"
    cases = " ".join([f"WHEN {changed} <= %s THEN {column} <= %s"] * len(patience))
    parameters = [utc_text(value) for one in patience for value in (one.changed_before, time - one.extra)]
    return f"CASE {cases} ELSE 1 = 1 END", parameters
