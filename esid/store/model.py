"""The base of every Peewee model, and the value types that pages and store exchange. No I/O here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from peewee import BigIntegerField, DatabaseProxy, DateTimeField, Field, Model

#: Bound to the one open database by `store.connection.Store`.
database = DatabaseProxy()


class UtcField(DateTimeField):
    """An aware UTC time: TIMESTAMPTZ on PostgreSQL, ISO text in UTC (which sorts) on SQLite."""

    field_type = "TIMESTAMPTZ"

    def db_value(self, value: dt.datetime | None) -> str | None:
        """Text for the driver. Raises ValueError for a naive time."""
        return utc_text(value)

    def python_value(self, value: Any) -> dt.datetime | None:
        """An aware time from what the driver gives."""
        return utc_time(value)


class Table(Model):
    """Base of all tables."""

    class Meta:
        database = database

    @classmethod
    def key(cls) -> tuple[str, ...]:
        """The columns of its primary key."""
        return _key(cls)


@lru_cache
def _key(table: type[Table]) -> tuple[str, ...]:
    primary: Any = table._meta.primary_key
    return tuple(getattr(primary, "field_names", None) or (primary.name,))


class StampedTable(Table):
    """Base of the tables that readers use: `updated_at` moves only when a value changed."""

    created_at = UtcField()
    updated_at = UtcField()


class EntityTable(StampedTable):
    """Base of the tables with one row for each id: `id` is ESI's."""

    id = BigIntegerField(primary_key=True)


def utc_text(value: dt.datetime | None) -> str | None:
    """`2026-11-24 03:07:46.000000+00:00` for an aware time, None for None. Raises ValueError for a naive time."""
    return None if value is None else _text(value)


@lru_cache(maxsize=1024)
def _text(value: dt.datetime) -> str:
    """Answers come many at a time, and share most of their times."""
    if value.tzinfo is None:
        raise ValueError(f"naive time {value!r}")
    return value.astimezone(dt.UTC).isoformat(sep=" ", timespec="microseconds")


def utc_time(value: Any) -> dt.datetime | None:
    """An aware time from a driver's value: a datetime (PostgreSQL), text (SQLite) or None."""
    if value is None or isinstance(value, dt.datetime):
        return value
    return dt.datetime.fromisoformat(value)


@dataclass(frozen=True, slots=True)
class Row:
    """Some columns of one row. `values` holds the key too; columns that are not named are left alone.

    With `guard="checked_at"` the row is dropped when the ledger holds a later look at the same id; with
    `guard="expires_at"` when it holds an answer that expires later. So an older answer never overwrites a newer one.
    """

    model: type[Table]
    values: dict[str, Any]
    guard: str = "expires_at"

    @property
    def key(self) -> tuple[Any, ...]:
        """The values of its primary key."""
        return tuple(self.values[name] for name in self.model.key())


#: What becomes of a stored row that an answer names no more, where it is not a time that is noted: it is deleted, it stays
#: as it is, it stays and all of it but its key becomes NULL.
DELETED, KEPT, EMPTIED = "(deleted)", "(kept)", "(emptied)"


