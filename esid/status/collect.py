"""Collects the state of everything, for `esid status` and the status server. Reads only. Keys: docs/status.md."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esid import __version__, clock
from esid.entities import ENTITIES
from esid.esi.budget import Budget
from esid.esi.budget.view import snapshot
from esid.queue.broker import Queue
from esid.status import history, timetable, trouble
from esid.store import audit, counters, cursors, days, dead_letters, ledger, lies, notes, processes, samples
from esid.store.connection import Store
from esid.store.ledger import freshness

STATES = ("pending", "processing", "completed", "failed")


@dataclass(frozen=True)
class Sources:
    """What the state is collected from.

    Attributes:
        schedules: name of a task -> its setting.
        installation: see `plan.planned`.
        place: where messages go and come from by the settings here.
    """

    store: Store
    broker: Queue
    budget: Budget
    schedules: Mapping[str, str]
    installation: str
    place: str


def collect(sources: Sources) -> dict[str, Any]:
    """Everything, as plain values.

    Raises:
        EsidError: the database cannot be read. A broker that is away is part of the state instead.
    """
    store = sources.store
    names = [entity.name for entity in ENTITIES]
    now = clock.now()
    counts, queues, limits = ledger.counts(store), history.queues(sources.broker), snapshot(sources.budget)
    totals = counters.values(store)
    sample, living = history.now(store, queues, limits, counts), processes.living(store)
    state = {
        "version": __version__,
        "time": now.isoformat(timespec="seconds"),
        "database": store.where,
        "restarts": notes.restarts(store),
        "audit": audit.counted(totals),
        "etag_lies": lies.counted(totals),
        "queues": queues,
        "limits": limits,
        "ledger": {name: {state: counts.get(name, {}).get(state, 0) for state in STATES} for name in names},
        "oldest_open_s": {
            name: round((now - time).total_seconds(), 1) for name, time in ledger.oldest_open(store, names).items()
        },
        "freshness": _freshness(store, now, counts),
        "throughput": history.throughput(samples.last(store, 3700.0), sample),
        "processes": living,
        "schedule": timetable.tasks(store, sources.schedules, sources.installation, living),
        "feeds": cursors.states(store),
        "killmail_days": days.latest(store),
        "dead_letters": [
            {"entity": entity, "reason": reason, "count": count} for entity, reason, count in dead_letters.reasons(store)
        ],
        "dead_letters_forgotten": [
            {"entity": entity, "reason": reason, "count": count} for entity, reason, count in dead_letters.forgotten(totals)
        ],
        "unknown_fields": [
            {"entity": entity, "field": name, "count": count} for entity, name, count in notes.unknown_fields(store)
        ],
    }
    is_moving = processes.are_moving(store)
    return state | {"trouble": trouble.found(state, sources.place, _without_message(store), is_moving=is_moving)}


def _without_message(store: Store) -> list[str]:
    """Entities of which a job has waited longer than a minute since it was published, and nobody has taken it up."""
    return ledger.with_orphans(store, [entity.name for entity in ENTITIES], trouble.PUBLISHED_S)


def _freshness(store: Store, now: dt.datetime, counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    """Entity -> how many answers there are, the share that is not due, seconds since ESI made the oldest one."""
    found = {}
    for name, (due, oldest) in freshness.looked(store, [entity.name for entity in ENTITIES]).items():
        known = counts.get(name, {}).get("completed", 0)
        # The two were counted one after the other.
        fresh = max(0, known - due)
        found[name] = {
            "known": known,
            "fresh": fresh,
            "share": round(fresh / known, 4) if known else None,
            "oldest_s": round((now - oldest).total_seconds()) if oldest else None,
        }
    return found
