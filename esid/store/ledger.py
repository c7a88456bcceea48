"""The ledger `sync_jobs`: what is known, pending, fresh, failed. The memory of all work.

A pending row either has a live message in the queue (`due_at` NULL) or a time at which one is published (`due_at`).
Every function is one transaction, or one for each part of its ids, unless it says that it joins the caller's.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from esid import clock
from esid.errors import EsidError
from esid.store import dead_letters, lookup
from esid.store.connection import Store, marks
from esid.store.model import Done, Failure, Job, Row, Seen, utc_text, utc_time
from esid.store.upsert import upsert

#: Seconds that the writer of an intent has to publish it before the scheduler does so.
PUBLISH_GRACE_S = 10.0
#: Seconds that an id for a bulk route waits for company at most, if nobody gathers; far beyond any other wait.
GATHER_S = 86_400.0
#: Seconds: nothing else waits as long. What is due later than that was written before the clock was set back.
_AHEAD_S = 7200.0
OPEN = ("pending", "processing")
_OPEN = f"status IN {OPEN}"
#: What a job becomes that is to be published at a time, or has a message: its parameters are that time, or NULL, and now.
PENDING = "status = 'pending', due_at = %s, updated_at = %s"
_QUIET = "due_at IS NULL AND (updated_at <= %s OR updated_at > %s)"
_HAS_LETTERS = (
    "EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.entity_type = sync_jobs.entity_type "
    "AND dead_letters.entity_id = sync_jobs.entity_id)"
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of ids that somebody asked for."""

    queued: tuple[int, ...]
    pending: tuple[int, ...]
    fresh: tuple[int, ...]


def take(store: Store, entity: str, ids: Sequence[int], *, quarantined: bool = False) -> list[Job]:
    """Mark the pending ones of `ids` as in work and return them, in order; the others have been done already.

    They have a live message, the one in hand: nobody is to publish them again because their publisher has not yet noted
    that they are in the queue.

    Ids whose worker died go alone, not before their time, and some in quarantine only (see `store.recoveries`): left out
    of this message they are published by the scheduler.
    """
    if not ids:
        return []
    now = utc_text(clock.now())
    alone = (
        "EXISTS (SELECT 1 FROM recoveries WHERE recoveries.entity_type = sync_jobs.entity_type "
        "AND recoveries.entity_id = sync_jobs.entity_id AND (ids_per_message < %s OR again_at > %s OR count > %s))"
    )
    limits = (len(ids), now, 2**31 - 1 if quarantined else 1)
    taken = lookup.update(
        store,
        entity,
        ids,
        OPEN,
        "status = 'processing', due_at = NULL, updated_at = %s",
        (now,),
        also=f"NOT {alone}",
        limits=limits,
        returning="entity_id, argument, retry_count, etag, expires_at, checked_at",
    )
    if len(taken) < len(ids):
        with suppress(EsidError):  # the sweep finds them, too
            # Touched: a publisher who has not yet noted that this message was in the queue must not take it for there.
            sets = "due_at = COALESCE(due_at, %s), updated_at = %s"
            lookup.update(store, entity, ids, OPEN, sets, (now, now), also=alone, limits=limits)
    jobs = [
        Job(entity, key, argument, retries, etag, utc_time(expires), utc_time(checked))
        for key, argument, retries, etag, expires, checked in taken
    ]
    return sorted(jobs, key=lambda job: job.id)


def finish(store: Store, entity: str, done: Sequence[Done], gathering: Collection[str] = ()) -> list[Seen]:
    """Write answers: rows, freshness, job state and the ids that stood in them, all in one transaction (the caller's,
    where it has one open).

    Args:
        gathering: entities whose new ids wait for company (see `gathered`).

    Returns:
        The other seen ids that were new and are to be fetched; they are intents until somebody publishes them.
    """
    return store.run(lambda: _finish(store, entity, sorted(done, key=lambda one: one.id), gathering)) if done else []


