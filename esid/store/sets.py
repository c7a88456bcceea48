"""Which version of each whole set is stored, and which other one is believed: see table `sets`.

An older version never overwrites a newer one, and a set is neither emptied nor halved by one answer.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass, replace

from esid import bounds, clock, log
from esid.store.connection import Store
from esid.store.model import Done, Generation, utc_text, utc_time
from esid.words import counted

#: Members up to which a set may shrink as it likes, if something is left of it.
SMALL = 50
#: The part of the cache time after which a later version is another one: ESI's servers are seconds apart.
_APART = 0.9
#: The part by which the members of two versions may differ that say the same.
_ALIKE = 0.1
_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_log = log.get("sets")


@dataclass(frozen=True, slots=True)
class Stored:
    """The version that is stored.

    Attributes:
        suspect_at, suspect_count: the first later version that was not believed, and its members; None = there was none.
    """

    at: dt.datetime
    pages: int
    count: int
    suspect_at: dt.datetime | None = None
    suspect_count: int | None = None


def stored(store: Store, entity: str, scope: int) -> Stored | None:
    """The version of a set that is stored; None = none. Locked where the caller is in a transaction."""
    lock = "" if store.is_sqlite or not store.database.in_transaction() else " FOR UPDATE"
    names = "generation, pages, rows, suspect_generation, suspect_rows"
    with store.connection():
        found = store.rows(f"SELECT {names} FROM sets WHERE entity = %s AND scope = %s{lock}", (entity, scope))
    now = clock.now()
    for at, pages, count, suspect_at, suspect_count in found:
        # A time that cannot be true would make all that follows older.
        time = bounds.happened(utc_time(at), now) or _LONG_AGO
        return Stored(time, pages, count, bounds.happened(utc_time(suspect_at), now), suspect_count)
    return None


def forget_versions(store: Store) -> None:
    """Whatever is answered next is read. How many rows there are stays known: it guards them. Joins the caller's
    transaction."""
    store.rows("UPDATE sets SET generation = %s", (utc_text(_LONG_AGO),))


def judged(store: Store, entity: str, one: Done, now: dt.datetime) -> Done:
    """The answer as far as it is believed, which is noted: without its rows where it is older than what is stored, or says
    that most of that is gone. Joins the caller's transaction."""
    new = one.generation
    assert new is not None
    known = stored(store, entity, one.id)
    if known is None or (new.at >= known.at and not _is_suspect(new, known)):
        _note(store, entity, one.id, new, now)
        return one
    # The next version is wanted whole, even if it has the same ETag.
    refused = replace(one, rows=(), owned=(), seen=(), etag=None)
    if new.at >= known.at and (known.suspect_at is None or not _is_said_again(new, known)):
        sql = "UPDATE sets SET suspect_generation = %s, suspect_rows = %s, read_at = %s WHERE entity = %s AND scope = %s"
        store.rows(sql, (utc_text(new.at), new.count, utc_text(now), entity, one.id))
        words = (
            f"the answer of {new.at:%Y-%m-%d %H:%M} UTC has {counted(new.count, 'row')}, where {known.count:,} are stored; "
            f"these stay {'until a later answer says the same' if new.may_shrink else 'until an answer has as many again'}"
        )
        log.event(_log, "set.suspect", words, level=logging.WARNING, entity=entity, scope=one.id)
    return refused


def _is_suspect(new: Generation, known: Stored) -> bool:
    """Whether most is gone in this version, and no earlier one has said so."""
    is_shrunk = known.count and (not new.count or (known.count >= SMALL and new.count < new.least_share * known.count))
    if not is_shrunk:
        return False
    is_later = known.suspect_at and (new.at - known.suspect_at).total_seconds() >= _APART * new.cache_s
    return not (new.may_shrink and is_later and _is_said_again(new, known))


def _is_said_again(new: Generation, known: Stored) -> bool:
    """Whether it has about as many members as the version that was not believed."""
    return known.suspect_count is not None and abs(new.count - known.suspect_count) <= _ALIKE * known.suspect_count


def _note(store: Store, entity: str, scope: int, new: Generation, now: dt.datetime) -> None:
    columns = ("entity", "scope", "generation", "pages", "rows", "suspect_generation", "suspect_rows", "read_at")
    row = (entity, scope, utc_text(new.at), new.pages, new.count, None, None, utc_text(now))
    sets = ", ".join(f"{name} = excluded.{name}" for name in columns[2:])
    store.insert("sets", columns, [row], f"ON CONFLICT (entity, scope) DO UPDATE SET {sets}")
