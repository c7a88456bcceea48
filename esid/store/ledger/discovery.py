"""Ids that stood in answers become known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import esid.store.ledger.lookup as lookup
from esid.store.connection import Store
from esid.store.ledger.words import LONGEST_GATHER_S, by_entity, grace
from esid.store.model import Seen, utc_text


def discover(store: Store, seen: Iterable[Seen], now: dt.datetime, gathering: Collection[str] = ()) -> list[Seen]:
    """Make ids known, in the caller's transaction; return those that were new and are to be fetched."""
    by_key = {(one.entity, one.id): one for one in seen}
    # Known ids are left out first: on PostgreSQL even ON CONFLICT DO NOTHING waits for a row that another transaction is
    # updating, and two units of work that name each other's ids would wait in a circle.
    for entity, ids in by_entity(by_key.values()).items():
        for state in known(store, entity, ids):
            del by_key[entity, state[1]]
    return add(store, [one for _, one in sorted(by_key.items())], now, gathering)


def add(
    store: Store, unknown: Sequence[Seen], now: dt.datetime, gathering: Collection[str] = (), own_from: int | None = None
) -> list[Seen]:
    """The new ones among ids, in order, that nobody knew a moment ago, and that are to be fetched.

    Args:
        own_from: each became known at a time of its own, from that place on; None = all at once.
    """
    if not unknown:
        return []
    stamp, soon, gathered_at = utc_text(now), grace(now), grace(now, LONGEST_GATHER_S)
    values = [
        (
            one.entity, one.id, "pending" if one.asked else "completed", 0,
            stamp if own_from is None else own_time(now, place), stamp, one.argument,
            (gathered_at if one.entity in gathering else soon) if one.asked else None,
        )
        for place, one in enumerate(unknown, own_from or 0)
    ]  # fmt: skip
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "argument", "due_at",
    )  # fmt: skip
    new = store.insert("sync_jobs", columns, values, "ON CONFLICT DO NOTHING RETURNING entity_type, entity_id")
    by_key = {(one.entity, one.id): one for one in unknown}
    return [by_key[entity, key] for entity, key in new if by_key[entity, key].asked]


def known(store: Store, entity: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    """Of those of these ids that are known: status, id, expiry, argument, when it is due, when ESI was asked last, when the
    job was touched last, when the schedule asks, error."""
    columns = "status, entity_id, expires_at, argument, due_at, checked_at, updated_at, next_at, error"
    return lookup.jobs(store, entity, ids, columns)


def own_time(now: dt.datetime, place: int) -> str | None:
    """When the one at this place of many became known, at a time that none of the others has."""
    return utc_text(now + dt.timedelta(microseconds=place))
