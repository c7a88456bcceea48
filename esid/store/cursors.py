"""Where each feed stands, and which process reads it. A lease makes the others stand by; a fence keeps the late out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from esid import clock, host
from esid.errors import EsidError
from esid.store.connection import Store
from esid.store.messages import now_s
from esid.store.model import utc_text, utc_time


class LeaseLost(EsidError):
    """Another process reads the feed now; what this one was about to write is not written."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a feed stands: what is read next (None = never read) and when that last moved."""

    position: str | None
    moved_at: dt.datetime | None


def take(store: Store, name: str, owner: str, lease_s: float) -> Cursor | None:
    """Take or renew the lease of a feed; None while another process has it.

    Args:
        lease_s: the same for everybody.
        owner: begins with `host.me()`. A lease whose process has ended for sure is taken at once.
    """

    def work() -> Cursor | None:
        columns = ("name", "leased_until")
        store.insert("feed_cursors", columns, [(name, 0.0)], "ON CONFLICT (name) DO NOTHING")
        ((other, is_over, position, moved_at),) = store.rows(
            # A lease that ends later than any is long was taken before the clock was set back.
            f"SELECT owner, leased_until <= {now_s(store)} OR leased_until > {now_s(store)} + %s, position, moved_at "
            f"FROM feed_cursors WHERE name = %s {'' if store.is_sqlite else 'FOR UPDATE'}",
            (lease_s, name),
        )
        if other not in {None, owner} and not is_over and not host.is_gone(other):
            return None
        store.rows(
            f"UPDATE feed_cursors SET owner = %s, leased_until = {now_s(store)} + %s WHERE name = %s",
            (owner, lease_s, name),
        )
        return Cursor(position, utc_time(moved_at))

    return store.run(work)


def move(store: Store, name: str, owner: str, position: str, lease_s: float) -> None:
    """Write what is read next and renew the lease, in the caller's transaction.

    Raises:
        LeaseLost: the caller's transaction must not be committed.
    """
    moved = store.rows(
        f"UPDATE feed_cursors SET position = %s, moved_at = %s, leased_until = {now_s(store)} + %s "
        "WHERE name = %s AND owner = %s RETURNING name",
        (position, utc_text(clock.now()), lease_s, name, owner),
    )
    if not moved:
        raise LeaseLost(f"feed {name}: another process reads it now")


def release(store: Store, name: str, owner: str) -> None:
    """Give the lease back, so that a stand-by takes over at once."""
    sql = "UPDATE feed_cursors SET owner = NULL, leased_until = 0 WHERE name = %s AND owner = %s"
    store.run(lambda: store.rows(sql, (name, owner)))


def states(store: Store) -> list[dict[str, Any]]:
    """Every feed that was ever read: name, position, seconds since it moved, owner."""
    now = clock.now()
    with store.connection():
        rows = store.rows("SELECT name, position, moved_at, owner FROM feed_cursors ORDER BY name")
    found = []
    for name, position, moved_at, owner in rows:
        time = utc_time(moved_at)
        moved_s = round(max(0.0, (now - time).total_seconds()), 1) if time else None
        found.append({"name": name, "position": position, "moved_s": moved_s, "reader": owner})
    return found
