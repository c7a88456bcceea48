"""Dead letters: work that is given up, with the reason, until a person retries or drops it."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from esid import clock
from esid.store import counters
from esid.store.connection import Store, marks
from esid.store.model import Failure, utc_text, utc_time

_COLUMNS = (
    "id", "entity_type", "entity_id", "reason", "message", "attempts", "answer_status", "answer_sample", "traceback",
    "body", "first_at", "last_at", "count",
)  # fmt: skip
#: When the id is asked again: a column of its job.
_AGAIN = (
    "(SELECT CASE status WHEN 'failed' THEN next_at ELSE due_at END FROM sync_jobs "
    "WHERE sync_jobs.entity_type = dead_letters.entity_type AND sync_jobs.entity_id = dead_letters.entity_id)"
)
_SELECTED = f"{', '.join(_COLUMNS)}, {_AGAIN}"
#: Characters of a message that are kept, so that it can be sent again: far more than any of ours has.
_LONGEST_BODY = 65_536
#: The reason of letters whose body is to be sent again: each other body is a letter, up to so many; the rest share one.
RESENDABLE, MOST_BODIES = "unknown_actor", 1_000
#: Letters that are kept, and that one statement forgets.
MOST_LETTERS, _AT_ONCE = 100_000, 5_000
#: First part of the counters of those that were forgotten, by entity and reason.
_FORGOTTEN = "forgotten:"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter as a person sees it. Entity and id are None where the message could not be read; `count` such
    messages came, and `body` is the newest."""

    id: int
    entity_type: str | None
    entity_id: int | None
    reason: str
    message: str
    attempts: int
    answer_status: int | None
    answer_sample: str | None
    traceback: str | None
    body: str | None
    first_at: dt.datetime
    last_at: dt.datetime
    count: int
    #: When its id is asked again; None where it has none, or is being asked.
    again_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters: all of the conditions that are not None or empty."""

    ids: tuple[int, ...] = ()
    entities: tuple[str, ...] = ()
    reason: str | None = None
    since: dt.datetime | None = None


def add(store: Store, entity: str, key: int, failure: Failure, attempts: int, now: dt.datetime) -> dt.datetime:
    """Record that an id is given up, in the caller's transaction; returns when it was so first.

    A second time updates the first letter.
    """
    stamp = utc_text(now)
    returned = store.insert(
        "dead_letters",
        _COLUMNS[1:-1],
        [(
            entity, key, failure.reason, clean(failure.message[:2000]), attempts, failure.status, clean(failure.sample),
            clean(failure.traceback), None, stamp, stamp,
        )],
        "ON CONFLICT (entity_type, entity_id) DO UPDATE SET reason = excluded.reason, message = excluded.message, "
        "attempts = excluded.attempts, answer_status = excluded.answer_status, answer_sample = excluded.answer_sample, "
        "traceback = excluded.traceback, last_at = excluded.last_at RETURNING first_at",
    )  # fmt: skip
    return utc_time(returned[0][0]) or now


def add_message(
    store: Store, reason: str, message: str, body: str, alike: str | None = None, at: dt.datetime | None = None
) -> None:
    """Record a message that could not be read, or whose actor or arguments are unknown.

    Messages of which the same is to be said are one letter, with a count. Those that are to be sent again have one each.

    Args:
        alike: what is the same of all of them, where the message says more.
        at: when it came; now. To say the same of the same time again (a commit whose answer was lost) counts nothing.
    """
    stamp, message, body = utc_text(at or clock.now()), clean(message[:2000]), clean(body[:_LONGEST_BODY])
    names = (*_COLUMNS[1:-1], "likeness")
    tail = (
        "ON CONFLICT (likeness) DO UPDATE SET message = excluded.message, "
        "body = excluded.body, last_at = excluded.last_at, "
        "count = dead_letters.count + CASE WHEN dead_letters.last_at = excluded.last_at THEN 0 ELSE 1 END"
    )

    def work() -> None:
        words, likeness = message, _digest(reason, alike or message)
        if reason == RESENDABLE:
            likeness = _digest(reason, message, body)
            if _is_full(store, likeness):
                words, likeness = f"{message} (too many of these: only the newest is kept here)", _digest(reason)
        row = (None, None, reason, words, 1, None, None, None, body, stamp, stamp, likeness)
        store.insert("dead_letters", names, [row], tail)

    store.run(work)


def prune(store: Store) -> Counter[tuple[str | None, str]]:
    """Forget the oldest letters above the most that are kept: (entity, reason) -> how many.

    What there is most of makes room, so that a flood takes nothing with it but its own. The ids of the letters stay failed,
    with their last error, and are asked again at the same time.
    """
    with store.connection():
        excess = store.rows("SELECT COUNT(*) FROM dead_letters")[0][0] - MOST_LETTERS
    gone_by_kind = Counter[tuple[str | None, str]]()
    while excess > 0:
        with store.connection():
            ((entity, reason, held),) = store.rows(
                "SELECT entity_type, reason, COUNT(*) FROM dead_letters GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 1"
            )
        gone = _forget(store, entity, reason, min(excess, held, _AT_ONCE))
        gone_by_kind[entity, reason] += gone
        excess -= gone
    return gone_by_kind


def _forget(store: Store, entity: str | None, reason: str, count: int) -> int:
    """Delete the oldest letters of a kind, and count them for good in the same transaction; how many are gone.

    They are chosen before it: a commit whose answer was lost is repeated, and finds none of them.
    """
    same = "entity_type IS NULL" if entity is None else "entity_type = %s"
    kind = [*([] if entity is None else [entity]), reason]
    with store.connection():
        sql = f"SELECT id FROM dead_letters WHERE {same} AND reason = %s ORDER BY last_at, id LIMIT %s"
        ids = [key for (key,) in store.rows(sql, (*kind, count))]

    def work() -> None:
        gone = store.rows(f"DELETE FROM dead_letters WHERE {store.one_of('id')} RETURNING id", (store.listed(ids),))
        counters.add(store, {f"{_FORGOTTEN}{entity or ''}:{reason}": float(len(gone))})

    store.run(work)
    return len(ids)


def forgotten(totals: Mapping[str, float]) -> list[tuple[str | None, str, int]]:
    """(entity, reason, how many letters were ever forgotten), the most first.

    Args:
        totals: all counters.
    """
    names = {name.removeprefix(_FORGOTTEN): count for name, count in totals.items() if name.startswith(_FORGOTTEN)}
    kinds = [(*name.partition(":")[::2], int(count)) for name, count in names.items()]
    return sorted(((entity or None, reason, count) for entity, reason, count in kinds), key=lambda one: (-one[2], str(one)))


def _is_full(store: Store, likeness: str) -> bool:
    """True where there are as many letters of messages to be sent again as are kept, and none like this one."""
    if store.rows("SELECT 1 FROM dead_letters WHERE likeness = %s", (likeness,)):
        return False
    sql = "SELECT COUNT(*) FROM (SELECT 1 FROM dead_letters WHERE reason = %s LIMIT %s) AS kept"
    return bool(store.rows(sql, (RESENDABLE, MOST_BODIES))[0][0] >= MOST_BODIES)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def find(store: Store, wanted: Filter, limit: int = 10_000) -> list[DeadLetter]:
    """The newest dead letters first."""
    where, parameters = _where(store, wanted)
    with store.connection():
        rows = store.rows(
            f"SELECT {_SELECTED} FROM dead_letters WHERE {where} ORDER BY last_at DESC, id DESC LIMIT %s",
            (*parameters, limit),
        )
    return [_letter(row) for row in rows]


def count(store: Store, wanted: Filter) -> int:
    """How many there are."""
    where, parameters = _where(store, wanted)
    with store.connection():
        return int(store.rows(f"SELECT COUNT(*) FROM dead_letters WHERE {where}", parameters)[0][0])


def pages(store: Store, wanted: Filter, size: int = 5_000) -> Iterator[list[DeadLetter]]:
    """All of them, however many, in order of their numbers; what is dropped or added meanwhile changes nothing else."""
    where, parameters = _where(store, wanted)
    after = 0
    while True:
        with store.connection():
            rows = store.rows(
                f"SELECT {_SELECTED} FROM dead_letters WHERE {where} AND id > %s ORDER BY id LIMIT %s",
                (*parameters, after, size),
            )
        if not rows:
            return
        after = rows[-1][0]
        yield [_letter(row) for row in rows]


def reasons(store: Store) -> list[tuple[str | None, str, int]]:
    """(entity, reason, how many ids or messages), the most frequent first."""
    with store.connection():
        rows = store.rows(
            "SELECT entity_type, reason, CAST(SUM(count) AS BIGINT) FROM dead_letters GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        )
    return [(entity, reason, count) for entity, reason, count in rows]


def drop(store: Store, wanted: Filter) -> int:
    """Delete dead letters; the jobs stay failed. Returns how many."""
    where, parameters = _where(store, wanted)
    return len(store.run(lambda: store.rows(f"DELETE FROM dead_letters WHERE {where} RETURNING id", parameters)))


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    first_at, last_at, again_at = (utc_time(row[place]) for place in (10, 11, 13))
    return DeadLetter(*(*row[:10], first_at, last_at, row[12], again_at))


def _where(store: Store, wanted: Filter) -> tuple[str, list[Any]]:
    conditions: list[str] = ["1 = 1"]
    parameters: list[Any] = []
    if wanted.ids:
        conditions.append(store.one_of("id"))
        parameters.append(store.listed(wanted.ids))
    if wanted.entities:
        conditions.append(f"entity_type IN ({marks(wanted.entities)})")
        parameters += wanted.entities
    if wanted.reason:
        conditions.append("reason = %s")
        parameters.append(wanted.reason)
    if wanted.since:
        conditions.append("last_at >= %s")
        parameters.append(utc_text(wanted.since))
    return " AND ".join(conditions), parameters


def clean(text: str) -> str:
    """PostgreSQL keeps no NUL and neither database a lone surrogate."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