def request(store: Store, seen: Sequence[Seen], *, looked_before: dt.datetime | None = None) -> Accepted:
    """Somebody asks for these ids (of one entity) now: new, due and failed ones become pending.

    Args:
        looked_before: also those last looked at before this time are due, whatever their Expires (see `due`).
    """
    return store.run(lambda: _request(store, seen, looked_before, clock.now())) if seen else Accepted((), (), ())


def reopen(store: Store, entity: str, ids: Sequence[int]) -> None:
    """Their rows are gone or spoiled although they were done: the next request for them is not answered by "fresh"."""
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        sets = "status = 'failed', error = 'its rows are missing', updated_at = %s"
        lookup.update(store, entity, part, ("completed",), sets, (utc_text(clock.now()),))


def queued(store: Store, entity: str, ids: Sequence[int], since: dt.datetime) -> None:
    """The broker has confirmed a message for these ids.

    Args:
        since: when publishing began. A job that a worker has touched meanwhile may wait for its retry already, and
            keeps its time.
    """
    if ids:
        stamp, sets = utc_text(since), "due_at = NULL, updated_at = %s"
        lookup.update(store, entity, ids, ("pending",), sets, (stamp,), also="updated_at <= %s", limits=(stamp,))


def retry(store: Store, entity: str, waits: dict[int, float], failures: dict[int, Failure]) -> set[int]:
    """Count a failed attempt of each id and let it wait. Returns those of which that is so: a job that somebody else has
    done meanwhile, or is to be asked for with another argument, has not failed.

    Args:
        waits: seconds by id. An id of `failures` without a wait is given up: dead letter, status failed.
    """

    def work() -> set[int]:
        now, counted = clock.now(), set[int]()
        for key in sorted(failures):
            failure, wait_s = failures[key], waits.get(key)
            due = None if wait_s is None else utc_text(now + dt.timedelta(seconds=wait_s))
            attempts = _count(store, entity, key, failure, now, due)
            if attempts and due is None:
                first_at = dead_letters.add(store, entity, key, failure, attempts, now)
                _expire(store, entity, key, _again_at(failure, first_at, now))
            counted |= {key} if attempts else set()
        return counted

    return store.run(work)


def defer(store: Store, entity: str, ids: Sequence[int], wait_s: float) -> None:
    """Put ids back that could not be asked now; no attempt is counted."""
    if ids:
        now = clock.now()
        lookup.update(store, entity, ids, OPEN, PENDING, (utc_text(now + dt.timedelta(seconds=wait_s)), utc_text(now)))


def give_back(store: Store, entity: str, ids: Sequence[int], *, comes_back: bool = True) -> None:
    """Nobody works on these ids any more.

    Args:
        comes_back: their message is on its way back to the queue. One that was lost with its connection somebody else may
            have had since, and the scheduler publishes what is not taken in time.
    """
    if ids:
        now = clock.now()
        lookup.update(store, entity, ids, ("processing",), PENDING, (None if comes_back else _grace(now), utc_text(now)))


def waiting(store: Store, entities: Sequence[str]) -> set[str]:
    """Those of these entities of which `unpublished` or `gathered` may find ids, by two looks in an index for each."""
    # Both databases call the first column of VALUES so.
    first, last = (
        f"(SELECT {end}(due_at) FROM sync_jobs WHERE entity_type = column1 AND due_at IS NOT NULL)" for end in ("MIN", "MAX")
    )
    values, now = ", ".join(["(%s)"] * len(entities)), clock.now()
    sql = f"SELECT column1 FROM (VALUES {values}) AS entities WHERE {first} <= %s OR {last} > %s"
    with store.connection():
        return {name for (name,) in store.rows(sql, (*entities, utc_text(now), _waits_for_company(now)))}


