"""Collects the state of everything, for `esid status` and the status server. Reads only."""

from __future__ import annotations

from typing import Any

from esid import __version__, clock
from esid.entities import ENTITIES
from esid.errors import EsidError
from esid.esi.budget import Budget
from esid.esi.snapshot import snapshot
from esid.queue.broker import Queue
from esid.store import cursors, days, dead_letters, ledger, notes
from esid.store.connection import Store

STATES = ("pending", "processing", "completed", "failed")


def collect(store: Store, broker: Queue, budget: Budget) -> dict[str, Any]:
    """Everything, as plain values.

    Raises:
        EsidError: the database cannot be read. A broker that is away is part of the state instead.
    """
    names = [entity.name for entity in ENTITIES]
    now = clock.now()
    counts = ledger.counts(store)
    return {
        "version": __version__,
        "time": now.isoformat(timespec="seconds"),
        "database": store.where,
        "restarts": notes.restarts(store),
        "queues": _queues(broker),
        "limits": snapshot(budget),
        "ledger": {name: {state: counts.get(name, {}).get(state, 0) for state in STATES} for name in names},
        "oldest_open_s": {
            name: round((now - time).total_seconds(), 1) for name, time in ledger.oldest_open(store, names).items()
        },
        "feeds": cursors.states(store),
        "killmail_days": days.latest(store),
        "dead_letters": [
            {"entity": entity, "reason": reason, "count": count} for entity, reason, count in dead_letters.reasons(store)
        ],
        "unknown_fields": [
            {"entity": entity, "field": name, "count": count} for entity, name, count in notes.unknown_fields(store)
        ],
    }


def _queues(broker: Queue) -> dict[str, Any]:
    try:
        return {"reachable": True, "pending": broker.depths()}
    except EsidError as error:
        return {"reachable": False, "error": str(error), "pending": {}}
