"""The messages of the embedded queue: claimed with a lease, acknowledged by deletion, back after a crash.

Time is the database's own, so that hosts with wrong clocks agree on leases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esid.store.connection import Store, marks

#: Seconds: no lease and no delay is as long. What is ready later than that was written before the clock was set back.
AHEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message in somebody's hands. `deliveries` counts this one."""

    id: int
    queue: str
    body: str
    deliveries: int


def now_s(store: Store) -> str:
    """SQL for the database's own clock: seconds since the epoch."""
    return "((julianday('now') - 2440587.5) * 86400.0)" if store.is_sqlite else "EXTRACT(EPOCH FROM clock_timestamp())"


def _is_ready(store: Store) -> str:
    return f"(ready_at <= {now_s(store)} OR ready_at > {now_s(store)} + {AHEAD_S})"


def put(store: Store, messages: Sequence[tuple[str, int, str, float]]) -> None:
    """Store messages for good, all or none.

    Args:
        messages: (queue, priority, body, seconds of delay) each; no delay is longer than `AHEAD_S`.
    """

    def work() -> None:
        now = float(store.rows(f"SELECT {now_s(store)}")[0][0])
        rows = [(queue, priority, now + delay_s, 0, body) for queue, priority, body, delay_s in messages]
        store.insert("messages", ("queue", "priority", "ready_at", "deliveries", "body"), rows)

    if messages:
        store.run(work)


def turn(
    store: Store,
    wanted: Mapping[str, int],
    owner: str,
    *,
    acked: Sequence[int],
    returned: Sequence[tuple[int, float]],
    lease_s: float,
) -> list[Claimed]:
    """One transaction of a consumer: forget what was acked, give back what was returned, claim more.

    Args:
        wanted: queue -> how many messages of it are claimed at most.
        returned: (claim, seconds for which nobody gets it) each.
    """

    def work() -> list[Claimed]:
        if acked:
            store.rows(f"DELETE FROM messages WHERE owner = %s AND {store.one_of('id')}", (owner, store.listed(acked)))
        for wait_s in sorted({wait_s for _, wait_s in returned}):
            claims = [claim for claim, claim_wait_s in returned if claim_wait_s == wait_s]
            store.rows(
                f"UPDATE messages SET owner = NULL, ready_at = {now_s(store)} + %s "
                f"WHERE owner = %s AND {store.one_of('id')}",
                (wait_s, owner, store.listed(claims)),
            )
        return _claim(store, wanted, owner, lease_s) if wanted else []

    return store.run(work)


def _claim(store: Store, wanted: Mapping[str, int], owner: str, lease_s: float) -> list[Claimed]:
    lock = "" if store.is_sqlite else "FOR UPDATE SKIP LOCKED"
    first = (
        f"SELECT id FROM (SELECT id FROM messages WHERE queue = %s AND {_is_ready(store)} "
        f"ORDER BY priority DESC, id LIMIT %s {lock}) AS first"
    )
    # Not materialized, the locking part would be read as often as PostgreSQL likes, for more rows than are wanted.
    rows = store.rows(
        f"WITH wanted AS MATERIALIZED ({' UNION ALL '.join([first] * len(wanted))}) "
        f"UPDATE messages SET owner = %s, ready_at = {now_s(store)} + %s, deliveries = deliveries + 1 "
        "WHERE id IN (SELECT id FROM wanted) RETURNING id, queue, body, deliveries, priority",
        (*(one for pair in wanted.items() for one in pair), owner, lease_s),
    )
    return [Claimed(*row[:4]) for row in sorted(rows, key=lambda row: (-row[4], row[0]))]


def ready(store: Store, queues: Sequence[str]) -> list[str]:
    """Those of the queues in which there is something to claim. Reads only, in one statement for all of them."""
    if not queues:
        return []
    with store.connection():
        # Each by itself: of one list of queues PostgreSQL may read the longest to its end.
        one = f"EXISTS (SELECT 1 FROM messages WHERE queue = %s AND {_is_ready(store)})"
        (found,) = store.rows(f"SELECT {', '.join([one] * len(queues))}", queues)
    return [queue for queue, is_ready in zip(queues, found, strict=True) if is_ready]


def renew(store: Store, owner: str, claims: Sequence[int], lease_s: float) -> None:
    """Extend the lease of these claims of `owner`; what it does not know of, as the answer was lost, comes back."""
    sql = f"UPDATE messages SET ready_at = {now_s(store)} + %s WHERE owner = %s AND {store.one_of('id')}"
    if claims:
        store.run(lambda: store.rows(sql, (lease_s, owner, store.listed(claims))))


def release(store: Store, owner: str) -> int:
    """Give back at once everything that `owner` held."""
    sql = f"UPDATE messages SET owner = NULL, ready_at = {now_s(store)} WHERE owner = %s RETURNING id"
    return len(store.run(lambda: store.rows(sql, (owner,))))


def owners(store: Store) -> list[str]:
    """Everybody who holds a message."""
    with store.connection():
        return [owner for (owner,) in store.rows("SELECT DISTINCT owner FROM messages WHERE owner IS NOT NULL")]


def counts(store: Store) -> dict[str, tuple[int, int]]:
    """Queue -> (ready now or later, in somebody's hands)."""
    with store.connection():
        rows = store.rows(
            f"SELECT queue, SUM(CASE WHEN {_is_ready(store)} OR owner IS NULL THEN 1 ELSE 0 END), COUNT(*) "
            "FROM messages GROUP BY queue"
        )
    return {queue: (int(ready), int(total) - int(ready)) for queue, ready, total in rows}


def clear_but(store: Store, queues: Sequence[str]) -> int:
    """Delete what waits in other queues than these; returns how many. What somebody holds stays."""
    others = f" AND queue NOT IN ({marks(queues)})" if queues else ""
    sql = f"DELETE FROM messages WHERE owner IS NULL{others} RETURNING id"
    return len(store.run(lambda: store.rows(sql, queues)))


def clear(store: Store, queue: str) -> int:
    """Delete every message of one queue; returns how many."""
    return len(store.run(lambda: store.rows("DELETE FROM messages WHERE queue = %s RETURNING id", (queue,))))