def unpublished(store: Store, entity: str, limit: int, *, far: bool = False) -> list[int]:
    """Pending ids whose time to be published has come, the longest waiting first.

    Args:
        far: also those whose time is too far ahead for any wait: the clock was set back. Of an entity whose ids may wait
            for company `gathered` finds them.
    """
    now = clock.now()
    one = f"SELECT entity_id, due_at FROM sync_jobs WHERE entity_type = %s AND {_OPEN} AND due_at"
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
            (_grace(now), stamp, stamp),
            also="(due_at <= %s OR due_at > %s)",
            limits=(stamp, _waits_for_company(now)),
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
            (entity, _waits_for_company(now), limit),
        )
    first = utc_time(rows[0][1]) if rows else None
    # A time to come is one before the clock was set back.
    return [key for key, _ in rows], abs((now - first).total_seconds()) if first else 0.0


def orphaned(store: Store, entity: str, quiet_s: float, limit: int) -> list[int]:
    """Open ids that nothing has touched for `quiet_s` seconds although a message for them was confirmed; also those that
    were touched so far ahead: the clock was set back."""
    with store.connection():
        rows = store.rows(
            f"SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND {_OPEN} AND {_QUIET} ORDER BY entity_id LIMIT %s",
            (entity, *_around(quiet_s), limit),
        )
    return [key for (key,) in rows]


def adopt(store: Store, entity: str, ids: Sequence[int], quiet_s: float) -> list[int]:
    """Those of `ids` that are orphaned still; they are the caller's to publish, as claimed ones are."""
    if not ids:
        return []
    now = clock.now()
    values, around = (_grace(now), utc_text(now)), _around(quiet_s)
    rows = lookup.update(store, entity, ids, OPEN, PENDING, values, also=_QUIET, limits=around, returning="entity_id")
    return sorted(key for (key,) in rows)


def purge(store: Store, entity: str) -> int:
    """The queue of `entity` was emptied: what waited in it is due again at the next scheduled sync.

    A job that has an answer goes back to it, with its expiry: a character that waited for its affiliation alone must not
    be asked for its details before they expire.
    """

    def work() -> int:
        now = utc_text(clock.now())
        if not store.is_sqlite:
            # In the order of the ids, as everybody: see `lookup.update`.
            store.rows(
                f"SELECT 1 FROM sync_jobs WHERE entity_type = %s AND {_OPEN} ORDER BY entity_id FOR UPDATE", (entity,)
            )
        answered = store.rows(
            "UPDATE sync_jobs SET status = 'completed', error = NULL, due_at = NULL, updated_at = %s "
            f"WHERE entity_type = %s AND {_OPEN} AND checked_at IS NOT NULL AND expires_at IS NOT NULL RETURNING entity_id",
            (now, entity),
        )
        others = store.rows(
            "UPDATE sync_jobs SET status = 'failed', error = 'purged', due_at = NULL, expires_at = %s, "
            f"updated_at = %s WHERE entity_type = %s AND {_OPEN} RETURNING entity_id",
            (now, now, entity),
        )
        return len(answered) + len(others)

    return store.run(work)


def forget_etags(store: Store) -> None:
    """ETags belong to a compatibility date: after a change of it every answer is asked for whole. Joins a transaction."""
    store.rows("UPDATE sync_jobs SET etag = NULL WHERE etag IS NOT NULL")


def _finish(store: Store, entity: str, done: Sequence[Done], gathering: Collection[str]) -> list[Seen]:
    now = clock.now()
    known = {
        key: (utc_time(checked), utc_time(expires))
        for key, checked, expires in lookup.jobs(
            store, entity, [one.id for one in done], "entity_id, checked_at, expires_at", for_update=True
        )
    }
    rows = [row for one in done for row in one.rows if not _is_older(row, one, known.get(one.id))]
    changed = {key for _, key in upsert(store, rows, now)}
    mourned = _book(store, entity, done, changed, now)
    if mourned:
        store.rows(
            f"DELETE FROM dead_letters WHERE entity_type = %s AND {store.one_of('entity_id')}",
            (entity, store.listed(mourned)),
        )
    new = discover(store, (seen for one in done for seen in one.seen), now, gathering)
    return [one for one in new if one.entity not in gathering]


