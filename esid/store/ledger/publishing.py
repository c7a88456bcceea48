"""Which jobs are to have a message: intents, those that wait for company, those whose message was lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import esid.store.ledger.lookup as lookup
from esid import clock
from esid.store.connection import Store
from esid.store.ledger.words import IS_OPEN, OPEN, PENDING, around, each, grace, waits_for_company
from esid.store.model import utc_text, utc_time

#: Seconds: nothing else waits as long. What is due later than that was written before the clock was set back.
_AHEAD_S = 7200.0
_QUIET = "due_at IS NULL AND (updated_at <= %s OR updated_at > %s)"


def queued(store: Store, entity: str, ids: Sequence[int], since: dt.datetime) -> None:
    """The broker has confirmed a message for these ids.

    Args:
        since: when publishing began. A job that a worker has touched meanwhile may wait for its retry already, and
            keeps its time. What is due later than any publisher's intents was put off by a worker, whose clock may be
            behind ours.
    """
    if ids:
        stamp, sets = utc_text(since), "due_at = NULL, updated_at = %s"
        ours = "updated_at <= %s AND (due_at IS NULL OR due_at <= %s OR due_at > %s)"
        limits = (stamp, grace(since), waits_for_company(since))
        lookup.update(store, entity, ids, ("pending",), sets, (stamp,), also=ours, limits=limits)


def waiting(store: Store, entities: Sequence[str]) -> set[str]:
    """Those of these entities of which `unpublished` or `gathered` may find ids, by two looks in an index for each."""
    first, last = (
        f"(SELECT {end}(due_at) FROM sync_jobs WHERE entity_type = column1 AND due_at IS NOT NULL)" for end in ("MIN", "MAX")
    )
    now, sql = clock.now(), f"SELECT column1 FROM {each(entities)} WHERE {first} <= %s OR {last} > %s"
    with store.connection():
        return {name for (name,) in store.rows(sql, (*entities, utc_text(now), waits_for_company(now)))}


def unpublished(store: Store, entity: str, limit: int, *, far: bool = False) -> list[int]:
    """Pending ids whose time to be published has come, the longest waiting first.

    Args:
        far: also those whose time is too far ahead for any wait: the clock was set back. Of an entity whose ids may wait
            for company `gathered` finds them.
    """
    now = clock.now()
    one = f"SELECT entity_id, due_at FROM sync_jobs WHERE entity_type = %s AND {IS_OPEN} AND due_at"
    parts = [f"{one} <= %s ORDER BY due_at, entity_id LIMIT %s"]
    parameters: list[Any] = [entity, utc_text(now), limit]
    if far:
        # Not by OR: every wait would be read.
        parts.append(f"{one} > %s ORDER BY due_at, entity_id LIMIT %s")
        parameters += [entity, utc_text(now + dt.timedelta(seconds=_AHEAD_S)), limit]
    union = " UNION ALL ".join(f"SELECT entity_id FROM ({part}) AS part_{number}" for number, part in enumerate(parts))
    with store.connection():
        return [key for (key,) in store.rows(f"{union} LIMIT %s", (*parameters, limit))]


def claim(store: Store, entity: str, ids: Sequence[int]) -> list[int]:
    """Those of `ids`, `unpublished` or `gathered`, that nobody else has claimed since; they are the caller's to publish.

    What is claimed and not published comes up again after the time that any publisher is given.
    """

    def work() -> list[int]:
        now = clock.now()
        # What was touched at a time to come (the clock was set back) is touched now: its publisher is to note what it has
        # published. Of all else the age stays: it tells for how long a broker has been away.
        touched = "updated_at = CASE WHEN updated_at > %s THEN %s ELSE updated_at END"
        stamp = utc_text(now)
        rows = lookup.update(
            store,
            entity,
            ids,
            OPEN,
            f"due_at = %s, {touched}",
            (grace(now), stamp, stamp),
            also="(due_at <= %s OR due_at > %s)",
            limits=(stamp, waits_for_company(now)),
            returning="entity_id",
        )
        return sorted(key for (key,) in rows)

    return store.run(work) if ids else []


def gathered(store: Store, entity: str, limit: int) -> tuple[list[int], float]:
    """Ids that wait for company, the longest waiting first, and the seconds that the first has waited."""
    now = clock.now()
    with store.connection():
        rows = store.rows(
            "SELECT entity_id, created_at FROM sync_jobs WHERE entity_type = %s AND due_at > %s AND status = 'pending' "
            "ORDER BY due_at, entity_id LIMIT %s",
            (entity, waits_for_company(now), limit),
        )
    first = utc_time(rows[0][1]) if rows else None
    # A time to come is one before the clock was set back.
    return [key for key, _ in rows], abs((now - first).total_seconds()) if first else 0.0


def orphaned(store: Store, entity: str, quiet_s: float, limit: int) -> list[int]:
    """Open ids that nothing has touched for `quiet_s` seconds although a message for them was confirmed; also those that
    were touched so far ahead: the clock was set back. The longest untouched first."""
    with store.connection():
        rows = store.rows(
            f"SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND {IS_OPEN} AND {_QUIET} "
            "ORDER BY updated_at, entity_id LIMIT %s",
            (entity, *around(quiet_s), limit),
        )
    return sorted(key for (key,) in rows)


def with_orphans(store: Store, entities: Sequence[str], quiet_s: float) -> list[str]:
    """Those of these entities of which `orphaned` finds an id: two ranges of an index for each."""
    is_there = f"EXISTS (SELECT 1 FROM sync_jobs WHERE entity_type = column1 AND {IS_OPEN} AND due_at IS NULL AND updated_at"
    sql = f"SELECT column1 FROM {each(entities)} WHERE {is_there} <= %s) OR {is_there} > %s)"
    with store.connection():
        found = {name for (name,) in store.rows(sql, (*entities, *around(quiet_s)))}
    return [entity for entity in entities if entity in found]


def publish_again(store: Store, entity: str) -> int:
    """Everything that has a message is due to be published once more; returns how many jobs."""
    now = utc_text(clock.now())
    sql = (
        "UPDATE sync_jobs SET due_at = %s, updated_at = %s WHERE entity_type = %s AND status = 'pending' AND due_at IS NULL "
        "RETURNING entity_id"
    )
    return len(store.run(lambda: store.rows(sql, (now, now, entity))))


def adopt(store: Store, entity: str, ids: Sequence[int], quiet_s: float) -> list[int]:
    """Those of `ids` that are orphaned still; they are the caller's to publish, as claimed ones are."""
    if not ids:
        return []
    now = clock.now()
    values, limits = (grace(now), utc_text(now)), around(quiet_s)
    rows = lookup.update(store, entity, ids, OPEN, PENDING, values, also=_QUIET, limits=limits, returning="entity_id")
    return sorted(key for (key,) in rows)
