"""ETags that stay although the data change: counted, and remembered for a day, in which that route is asked without them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from esid import bounds, clock
from esid.store import counters
from esid.store.connection import Store
from esid.store.model import utc_text, utc_time

#: Seconds for which a route that has lied is asked without ETags.
DISTRUST_S = 86_400.0
_NAME = "etag_lies:"


def note(store: Store, entity: str, count: int) -> None:
    """So many answers came changed under the ETag that they had before. Joins the caller's transaction."""
    counters.add(store, {f"{_NAME}{entity}": float(count)})
    row = (f"{_NAME}{entity}", str(utc_text(clock.now())))
    store.insert("memos", ("name", "value"), [row], "ON CONFLICT (name) DO UPDATE SET value = excluded.value")


def has_lied(store: Store, entity: str) -> bool:
    """Whether the ETags of this entity's route are worth nothing just now."""
    now = clock.now()
    with store.connection():
        rows = store.rows("SELECT value FROM memos WHERE name = %s", (f"{_NAME}{entity}",))
    at = bounds.happened(utc_time(rows[0][0]), now) if rows else None
    return at is not None and now - at < dt.timedelta(seconds=DISTRUST_S)


def counted(totals: Mapping[str, float]) -> dict[str, int]:
    """Entity -> how many answers came changed under an old ETag.

    Args:
        totals: all counters.
    """
    return {name.removeprefix(_NAME): int(count) for name, count in totals.items() if name.startswith(_NAME)}
