"""Looks for what must not be in the database, in bounded steps, and mends what has one right answer.

The rest of esid keeps these rules; what breaks them is a fault that was there once: a moved clock, a spoiled file, an
older release, a hand. Each look goes on where the last one stopped, so that all is seen in turn however large it is.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from esid import bounds, clock, host
from esid.store import counters, ledger, notes
from esid.store.connection import Store
from esid.store.ledger import lookup
from esid.store.model import Table, utc_text, utc_time

#: Jobs of one step, and seconds of one look at all.
STEP, LOOK_S = 5_000, 10.0
#: Seconds that an open job may go untouched: the sweep has had its turn long ago.
FORGOTTEN_S = 3600.0
#: Seconds: the longest time after which anything is asked again.
LONGEST_S = 22 * 86_400.0
#: How the errors of ids begin that an older release gave up for what was not theirs.
NOT_THEIRS = ("redirect:", "http_3", "http_401:", "http_403:", "http_407:", "http_451:")
#: What is counted, in words.
WORDS = {
    "no_time": (
        "known id without a time at which it is asked again",
        "known ids without a time at which they are asked again",
    ),
    "far_time": ("time beyond what any rule gives", "times beyond what any rule gives"),
    "forgotten": ("open job without a message", "open jobs without a message"),
    "not_theirs": ("id given up for what was not its own", "ids given up for what was not theirs"),
    "no_row": ("answer without its row", "answers without their row"),
    "no_job": ("row without a job", "rows without a job"),
}
_COUNTED, _LATEST = "audit:", f"latest_time:{host.NAME}"


@dataclass(frozen=True, slots=True)
class Kind:
    """An entity as the audit sees it.

    Attributes:
        table: its own; None = a list of ids.
        argument: the column of the table that the route needs beside the id; "" = none.
        is_lasting: its answers never change: they are never asked for again.
    """

    entity: str
    table: type[Table] | None
    argument: str = ""
    is_lasting: bool = False


def look(store: Store, kinds: Sequence[Kind], seconds: float = LOOK_S) -> Counter[str]:
    """Go on for so many seconds; how many of what was found and mended. Each step is a transaction of its own."""
    ends_at, found = clock.monotonic() + seconds, Counter[str]()
    for kind in kinds:
        while clock.monotonic() < ends_at:
            some, is_last = store.run(partial(_step, store, kind))
            found += some
            if is_last:
                break
    counters.add(store, {f"{_COUNTED}{what}": float(count) for what, count in found.items()})
    return found


def clock_went_back(store: Store) -> bool:
    """Whether this host's clock shows an earlier time than was noted: all times may be wrong."""
    latest = utc_time(notes.memo(store, _LATEST))
    return latest is not None and latest > bounds.ahead(clock.now())


def note_time(store: Store) -> None:
    """What this host's clock shows; to be called when what follows from an earlier time has been done."""
    notes.set_memo(store, _LATEST, str(utc_text(clock.now())))


def begin_anew(store: Store, kinds: Sequence[Kind]) -> None:
    """The next looks begin with the first ids."""
    for kind in kinds:
        notes.set_memo(store, f"{_COUNTED}{kind.entity}", str(lookup.BEFORE_ALL))


def counted(totals: Mapping[str, float]) -> dict[str, int]:
    """What was ever found, by its name in `WORDS`.

    Args:
        totals: all counters.
    """
    return {what: int(totals.get(f"{_COUNTED}{what}", 0.0)) for what in WORDS}


def _step(store: Store, kind: Kind) -> tuple[Counter[str], bool]:
    """Look at the next ids of a kind; (what was found, whether these were the last)."""
    name = f"{_COUNTED}{kind.entity}"
    first = int(notes.memo(store, name) or lookup.BEFORE_ALL)
    last = lookup.nth_after(store, kind.entity, first, STEP) or lookup.LAST_ID
    found = Counter[str]()
    for what, mend in _RULES.items():
        found[what] += mend(store, kind, first, last)
    is_last = last == lookup.LAST_ID
    notes.set_memo(store, name, str(lookup.BEFORE_ALL if is_last else last))
    return +found, is_last


def _no_time(store: Store, kind: Kind, first: int, last: int) -> int:
    """An id that was asked for has a time at which it is asked again; an answer that never changes has none."""
    answered = "status = 'failed'" if kind.is_lasting else "(status = 'failed' OR checked_at IS NOT NULL)"
    ids = _jobs(store, kind, first, last, f"status IN ('completed', 'failed') AND {answered} AND next_at IS NULL", ())
    now = utc_text(clock.now())
    lookup.update(store, kind.entity, ids, ("completed", "failed"), "next_at = %s, updated_at = %s", (now, now))
    return len(ids)


