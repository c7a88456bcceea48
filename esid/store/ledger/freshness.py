"""How fresh the data are: how many answers are due by the schedule, and how old the oldest of them is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from esid import clock
from esid.store.connection import Store
from esid.store.ledger.words import each
from esid.store.model import utc_text, utc_time

#: Touches only what is due.
_DUE = "(SELECT COUNT(*) FROM sync_jobs WHERE entity_type = column1 AND next_at <= %s AND status = 'completed')"
_OLDEST = "(SELECT MIN(checked_at) FROM sync_jobs WHERE entity_type = column1 AND checked_at IS NOT NULL)"


def looked(store: Store, entities: Sequence[str]) -> dict[str, tuple[int, dt.datetime | None]]:
    """Entity -> how many of its answers are due by the schedule, and when ESI was asked for the oldest of them."""
    with store.connection():
        rows = store.rows(f"SELECT column1, {_DUE}, {_OLDEST} FROM {each(entities)}", (utc_text(clock.now()), *entities))
    return {entity: (int(due), utc_time(oldest)) for entity, due, oldest in rows}
