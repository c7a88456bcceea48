"""Small things worth remembering: facts of the installation, ids that break a batch, unknown fields."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections import Counter
from collections.abc import Sequence

from esid import clock
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import utc_text

#: Seconds between two writes of the counts of unknown fields by one process.
FLUSH_S = 30.0
#: Seconds after which an id that broke a batch may be in one again: as what was not found is asked again.
BARRED_S = 21 * 86_400.0
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


def add_unbatchable(store: Store, entity: str, ids: Sequence[int]) -> None:
    """Put these ids into no batch for three weeks."""
    rows = [(entity, key, utc_text(clock.now())) for key in sorted(ids)]
    columns = ("entity_type", "entity_id", "created_at")
    if rows:
        tail = "ON CONFLICT (entity_type, entity_id) DO UPDATE SET created_at = excluded.created_at"
        store.run(lambda: store.insert("unbatchable", columns, rows, tail))


class UnknownFields:
    """Counts fields that esid does not know, in memory, and writes the counts now and then."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._flushed_at = clock.monotonic() - FLUSH_S

    def add(self, entity: str, names: Sequence[str]) -> None:
        """Count fields of one answer."""
        with self._lock:
            self._counts.update((entity, name) for name in names)

    def flush(self, store: Store, *, now: bool = False) -> None:
        """Write what has been counted, at most every 30 s unless `now`."""
        with self._lock:
            if not self._counts or not (now or clock.monotonic() - self._flushed_at >= FLUSH_S):
                return
            counts, self._counts = self._counts, Counter()
            self._flushed_at = clock.monotonic()
        stamp = utc_text(clock.now())
        rows = [(entity, name[:200], count, stamp, stamp) for (entity, name), count in sorted(counts.items())]
        columns = ("entity_type", "field", "count", "first_at", "last_at")
        store.run(
            lambda: store.insert(
                "unknown_fields",
                columns,
                rows,
                "ON CONFLICT (entity_type, field) DO UPDATE SET count = unknown_fields.count + excluded.count, "
                "last_at = excluded.last_at",
            )
        )


def unknown_fields(store: Store) -> list[tuple[str, str, int]]:
    """(entity, field, how often seen), by name."""
    with store.connection():
        rows = store.rows("SELECT entity_type, field, count FROM unknown_fields ORDER BY entity_type, field")
    return [(entity, name, count) for entity, name, count in rows]