def _far_time(store: Store, kind: Kind, first: int, last: int) -> int:
    """What was written by a clock that was ahead, or waits for longer than anything does, is due now."""
    now = clock.now()
    stamp, ahead, expiry = (utc_text(time) for time in (now, bounds.ahead(now), bounds.expiry(now)))
    waits_s = LONGEST_S, ledger.LONGEST_GATHER_S + bounds.SKEW_S
    far, company = (utc_text(now + dt.timedelta(seconds=seconds)) for seconds in waits_s)
    which = (
        "(next_at > %s OR refresh_at > %s OR expires_at > %s OR due_at > %s "
        "OR checked_at > %s OR changed_at > %s OR updated_at > %s)"
    )
    ids = _jobs(store, kind, first, last, which, (far, far, expiry, company, ahead, ahead, ahead))
    sets = [f"{name} = CASE WHEN {name} IS NULL THEN {name} ELSE %s END" for name in ("next_at", "refresh_at", "expires_at")]
    sets += [f"{name} = CASE WHEN {name} > %s THEN NULL ELSE {name} END" for name in ("checked_at", "changed_at")]
    sets += ["due_at = CASE WHEN due_at > %s THEN %s ELSE due_at END", "updated_at = %s"]
    values = (stamp, stamp, stamp, ahead, ahead, company, stamp, stamp)
    states = ("pending", "processing", "completed", "failed")
    rows = lookup.update(store, kind.entity, ids, states, ", ".join(sets), values, returning="entity_id")
    return len(rows)


def _forgotten(store: Store, kind: Kind, first: int, last: int) -> int:
    now = clock.now()
    long_ago = utc_text(now - dt.timedelta(seconds=FORGOTTEN_S))
    which = f"status IN {ledger.OPEN} AND due_at IS NULL AND updated_at <= %s"
    ids = _jobs(store, kind, first, last, which, (long_ago,))
    lookup.update(store, kind.entity, ids, ledger.OPEN, ledger.PENDING, (utc_text(now), utc_text(now)))
    return len(ids)


def _not_theirs(store: Store, kind: Kind, first: int, last: int) -> int:
    likes = " OR ".join(["error LIKE %s"] * len(NOT_THEIRS))
    # Today's release has asked such an id ten times before it gives it up.
    which = f"status = 'failed' AND retry_count < 3 AND next_at > %s AND ({likes})"
    again = utc_text(clock.now() + dt.timedelta(days=1))
    return _ask_again(store, kind, _jobs(store, kind, first, last, which, (again, *(f"{one}%" for one in NOT_THEIRS))))


def _no_row(store: Store, kind: Kind, first: int, last: int) -> int:
    """What was answered has its row: without it the ETag, the expiry and the state speak of nothing."""
    if kind.table is None:
        return 0
    known = "(job.checked_at IS NOT NULL OR job.expires_at IS NOT NULL" + (
        " OR job.argument IS NOT NULL)" if kind.argument else ")"
    )
    sql = (
        f"SELECT job.entity_id FROM sync_jobs AS job LEFT JOIN {_name(kind)} AS row ON row.id = job.entity_id "
        f"WHERE job.entity_type = %s AND job.entity_id > %s AND job.entity_id <= %s AND job.status = 'completed' "
        f"AND {known} AND row.id IS NULL ORDER BY job.entity_id"
    )
    return _ask_again(store, kind, [key for (key,) in store.rows(sql, (kind.entity, first, last))])


def _no_job(store: Store, kind: Kind, first: int, last: int) -> int:
    """What has a row is known; what it is asked for with stands in the row."""
    if kind.table is None:
        return 0
    argument = f"row.{kind.argument}" if kind.argument else "NULL"
    sql = (
        f"SELECT row.id, {argument} FROM {_name(kind)} AS row LEFT JOIN sync_jobs AS job "
        "ON job.entity_type = %s AND job.entity_id = row.id WHERE row.id > %s AND row.id <= %s AND job.entity_id IS NULL "
        "ORDER BY row.id LIMIT %s"
    )
    stamp, rows = utc_text(clock.now()), store.rows(sql, (kind.entity, first, last, STEP))
    status, due_at = ("completed", None) if kind.is_lasting else ("pending", stamp)
    columns = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "argument", "due_at")
    values = [(kind.entity, key, status, 0, stamp, stamp, value, due_at) for key, value in rows]
    store.insert("sync_jobs", columns, values, "ON CONFLICT DO NOTHING")
    return len(rows)


_RULES: dict[str, Callable[[Store, Kind, int, int], int]] = {
    "far_time": _far_time,
    "no_time": _no_time,
    "forgotten": _forgotten,
    "not_theirs": _not_theirs,
    "no_row": _no_row,
    "no_job": _no_job,
}


def _ask_again(store: Store, kind: Kind, ids: Collection[int]) -> int:
    stamp = utc_text(clock.now())
    sets = (
        "status = 'pending', retry_count = 0, etag = NULL, expires_at = NULL, next_at = NULL, due_at = %s, updated_at = %s"
    )
    rows = lookup.update(store, kind.entity, ids, ("completed", "failed"), sets, (stamp, stamp), returning="entity_id")
    return len(rows)


def _jobs(store: Store, kind: Kind, first: int, last: int, which: str, values: Sequence[str | None]) -> list[int]:
    sql = (
        "SELECT entity_id FROM sync_jobs WHERE entity_type = %s AND entity_id > %s AND entity_id <= %s "
        f"AND {which} ORDER BY entity_id"
    )
    return [key for (key,) in store.rows(sql, (kind.entity, first, last, *values))]


def _name(kind: Kind) -> str:
    table = kind.table
    return str(table._meta.table_name) if table else ""
