"""Dead letters: work that is given up, with the reason, until a person retries or drops it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from esid import clock
from esid.store.connection import Store
from esid.store.model import Failure, utc_text, utc_time

_COLUMNS = (
    "id", "entity_type", "entity_id", "reason", "message", "attempts", "answer_status", "answer_sample", "traceback",
    "body", "first_at", "last_at",
)  # fmt: skip
#: Characters of a message that are kept, so that it can be sent again: far more than any of ours has.
_LONGEST_BODY = 65_536


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter as a person sees it. Entity and id are None where the message could not be read."""

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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters: all of the conditions that are not None or empty."""

    ids: tuple[int, ...] = ()
    entity: str | None = None
    reason: str | None = None
    since: dt.datetime | None = None


def add(store: Store, entity: str, key: int, failure: Failure, attempts: int, now: dt.datetime) -> dt.datetime:
    """Record that an id is given up, in the caller's transaction; returns when it was so first.

    A second time updates the first letter.
    """
    stamp = utc_text(now)
    returned = store.insert(
        "dead_letters",
        _COLUMNS[1:],
        [(
            entity, key, failure.reason, clean(failure.message[:2000]), attempts, failure.status, clean(failure.sample),
            clean(failure.traceback), None, stamp, stamp,
        )],
        "ON CONFLICT (entity_type, entity_id) DO UPDATE SET reason = excluded.reason, message = excluded.message, "
        "attempts = excluded.attempts, answer_status = excluded.answer_status, answer_sample = excluded.answer_sample, "
        "traceback = excluded.traceback, last_at = excluded.last_at RETURNING first_at",
    )  # fmt: skip
    return utc_time(returned[0][0]) or now


def add_message(store: Store, reason: str, message: str, body: str) -> None:
    """Record a message that could not be read, or whose actor or arguments are unknown."""
    stamp = utc_text(clock.now())
    row = (None, None, reason, clean(message[:2000]), 1, None, None, None, clean(body[:_LONGEST_BODY]), stamp, stamp)
    store.run(lambda: store.insert("dead_letters", _COLUMNS[1:], [row]))


def find(store: Store, wanted: Filter, limit: int = 10_000) -> list[DeadLetter]:
    """The newest dead letters first."""
    where, parameters = _where(store, wanted)
    with store.connection():
        rows = store.rows(
            f"SELECT {', '.join(_COLUMNS)} FROM dead_letters WHERE {where} ORDER BY last_at DESC, id DESC LIMIT %s",
            (*parameters, limit),
        )
    return [DeadLetter(*row[:10], *(utc_time(time) for time in row[10:])) for row in rows]


def pages(store: Store, wanted: Filter, size: int = 5_000) -> Iterator[list[DeadLetter]]:
    """All of them, however many, in order of their numbers; what is dropped or added meanwhile changes nothing else."""
    where, parameters = _where(store, wanted)
    after = 0
    while True:
        with store.connection():
            rows = store.rows(
                f"SELECT {', '.join(_COLUMNS)} FROM dead_letters WHERE {where} AND id > %s ORDER BY id LIMIT %s",
                (*parameters, after, size),
            )
        if not rows:
            return
        after = rows[-1][0]
        yield [DeadLetter(*row[:10], *(utc_time(time) for time in row[10:])) for row in rows]


def reasons(store: Store) -> list[tuple[str | None, str, int]]:
    """(entity, reason, how many), the most frequent first."""
    with store.connection():
        rows = store.rows("SELECT entity_type, reason, COUNT(*) FROM dead_letters GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2")
    return [(entity, reason, count) for entity, reason, count in rows]


def drop(store: Store, wanted: Filter) -> int:
    """Delete dead letters; the jobs stay failed. Returns how many."""
    where, parameters = _where(store, wanted)
    return len(store.run(lambda: store.rows(f"DELETE FROM dead_letters WHERE {where} RETURNING id", parameters)))


def _where(store: Store, wanted: Filter) -> tuple[str, list[Any]]:
    conditions: list[str] = ["1 = 1"]
    parameters: list[Any] = []
    if wanted.ids:
        conditions.append(store.one_of("id"))
        parameters.append(store.listed(wanted.ids))
    if wanted.entity:
        conditions.append("entity_type = %s")
        parameters.append(wanted.entity)
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
