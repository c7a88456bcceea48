"""What is remembered of an import from another program's tables. Every function joins the caller's transaction."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence

from esid.store import migrate, notes
from esid.store.connection import Store
from esid.store.ledger import lookup
from esid.store.model import utc_text, utc_time

_FIRST, _LEFT_OUT = "takeover.", "takeover left out."


def place(store: Store, name: str) -> int:
    """The last id that was taken over before the import was interrupted; 0 where it begins."""
    return int(notes.memo(store, _FIRST + name) or 0)


def note_place(store: Store, name: str, last: int) -> None:
    """All ids up to `last` are taken over.

    Raises:
        SchemaMismatch: a newer program has migrated the database meanwhile.
    """
    migrate.check(store)
    notes.set_memo(store, _FIRST + name, str(last))


def left_out(store: Store, name: str) -> tuple[int, list[str]]:
    """How many rows up to that place were left out, and which and why, as far as they are named."""
    count, named = json.loads(notes.memo(store, _LEFT_OUT + name) or "[0, []]")
    return count, named


def note_left_out(store: Store, name: str, count: int, named: Sequence[str]) -> None:
    """So many rows of the import so far are left out."""
    notes.set_memo(store, _LEFT_OUT + name, json.dumps([count, list(named)]))


def forget_places(store: Store, names: Sequence[str]) -> None:
    """The import has come to its end: the next one looks at everything again."""
    for name in names:
        store.rows("DELETE FROM memos WHERE name IN (%s, %s)", (_FIRST + name, _LEFT_OUT + name))


def looked_at(store: Store, entity: str, ids: Sequence[int]) -> dict[int, dt.datetime | None]:
    """Known id -> when it was looked at last; locked."""
    rows = lookup.jobs(store, entity, ids, "entity_id, checked_at", for_update=True)
    return {key: utc_time(checked) for key, checked in rows}


def confirm_at(store: Store, entity: str, ids: Sequence[int], at: dt.datetime) -> None:
    """What was taken over whole is asked of ESI at this time, if nothing else has confirmed it by then."""
    sql = (
        f"UPDATE sync_jobs SET next_at = %s WHERE entity_type = %s AND {store.one_of('entity_id')} AND status = 'completed'"
    )
    store.rows(sql, (utc_text(at), entity, store.listed(sorted(ids))))
