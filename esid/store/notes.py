"""Small things worth remembering: facts of the installation, ids that break a batch, unknown fields."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections import Counter
from collections.abc import Sequence

from esid import clock
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds between two writes of the counts of unknown fields by one process.
FLUSH_S = 30.0
#: Unknown fields that are told apart, and characters of their names: an answer may have any number of them.
MOST_FIELDS, _LONGEST_FIELD = 1000, 200
#: Seconds after which an id that broke a batch may be in one again, at most: as what was not found is asked again.
BARRED_S = 21 * 86_400.0
#: Ids by which a list may always grow, and seconds before an answer that says the same as one that was kept out is another.
_LONGER, AGAIN_S = 1000, 3600.0
#: First part of the memos that count restarts.
_RESTARTS = "restarts."


def memo(store: Store, name: str) -> str | None:
    """The value noted under a name."""
    with store.connection():
        rows = store.rows("SELECT value FROM memos WHERE name = %s", (name,))
    return str(rows[0][0]) if rows else None


def set_memo(store: Store, name: str, value: str) -> None:
    """Note a value."""
    tail = "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    store.run(lambda: store.insert("memos", ("name", "value"), [(name, value)], tail))


def note_restarts(store: Store, kind: str, child: str, count: int) -> None:
    """A child (worker, scheduler, web) died and was replaced so many times in all; to say it twice is to say it once.

    Args:
        child: a name that no other child ever had.
    """
    tail = (
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value "
        "WHERE CAST(memos.value AS BIGINT) < CAST(excluded.value AS BIGINT)"
    )
    store.run(lambda: store.insert("memos", ("name", "value"), [(f"{_RESTARTS}{kind}.{child}", str(count))], tail))


def restarts(store: Store) -> dict[str, int]:
    """Kind of child -> how often one died and was replaced, in all daemons since the database was made."""
    with store.connection():
        rows = store.rows("SELECT name, value FROM memos WHERE name LIKE %s ORDER BY name", (f"{_RESTARTS}%",))
    counts: Counter[str] = Counter()
    for name, value in rows:
        counts[name.removeprefix(_RESTARTS).partition(".")[0]] += int(value)
    return dict(counts)


def installation(store: Store) -> str:
    """A random text that is this database's for ever."""
    row = ("installation", uuid.uuid4().hex)
    store.run(lambda: store.insert("memos", ("name", "value"), [row], "ON CONFLICT DO NOTHING"))
    return str(memo(store, "installation"))


def use_compatibility_date(store: Store, date: str) -> None:
    """ETags of another compatibility date are worth nothing."""
    if memo(store, "compatibility_date") == date:
        return
    store.run(lambda: ledger.forget_etags(store))
    set_memo(store, "compatibility_date", date)


def unbatchable(store: Store, entity: str, ids: Sequence[int]) -> set[int]:
    """Those of `ids` that break a batch, as far as that was found out lately."""
    if not ids:
        return set()
    sql = f"SELECT entity_id FROM unbatchable WHERE entity_type = %s AND {store.one_of('entity_id')} AND created_at > %s"
    with store.connection():
        return {key for (key,) in store.rows(sql, (entity, store.listed(ids), barred_since()))}


def barred_since() -> str | None:
    """What has broken a batch before this time is forgiven."""
    return utc_text(clock.now() - dt.timedelta(seconds=BARRED_S))


def add_unbatchable(store: Store, entity: str, ids: Sequence[int], seconds: float = BARRED_S) -> None:
    """Put these ids into no batch for so long, three weeks at most."""
    since = clock.now() - dt.timedelta(seconds=BARRED_S - seconds)
    rows = [(entity, key, utc_text(since)) for key in sorted(ids)]
    columns = ("entity_type", "entity_id", "created_at")
    if rows:
        tail = "ON CONFLICT (entity_type, entity_id) DO UPDATE SET created_at = excluded.created_at"
        store.run(lambda: store.insert("unbatchable", columns, rows, tail))


def disbelieved(store: Store, entity: str, key: int, count: int, most: int) -> int | None:
    """Whether a list of ids is to be kept out: the number that is plausible where it is, None where it is to be believed.

    It is kept out where it is more than twice as long as the longest before, and by more than a thousand; the first where it
    has more than `most`. An answer at least an hour later, when no cache holds the first any more, that says the same is
    believed. That a list is short or empty makes no later one suspect, and takes nothing away.
    """
    name, now = f"list.{entity}.{key}", clock.now()
    noted = json.loads(memo(store, name) or "{}")
    longest = noted.get("longest")
    plausible = most if longest is None else max(2 * longest, longest + _LONGER)
    if count > plausible:
        is_same = abs(count - noted.get("refused", 0)) <= count / 10
        if not is_same or "refused_at" not in noted:
            set_memo(store, name, json.dumps({**noted, "refused": count, "refused_at": utc_text(now)}))
            return plausible
        refused_at = utc_time(noted["refused_at"]) or now
        if (now - refused_at).total_seconds() < AGAIN_S:
            return plausible
    if count > (longest or 0):
        set_memo(store, name, json.dumps({"longest": count}))
    return None


class UnknownFields:
    """Counts fields that esid does not know, in memory, and writes the counts now and then."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._flushed_at = clock.monotonic() - FLUSH_S

    def add(self, entity: str, names: Sequence[str]) -> None:
        """Count fields of one answer."""
        with self._lock:
            for name in names:
                key = (entity, name[:_LONGEST_FIELD])
                if key in self._counts or len(self._counts) < MOST_FIELDS:
                    self._counts[key] += 1

    def flush(self, store: Store, *, now: bool = False) -> None:
        """Write what has been counted, at most every 30 s unless `now`."""
        with self._lock:
            if not self._counts or not (now or clock.monotonic() - self._flushed_at >= FLUSH_S):
                return
            counts, self._counts = self._counts, Counter()
            self._flushed_at = clock.monotonic()
        store.run(lambda: _count_fields(store, counts))


def _count_fields(store: Store, counts: Counter[tuple[str, str]]) -> None:
    """Fields that are new have a row each as long as there are not too many."""
    known = {(entity, name) for entity, name in store.rows("SELECT entity_type, field FROM unknown_fields")}
    stamp, places = utc_text(clock.now()), MOST_FIELDS - len(known)
    new = [key for key in sorted(counts) if key not in known][: max(places, 0)]
    rows = [(*key, counts[key], stamp, stamp) for key in sorted([*new, *(known & set(counts))])]
    store.insert(
        "unknown_fields",
        ("entity_type", "field", "count", "first_at", "last_at"),
        rows,
        "ON CONFLICT (entity_type, field) DO UPDATE SET count = unknown_fields.count + excluded.count, "
        "last_at = excluded.last_at",
    )


def unknown_fields(store: Store) -> list[tuple[str, str, int]]:
    """(entity, field, how often seen), by name."""
    with store.connection():
        rows = store.rows("SELECT entity_type, field, count FROM unknown_fields ORDER BY entity_type, field")
    return [(entity, name, count) for entity, name, count in rows]
