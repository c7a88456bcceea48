"""Jobs taken up, and how they have ended: rows, freshness, attempts and state in one transaction."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from peewee import Field

import esid.store.ledger.failures as failures
import esid.store.ledger.lookup as lookup
from esid import bounds, clock
from esid.errors import EsidError
from esid.store import lies as etag_lies
from esid.store import owned, sets
from esid.store.connection import Store
from esid.store.ledger.discovery import discover
from esid.store.ledger.words import OPEN, PENDING, UNPLANNED, grace, planned
from esid.store.model import Done, Failure, Job, Rhythm, Row, Seen, utc_text, utc_time
from esid.store.upsert import plain, upsert

_ONCE, _NOTHING = Rhythm(), (None, None, None, None)
#: Seconds: no id waits longer for itself after the death of its worker (see `store.recoveries`).
_LONGEST_ALONE_S = 300.0
_HAS_LETTERS = (
    "EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.entity_type = sync_jobs.entity_type "
    "AND dead_letters.entity_id = sync_jobs.entity_id)"
)


@dataclass(frozen=True, slots=True)
class Ends:
    """How the jobs of one message have ended. It is False where there is nothing to be booked.

    Attributes:
        done: answers.
        failures: failed attempts, by id.
        waits: seconds before the next attempt, by id. An id of `failures` without a wait is given up.
        later: ids that could not be asked now, and for how many seconds they wait; no attempt is counted.
        given_back: ids that go back with their message.
        comes_back: that message is on its way back to the queue.
    """

    done: Sequence[Done] = ()
    failures: Mapping[int, Failure] = field(default_factory=dict)
    waits: Mapping[int, float] = field(default_factory=dict)
    later: Sequence[tuple[Sequence[int], float]] = ()
    given_back: Sequence[int] = ()
    comes_back: bool = True

    def put_back(self) -> list[int]:
        """Ids that were not asked, or whose failure is not theirs."""
        return [*(key for ids, _ in self.later for key in ids), *self.given_back]

    def __bool__(self) -> bool:
        return bool(self.done or self.failures or self.later or self.given_back)


@dataclass(frozen=True, slots=True)
class Booked:
    """What came of it: seen ids that were new (see `finish`), and the ids whose attempt was counted (see `retry`)."""

    new: list[Seen]
    counted: set[int]


def take(store: Store, entity: str, ids: Sequence[int], *, quarantined: bool = False) -> list[Job]:
    """Mark the pending ones of `ids` as in work and return them, in order; the others have been done already.

    They have a live message, the one in hand: nobody is to publish them again because their publisher has not yet noted
    that they are in the queue.

    Ids whose worker died go alone, not before their time, and some in quarantine only (see `store.recoveries`): left out
    of this message they are published by the scheduler.
    """
    if not ids:
        return []
    moment = clock.now()
    now = utc_text(moment)
    alone = (
        "EXISTS (SELECT 1 FROM recoveries WHERE recoveries.entity_type = sync_jobs.entity_type "
        "AND recoveries.entity_id = sync_jobs.entity_id AND (ids_per_message < %s "
        "OR (again_at > %s AND again_at <= %s) OR count > %s))"
    )
    limits = (len(ids), now, grace(moment, _LONGEST_ALONE_S), 2**31 - 1 if quarantined else 1)
    taken = lookup.update(
        store,
        entity,
        ids,
        OPEN,
        "status = 'processing', due_at = NULL, updated_at = %s",
        (now,),
        also=f"NOT {alone}",
        limits=limits,
        returning="entity_id, argument, retry_count, etag, expires_at, checked_at, next_at, error, created_at",
    )
    if len(taken) < len(ids):
        with suppress(EsidError):  # the sweep finds them, too
            # Touched: a publisher who has not yet noted that this message was in the queue must not take it for there.
            sets = "due_at = COALESCE(due_at, %s), updated_at = %s"
            lookup.update(store, entity, ids, OPEN, sets, (now, now), also=alone, limits=limits)
    jobs = [
        Job(
            entity, key, argument, retries, etag,
            bounds.expires(utc_time(expires), moment), bounds.happened(utc_time(checked), moment), utc_time(next_at),
            has_failed=error is not None, is_known=expires is not None, source="" if checked else str(created),
        )
        for key, argument, retries, etag, expires, checked, next_at, error, created in taken
    ]  # fmt: skip
    return sorted(jobs, key=lambda job: job.id)


def finish(
    store: Store, entity: str, done: Sequence[Done], gathering: Collection[str] = (), rhythm: Rhythm = _ONCE
) -> list[Seen]:
    """Write answers: rows, freshness, job state and the ids that stood in them, all in one transaction (the caller's,
    where it has one open).

    An answer is booked whole or not at all: one that is older than what is known changes neither rows nor freshness, and
    one that says that a row stands as it is, where there is none, has it asked for anew.

    Args:
        gathering: entities whose new ids wait for company (see `gathered`).
        rhythm: when the schedule asks for these answers again.

    Returns:
        The other seen ids that were new and are to be fetched; they are intents until somebody publishes them.
    """
    return book(store, entity, Ends(done), gathering, rhythm).new


def book(store: Store, entity: str, ends: Ends, gathering: Collection[str] = (), rhythm: Rhythm = _ONCE) -> Booked:
    """Write how the jobs of one message have ended, all of it in one transaction (the caller's, where it has one open): what
    is done as `finish` does, what has failed as `retry`, what is open as `defer` and `give_back`."""
    ordered = sorted(ends.done, key=lambda one: one.id)
    others = [*ends.failures, *ends.put_back()]
    now = clock.now()

    def work() -> Booked:
        # The first statement locks all of them, in order, as everybody does it.
        new = _finish(store, entity, ordered, gathering, rhythm, others) if ordered else []
        locking = () if ordered else others
        for ids, wait_s in ends.later:
            failures.defer(store, entity, ids, wait_s, locking=locking)
        failures.give_back(store, entity, ends.given_back, comes_back=ends.comes_back, locking=locking)
        return Booked(new, failures.count(store, entity, ends.waits, ends.failures, now))

    return store.run(work) if ends else Booked([], set())


def _finish(
    store: Store,
    entity: str,
    done: Sequence[Done],
    gathering: Collection[str],
    rhythm: Rhythm,
    others: Sequence[int] = (),
) -> list[Seen]:
    """What `finish` does, in the caller's transaction.

    Args:
        others: ids whose jobs are locked, too.
    """
    now = clock.now()
    known = _known(store, entity, [*(one.id for one in done), *others], now)
    old = {one.id for one in done if _is_past(one, known.get(one.id))}
    fresh = [one for one in done if one.id not in old]
    fresh = [sets.judged(store, entity, one, now) if one.generation else one for one in fresh]
    changed = _write_rows(store, fresh, known, now)
    lies = [one for one in fresh if one.id in changed and one.etag and one.etag == known.get(one.id, _NOTHING)[3]]
    if lies:
        etag_lies.note(store, entity, len(lies))
    rowless = _without_row(store, fresh)
    whole = [one for one in fresh if one.id not in rowless]
    mourned = _complete(store, entity, whole, changed, known, rhythm, now)
    if mourned:
        store.rows(
            f"DELETE FROM dead_letters WHERE entity_type = %s AND {store.one_of('entity_id')}",
            (entity, store.listed(mourned)),
        )
    _close(store, entity, sorted(old), rhythm, now)
    again = _begin_anew(store, entity, rowless, now)
    new = discover(store, (seen for one in whole for seen in one.seen), now, gathering)
    return [*(one for one in new if one.entity not in gathering), *(Seen(entity, key) for key in again)]


def _write_rows(store: Store, fresh: Sequence[Done], known: dict[int, tuple[Any, ...]], now: dt.datetime) -> set[int]:
    """The ids whose answer has changed a row."""
    rows = [(one.id, row) for one in fresh for row in one.rows if not _is_older(row, one, known.get(one.id))]
    written = upsert(store, [row for _, row in rows], now)
    changed = {key for key, row in rows if (row.model, tuple(map(plain, row.key))) in written} if written else set()
    parts = [(one.id, part) for one in fresh for part in one.owned]
    return changed | owned.write(store, parts, now) if parts else changed


def _known(store: Store, entity: str, ids: Sequence[int], now: dt.datetime) -> dict[int, tuple[Any, ...]]:
    """Of known jobs, which are locked: (when it was looked at last, its expiry, its last change, ETag, status, when its own
    route is asked by the schedule), as far as true."""
    columns = "entity_id, checked_at, expires_at, changed_at, created_at, etag, status, next_at"
    return {
        key: (
            bounds.happened(utc_time(checked), now),
            bounds.expires(utc_time(expires), now),
            _since(store, changed, created, now),
            etag,
            status,
            utc_time(next_at),
        )
        for key, checked, expires, changed, created, etag, status, next_at in lookup.jobs(
            store, entity, ids, columns, for_update=True
        )
    }


def _since(store: Store, changed: Any, created: Any, now: dt.datetime) -> dt.datetime:
    """When a thing has changed last. A clock that was behind would let it sleep: nothing has changed before it was there,
    and nothing was there before this database was."""
    born_at, latest = store.born_at(), bounds.ahead(now)
    times = [utc_time(one) for one in (changed, created)]
    return max((one for one in times if one and one <= latest and (born_at is None or one >= born_at)), default=now)


def _is_older(row: Row, done: Done, known: tuple[Any, ...] | None) -> bool:
    """True when the ledger holds a newer answer than the one that `row` comes from."""
    if known is None:
        return False
    mine, theirs = (done.checked_at, known[0]) if row.guard == "checked_at" else (done.expires_at, known[1])
    return mine is not None and theirs is not None and theirs > mine


def _is_past(done: Done, known: tuple[Any, ...] | None) -> bool:
    """True of an answer of which nothing is newer than what the ledger holds."""
    if done.is_confirmed:
        # It says something of the answer with its ETag alone: not of the one that another worker has brought meanwhile.
        etag = known[3] if known else None
        return etag is not None and etag != done.etag
    if done.owned and not done.generation and not done.rows:
        return known is not None and None not in (known[0], done.checked_at) and known[0] > done.checked_at
    return bool(done.rows) and all(_is_older(row, done, known) for row in done.rows)


def _without_row(store: Store, done: Sequence[Done]) -> list[int]:
    """Ids whose answer says that what their own route told stands in their row, though it does not."""
    columns: dict[Field, list[int]] = defaultdict(list)
    for one in done:
        if one.stands is not None:
            columns[one.stands].append(one.id)
    missing = list[int]()
    for column, ids in columns.items():
        sql = (
            f"SELECT id FROM {column.model._meta.table_name} WHERE {store.one_of('id')} AND {column.column_name} IS NOT NULL"
        )
        missing += set(ids) - {key for (key,) in store.rows(sql, (store.listed(ids),))}
    return sorted(missing)


def _close(store: Store, entity: str, ids: Sequence[int], rhythm: Rhythm, now: dt.datetime) -> None:
    """Somebody else has brought a newer answer: what was taken up for this one is done, what was asked since is not."""
    sets = f"status = 'completed', due_at = NULL, {planned(in_bulk=rhythm.bulk_s is not None)}, updated_at = %s"
    if ids:
        lookup.update(store, entity, ids, ("processing",), sets, (utc_text(now),))


def _begin_anew(store: Store, entity: str, ids: Sequence[int], now: dt.datetime) -> list[int]:
    """Ask for these without what is known of them; those of which somebody does not ask already."""
    if not ids:
        return []
    sets = f"{PENDING}, etag = NULL, expires_at = NULL, {UNPLANNED}"
    values = (grace(now), utc_text(now))
    rows = lookup.update(store, entity, ids, ("processing",), sets, values, returning="entity_id")
    return sorted(key for (key,) in rows)


def _complete(
    store: Store,
    entity: str,
    done: Sequence[Done],
    changed: set[int],
    known: dict[int, tuple[Any, ...]],
    rhythm: Rhythm,
    now: dt.datetime,
) -> list[int]:
    """Write freshness and state of answered jobs; the newer of two answers stands. Returns those with a dead letter.

    They are looked for here, where the jobs are locked already: what was begun before somebody else gave one up, and had to
    wait for that, would not see its letter.
    """
    values = [
        _values(entity, one, known.get(one.id), rhythm, now, is_changed=one.changed or one.id in changed) for one in done
    ]
    columns = (
        "entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "etag", "expires_at",
        "checked_at", "changed_at", "due_at", "argument", "next_at", "refresh_at",
    )  # fmt: skip
    # What was learned on the way of a job that has more to do forgives it no attempt.
    kept = (
        "retry_count = CASE excluded.status WHEN 'completed' THEN 0 ELSE sync_jobs.retry_count END, "
        "error = CASE excluded.status WHEN 'completed' THEN NULL ELSE sync_jobs.error END"
    )
    returned = store.insert(
        "sync_jobs",
        columns,
        values,
        f"ON CONFLICT (entity_type, entity_id) DO UPDATE SET status = excluded.status, {kept}, "
        "updated_at = excluded.updated_at, etag = excluded.etag, expires_at = excluded.expires_at, "
        "checked_at = excluded.checked_at, next_at = excluded.next_at, refresh_at = excluded.refresh_at, "
        "changed_at = COALESCE(excluded.changed_at, sync_jobs.changed_at), due_at = excluded.due_at, "
        f"argument = COALESCE(excluded.argument, sync_jobs.argument) RETURNING entity_id, {_HAS_LETTERS}",
    )
    unfinished = {one.id for one in done if one.unfinished}
    return [key for key, has_letters in returned if has_letters and key not in unfinished]


def _values(
    entity: str, one: Done, known: tuple[Any, ...] | None, rhythm: Rhythm, now: dt.datetime, *, is_changed: bool
) -> tuple[Any, ...]:
    """The values of one answered job, in the order of `_complete`."""
    checked, expires, changed_at, etag, status, planned_at = known or (None, None, now, one.etag, "", None)
    # Somebody has asked for more than the bulk route tells while that was asked by the schedule.
    is_more_wanted = one.expires_at is None and rhythm.bulk_s is not None and planned_at is None
    # What another worker has completed meanwhile is not begun anew for a part of it.
    is_open = status != "completed" and (one.unfinished or (is_more_wanted and (expires is None or expires <= now)))
    checked = max(filter(None, (checked, one.checked_at)), default=None)
    expires = max(filter(None, (expires, one.expires_at)), default=None)
    slept = dt.timedelta(0) if is_changed else now - changed_at
    # An answer of a bulk route has no expiry, and says nothing of the ETag of another one.
    etag = etag if one.expires_at is None else one.etag
    next_at, refresh_at = rhythm.next_at(expires, slept), rhythm.refresh_at(checked, slept)
    stamp = utc_text(now)
    return (
        entity, one.id, "pending" if is_open else "completed", 0, stamp, stamp, etag, utc_text(expires),
        utc_text(checked), stamp if is_changed else None, grace(now) if is_open else None, one.argument,
        None if is_open else utc_text(next_at), None if is_open else utc_text(refresh_at),
    )  # fmt: skip
