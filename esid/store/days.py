"""Killmails by day: how many stand in the tables, how many zKillboard knows, how far each archive was read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esid import clock
from esid.errors import StoreError
from esid.store import migrate
from esid.store.connection import Store, marks
from esid.store.model import utc_text

#: Days that `esid status` shows and that healing looks at by default.
LATEST_DAYS = 14
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found when a day was last compared: `missing` is None where it was not, or another total was expected."""

    expected: int
    have: int | None
    missing: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How far an archive was read. See the table `archive_imports`."""

    fingerprint: str
    members: int = 0
    killmails: int = 0
    refused: int = 0
    finished: bool = False


def whole_ids(store: Store, day: dt.date) -> dict[int, str]:
    """Id -> hash of the killmails of a day that have as many attackers as they say: others are as good as missing."""
    with store.connection():
        rows = store.rows(
            "SELECT id, hash FROM killmails WHERE killmail_time >= %s AND killmail_time < %s AND attacker_count = "
            "(SELECT COUNT(*) FROM attackers WHERE attackers.killmail_id = killmails.id)",
            _bounds(day),
        )
    return dict(rows)


def count(store: Store, day: dt.date) -> int:
    """How many killmails of a day there are."""
    with store.connection():
        sql = "SELECT COUNT(*) FROM killmails WHERE killmail_time >= %s AND killmail_time < %s"
        return int(store.rows(sql, _bounds(day))[0][0])


def compared(store: Store, days: Sequence[dt.date]) -> dict[dt.date, Compared]:
    """What is remembered of some days."""
    found: dict[dt.date, Compared] = {}
    with store.connection():
        for start in range(0, len(days), 1000):
            part = [day.isoformat() for day in days[start : start + 1000]]
            sql = f"SELECT day, expected, have, missing FROM killmail_days WHERE day IN ({marks(part)})"
            found |= {_date(day): Compared(*rest) for day, *rest in store.rows(sql, part)}
    return found


def expect(store: Store, totals: Mapping[dt.date, int]) -> None:
    """Remember how many killmails zKillboard knows of each day; what was found with another total counts no more."""
    stamp = utc_text(clock.now())
    rows = [(day.isoformat(), total, stamp) for day, total in sorted(totals.items())]
    tail = (
        "ON CONFLICT (day) DO UPDATE SET expected = excluded.expected, missing = NULL, checked_at = excluded.checked_at "
        "WHERE killmail_days.expected <> excluded.expected"
    )
    store.run(lambda: store.insert("killmail_days", ("day", "expected", "checked_at"), rows, tail))


def settle(store: Store, day: dt.date, have: int, missing: int | None) -> None:
    """Remember what a comparison found; None = it could not be made."""
    sql = "UPDATE killmail_days SET have = %s, missing = %s, checked_at = %s WHERE day = %s"
    store.run(lambda: store.rows(sql, (have, missing, utc_text(clock.now()), day.isoformat())))


def latest(store: Store) -> list[dict[str, Any]]:
    """The last days, newest first: day, have, expected (None = unknown yet), missing."""
    today = clock.now().date()
    days = [today - _DAY * back for back in range(LATEST_DAYS + 1)]
    told = compared(store, days)
    have = _counts(store, days[-1])
    found = []
    for day in days:
        expected = told[day].expected if day in told else None
        if expected is not None or have.get(day):
            missing = None if expected is None else max(0, expected - have.get(day, 0))
            found.append({"day": day.isoformat(), "have": have.get(day, 0), "expected": expected, "missing": missing})
    return found


def reading(store: Store, source: str, day: dt.date) -> Reading | None:
    """How far the archive of a day was read; None = never begun."""
    with store.connection():
        return _noted(store, source, day)


def note_reading(store: Store, source: str, day: dt.date, how_far: Reading, begun_at: int) -> None:
    """Remember how far an archive was read, in the caller's transaction.

    Before the end nobody has been told anything, and what a crash of the server takes it takes together with this note,
    so that PostgreSQL need not wait for its disk at each batch.

    Args:
        begun_at: members that had been read when this batch began.

    Raises:
        StoreError: the database has lost the batch before this one, or a newer program has migrated it.
    """
    migrate.check(store)
    if begun_at:
        noted = _noted(store, source, day)
        if noted is None or noted.fingerprint != how_far.fingerprint or noted.members < begun_at:
            raise StoreError(
                f"the database has lost a part of what was imported of {day}; import again, it goes on from there"
            )
    if not (how_far.finished or store.is_sqlite):
        store.rows("SET LOCAL synchronous_commit = off")
    columns = ("source", "day", "fingerprint", "members", "killmails", "refused", "finished", "updated_at")
    row = (
        source, day.isoformat(), how_far.fingerprint, how_far.members, how_far.killmails, how_far.refused, how_far.finished,
        utc_text(clock.now()),
    )  # fmt: skip
    sets = ", ".join(f"{name} = excluded.{name}" for name in columns[2:])
    # Of two that read the same archive at the same time the one who is behind does not take the other's note back.
    is_newer = (
        "archive_imports.finished OR archive_imports.fingerprint <> excluded.fingerprint "
        "OR archive_imports.members <= excluded.members"
    )
    store.insert("archive_imports", columns, [row], f"ON CONFLICT (source, day) DO UPDATE SET {sets} WHERE {is_newer}")


def each_day(first: dt.date, last: dt.date) -> Iterator[dt.date]:
    """Every day from the first to the last, both included."""
    return (first + _DAY * number for number in range((last - first).days + 1))


def _noted(store: Store, source: str, day: dt.date) -> Reading | None:
    rows = store.rows(
        "SELECT fingerprint, members, killmails, refused, finished FROM archive_imports WHERE source = %s AND day = %s",
        (source, day.isoformat()),
    )
    return Reading(*rows[0]) if rows else None


def _counts(store: Store, first: dt.date) -> dict[dt.date, int]:
    """Killmails of each day since the first."""
    by_day = "substr(killmail_time, 1, 10)" if store.is_sqlite else "(killmail_time AT TIME ZONE 'UTC')::date"
    with store.connection():
        rows = store.rows(
            f"SELECT {by_day}, COUNT(*) FROM killmails WHERE killmail_time >= %s GROUP BY 1", (_bounds(first)[0],)
        )
    return {_date(day): int(total) for day, total in rows}


def _bounds(day: dt.date) -> tuple[str | None, str | None]:
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return utc_text(midnight), utc_text(midnight + _DAY)


def _date(value: Any) -> dt.date:
    """PostgreSQL gives a date, SQLite its text."""
    return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