def _is_older(row: Row, done: Done, known: tuple[Any, ...] | None) -> bool:
    """True when the ledger holds a newer answer than the one that `row` comes from."""
    if known is None:
        return False
    mine, theirs = (done.checked_at, known[0]) if row.guard == "checked_at" else (done.expires_at, known[1])
    return mine is not None and theirs is not None and theirs > mine


def _book(store: Store, entity: str, done: Sequence[Done], changed: set[int], now: dt.datetime) -> list[int]:
    """Write freshness and state of answered jobs; the newer of two answers stands. Returns those with a dead letter.

    They are looked for here, where the jobs are locked already: what was begun before somebody else gave one up, and had to
    wait for that, would not see its letter.
    """
    stamp = utc_text(now)
    values = [
        (
            entity, one.id, "pending" if one.unfinished else "completed", 0, stamp, stamp, one.etag,
            utc_text(one.expires_at), utc_text(one.checked_at), stamp if one.changed or one.id in changed else None,
            _grace(now) if one.unfinished else None, one.argument,
        )
        for one in done
    ]  # fmt: skip
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "etag", "expires_at",
        "checked_at", "changed_at", "due_at", "argument",
    )  # fmt: skip
    later = "MAX" if store.is_sqlite else "GREATEST"
    # What was learned on the way of a job that has more to do forgives it no attempt.
    kept = (
        "retry_count = CASE excluded.status WHEN 'completed' THEN 0 ELSE sync_jobs.retry_count END, "
        "error = CASE excluded.status WHEN 'completed' THEN NULL ELSE sync_jobs.error END"
    )
    # SQLite's MAX(a, b) is NULL when one is; PostgreSQL's GREATEST is not.
    newest = "{later}(COALESCE(sync_jobs.{c}, excluded.{c}), COALESCE(excluded.{c}, sync_jobs.{c}))"
    returned = store.insert(
        "sync_jobs",
        columns,
        values,
        f"ON CONFLICT (entity_type, entity_id) DO UPDATE SET status = excluded.status, {kept}, "
        "updated_at = excluded.updated_at, etag = excluded.etag, "
        f"expires_at = {newest.format(later=later, c='expires_at')}, "
        f"checked_at = {newest.format(later=later, c='checked_at')}, "
        "changed_at = COALESCE(excluded.changed_at, sync_jobs.changed_at), due_at = excluded.due_at, "
        f"argument = COALESCE(excluded.argument, sync_jobs.argument) RETURNING entity_id, {_HAS_LETTERS}",
    )
    unfinished = {one.id for one in done if one.unfinished}
    return [key for key, has_letters in returned if has_letters and key not in unfinished]


def discover(store: Store, seen: Iterable[Seen], now: dt.datetime, gathering: Collection[str] = ()) -> list[Seen]:
    """Make ids known, in the caller's transaction; return those that were new and are to be fetched."""
    by_key = {(one.entity, one.id): one for one in seen}
    # Known ids are left out first: on PostgreSQL even ON CONFLICT DO NOTHING waits for a row that another transaction is
    # updating, and two units of work that name each other's ids would wait in a circle.
    for entity, ids in by_entity(by_key.values()).items():
        for state in _states(store, entity, ids):
            del by_key[entity, state[1]]
    return _add(store, [one for _, one in sorted(by_key.items())], now, gathering)