@dataclass(frozen=True, slots=True)
class Owned:
    """All rows of a table that an answer speaks of.

    Attributes:
        columns: what the answer tells, the key and `of` among them.
        rows: values in that order, each key once.
        of: the column that says whose rows they are; "" = the whole table is one set.
        scopes: values of `of`: the stored rows that have one of them are the answer's.
        gone: what becomes of a stored row that the answer names no more: `DELETED`, `KEPT`, `EMPTIED`, or the name of the
            column that gets `at`, and is NULL again when the row returns.
        at: the time that the answer speaks of.
    """

    table: type[Table]
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    of: str = ""
    scopes: tuple[Any, ...] = ()
    gone: str = DELETED
    at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """The version of a set that an answer holds, and how far it is believed.

    Attributes:
        at: the `Last-Modified` of its first page.
        count: its members.
        least_share: of a set of 50 members and more, the part of those of the version before that must still be there.
        may_shrink: a later version that says the same, at least `cache_s` seconds after the first, is believed.
    """

    at: dt.datetime
    pages: int
    count: int
    least_share: float
    may_shrink: bool
    cache_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An id that stood in an answer: it becomes known, and is fetched when `asked` and new.

    `argument` is what the route needs beside the id: a killmail's hash.
    """

    entity: str
    id: int
    argument: str | None = None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the ledger as a worker takes it."""

    entity: str
    id: int
    argument: str | None = None
    retry_count: int = 0
    etag: str | None = None
    expires_at: dt.datetime | None = None
    checked_at: dt.datetime | None = None
    #: When the schedule asks its own route again, of a job that is open for its bulk route alone; None = whoever asked
    #: wants to know everything that may be asked.
    next_at: dt.datetime | None = None
    #: It failed when it was asked last, now or before it was given up.
    has_failed: bool = False
    #: Its own route has answered once, whatever the clock was then.
    is_known: bool = False
    #: Of one that never had an answer: what it has in common with all that the same answer has named. "" = nothing.
    source: str = ""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When the schedule asks for something again: after its expiry, and the later the longer it has slept.

    Attributes:
        cache_s: cache time of its own route.
        bulk_s: seconds that an answer of the bulk routes is good for; None = there are none.
        bands: (seconds since the last change from which it holds, cache times in which it is asked once), rising.
    """

    cache_s: float = 0.0
    bulk_s: float | None = None
    bands: tuple[tuple[float, int], ...] = ((0.0, 1),)

    def next_at(self, expires_at: dt.datetime | None, slept: dt.timedelta) -> dt.datetime | None:
        """When its own route is asked; None = never by itself."""
        return None if expires_at is None else expires_at + self._more(self.cache_s, slept)

    def refresh_at(self, checked_at: dt.datetime | None, slept: dt.timedelta) -> dt.datetime | None:
        """When the bulk routes are asked; None = never."""
        if self.bulk_s is None or checked_at is None:
            return None
        return checked_at + dt.timedelta(seconds=self.bulk_s) + self._more(self.bulk_s, slept)

    def _more(self, every_s: float, slept: dt.timedelta) -> dt.timedelta:
        slept_s = slept.total_seconds()
        for from_s, times in reversed(self.bands):
            if slept_s >= from_s:
                return dt.timedelta(seconds=(times - 1) * every_s)
        return dt.timedelta(0)


@dataclass(frozen=True, slots=True)
class Done:
    """What one answer means for the database.

    Attributes:
        rows: to be written; empty after a 304.
        owned: rows that this answer speaks of as a whole.
        generation: of a set, which version of it this is; None = it is none, or the version that is stored.
        seen: ids that stood in the answer.
        checked_at: the time the answer speaks of, by ESI's clock.
        expires_at: when it may be asked again, by our clock; None = never by itself.
        argument: what the route needs beside the id, where the answer tells it; None leaves the ledger's alone.
        unfinished: True when the job has more to do and stays pending (a character known in part).
        changed: True when the answer is a new one that fills no row (a list of ids).
        is_confirmed: a 304: it says that the answer with its ETag holds.
        stands: of a 304 the column that has a value in each row in which the answer stands that has its ETag; None = it
            says nothing of a row.
        unknown: names of fields that nobody here knows.
    """

    id: int
    rows: tuple[Row, ...] = ()
    seen: tuple[Seen, ...] = ()
    etag: str | None = None
    checked_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    argument: str | None = None
    unfinished: bool = False
    changed: bool = False
    stands: Field | None = None
    is_confirmed: bool = False
    unknown: tuple[str, ...] = ()
    owned: tuple[Owned, ...] = ()
    generation: Generation | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an id was not fetched: what a retry or a dead letter keeps of it.

    Attributes:
        argument: what was asked for beside the id; a job that is to be asked for with another one has not failed. None =
            whatever it is.
        attempt: failed attempts that the job had before; a job that has had more was counted already. None = not compared.
    """

    reason: str
    message: str
    max_attempts: int = 1
    ask_again_after_s: float | None = None
    ask_again_for_s: float | None = None
    status: int | None = None
    sample: str = ""
    traceback: str = field(default="", repr=False)
    argument: str | None = None
    attempt: int | None = None