def _add(store: Store, unknown: Sequence[Seen], now: dt.datetime, gathering: Collection[str] = ()) -> list[Seen]:
    """The new ones among ids, in order, that nobody knew a moment ago, and that are to be fetched."""
    if not unknown:
        return []
    stamp, soon, gathered_at = utc_text(now), _grace(now), _grace(now, GATHER_S)
    values = [
        (
            one.entity, one.id, "pending" if one.asked else "completed", 0, stamp, stamp, one.argument,
            (gathered_at if one.entity in gathering else soon) if one.asked else None,
        )
        for one in unknown
    ]  # fmt: skip
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "argument", "due_at",
    )  # fmt: skip
    new = store.insert("sync_jobs", columns, values, "ON CONFLICT DO NOTHING RETURNING entity_type, entity_id")
    by_key = {(one.entity, one.id): one for one in unknown}
    return [by_key[entity, key] for entity, key in new if by_key[entity, key].asked]


def _request(store: Store, seen: Sequence[Seen], looked_before: dt.datetime | None, now: dt.datetime) -> Accepted:
    by_id = {one.id: one for one in seen}
    entity = seen[0].entity
    late, again, pending, fresh = set[int](), set[int](), set[int](), set[int]()
    for status, key, expires, argument, due_at, checked in _states(store, entity, by_id):
        wanted = by_id[key].argument
        other = wanted is not None and wanted != argument and status != "completed"
        if status in {"pending", "processing"} and not other:
            # An intent that nobody published in time is published now.
            (late if _is_before(due_at, now) else pending).add(key)
        elif (
            status == "completed"
            and _is_known(checked, argument)
            and not _is_before(expires, now)
            and not (_is_before(checked, looked_before))
        ):
            fresh.add(key)
        else:
            again.add(key)
    for key in sorted(again):
        store.rows(
            "UPDATE sync_jobs SET status = 'pending', retry_count = 0, error = NULL, due_at = %s, updated_at = %s, "
            "argument = COALESCE(%s, argument), expires_at = CASE WHEN status = 'failed' THEN NULL ELSE expires_at END "
            "WHERE entity_type = %s AND entity_id = %s",
            (_grace(now), utc_text(now), by_id[key].argument, entity, key),
        )
    # Rows that are there are locked before others are added, as a unit of work does it.
    unknown = set(by_id) - late - again - pending - fresh
    new = {one.id for one in _add(store, [by_id[key] for key in sorted(unknown)], now)}
    pending |= unknown - new
    return Accepted(tuple(sorted(new | late | again)), tuple(sorted(pending)), tuple(sorted(fresh)))


def _states(store: Store, entity: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    return lookup.jobs(store, entity, ids, "status, entity_id, expires_at, argument, due_at, checked_at")


def _is_known(checked: Any, argument: str | None) -> bool:
    """True of what was answered, or (killmails) came whole from elsewhere; an NPC that only stood in an answer is not."""
    return checked is not None or argument is not None


def _is_before(time: Any, limit: dt.datetime | None) -> bool:
    value = utc_time(time)
    return value is not None and limit is not None and value <= limit


def _count(store: Store, entity: str, key: int, failure: Failure, now: dt.datetime, due_at: str | None) -> int:
    """Count a failed attempt of one job, which is given up where it has no time; its attempts so far. 0 = it is not open."""
    rows = store.rows(
        "UPDATE sync_jobs SET status = %s, error = %s, due_at = %s, updated_at = %s, retry_count = retry_count + 1 "
        f"WHERE entity_type = %s AND entity_id = %s AND {_OPEN} AND COALESCE(argument, '') = COALESCE(%s, argument, '') "
        "RETURNING retry_count",
        ("pending" if due_at else "failed", _line(failure), due_at, utc_text(now), entity, key, failure.argument),
    )
    return int(rows[0][0]) if rows else 0


def _again_at(failure: Failure, first_at: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    """When an id that is given up is due again; None = never by itself.

    The expired answer of better days must not count: it would have the id asked again at every sync.
    """
    after_s, for_s = failure.ask_again_after_s, failure.ask_again_for_s
    if after_s is None or (for_s is not None and now - first_at > dt.timedelta(seconds=for_s)):
        return None
    return now + dt.timedelta(seconds=after_s)


def _expire(store: Store, entity: str, key: int, at: dt.datetime | None) -> None:
    store.rows("UPDATE sync_jobs SET expires_at = %s WHERE entity_type = %s AND entity_id = %s", (utc_text(at), entity, key))


def _line(failure: Failure) -> str:
    return dead_letters.clean(f"{failure.reason}: {failure.message}"[:500])


def _around(seconds: float) -> tuple[str | None, str | None]:
    """So long ago, and so far ahead."""
    now, span = clock.now(), dt.timedelta(seconds=seconds)
    return utc_text(now - span), utc_text(now + span)


def _waits_for_company(now: dt.datetime) -> str | None:
    """Ids with a later `due_at` are gathered: no other wait is as long."""
    return utc_text(now + dt.timedelta(seconds=GATHER_S / 24))


def _grace(now: dt.datetime, seconds: float = PUBLISH_GRACE_S) -> str | None:
    return utc_text(now + dt.timedelta(seconds=seconds))


def by_entity(seen: Iterable[Seen]) -> dict[str, list[int]]:
    """The ids of each entity, in order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for one in seen:
        groups[one.entity].append(one.id)
    return {entity: sorted(ids) for entity, ids in groups.items()}


def counts(store: Store) -> dict[str, dict[str, int]]:
    """Entity -> status -> how many."""
    with store.connection():
        rows = store.rows("SELECT entity_type, status, COUNT(*) FROM sync_jobs GROUP BY entity_type, status")
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for entity, status, count in rows:
        found[entity][status] = count
    return dict(found)


def open_count(store: Store, entities: Sequence[str]) -> int:
    """How many jobs of these entities are pending or in work."""
    with store.connection():
        sql = f"SELECT COUNT(*) FROM sync_jobs WHERE entity_type IN ({marks(entities)}) AND {_OPEN}"
        return int(store.rows(sql, entities)[0][0])


def states(store: Store, entity: str, ids: Sequence[int]) -> list[tuple[int, str]]:
    """(id, status) of those of `ids` that are known."""
    with store.connection():
        return [(key, status) for key, status in lookup.jobs(store, entity, ids, "entity_id, status")]


def failed_since(store: Store, entities: Sequence[str], since: dt.datetime) -> int:
    """How many jobs of these entities were given up since then."""
    with store.connection():
        which = f"entity_type IN ({marks(entities)}) AND status = 'failed' AND updated_at >= %s"
        return int(store.rows(f"SELECT COUNT(*) FROM sync_jobs WHERE {which}", (*entities, utc_text(since)))[0][0])


def is_open(store: Store, entities: Sequence[str]) -> bool:
    """True when any job of these entities is pending or in work."""
    if not entities:
        return False
    with store.connection():
        sql = f"SELECT 1 FROM sync_jobs WHERE entity_type IN ({marks(entities)}) AND {_OPEN} LIMIT 1"
        return bool(store.rows(sql, entities))


def oldest_open(store: Store, entities: Sequence[str]) -> dict[str, dt.datetime]:
    """Entity -> when its longest untouched open job was last touched."""
    found = {}
    with store.connection():
        for entity in entities:
            sql = f"SELECT MIN(updated_at) FROM sync_jobs WHERE entity_type = %s AND {_OPEN}"
            time = utc_time(store.rows(sql, (entity,))[0][0])
            if time is not None:
                found[entity] = time
    return found


def job(store: Store, entity: str, key: int) -> dict[str, Any] | None:
    """One row of the ledger, as `esid show` prints it."""
    columns = (
        "status", "retry_count", "error", "created_at", "updated_at", "checked_at", "changed_at", "expires_at", "due_at",
        "etag", "argument",
    )  # fmt: skip
    with store.connection():
        rows = store.rows(
            f"SELECT {', '.join(columns)} FROM sync_jobs WHERE entity_type = %s AND entity_id = %s", (entity, key)
        )
    return dict(zip(columns, rows[0], strict=True)) if rows else None
