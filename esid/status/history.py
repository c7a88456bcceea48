"""The last hour: a sample of the state each minute, and the rates that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esid import clock, host
from esid.errors import EsidError
from esid.esi.budget import Budget
from esid.esi.budget.view import snapshot
from esid.queue.broker import Queue
from esid.store import counters, ledger, samples
from esid.store.connection import Store

#: Minutes over which the throughput is told.
MINUTES = (1, 15, 60)
#: What of a sample only ever grows: in all daemons, and on the host that took it.
_COUNTS, _OF_THE_HOST = ("done", "failed", "requests", "errors", "not_modified"), ("requests", "errors", "not_modified")


def queues(broker: Queue) -> dict[str, Any]:
    """Messages that wait by queue, or why nobody can tell."""
    try:
        return {"reachable": True, "pending": broker.depths()}
    except EsidError as error:
        return {"reachable": False, "error": str(error), "pending": {}}


def now(
    store: Store, waiting: Mapping[str, Any], limits: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """A sample: counts since the beginning, depths and what is left of the error limit now.

    Args:
        waiting: see `queues`.
        limits: a snapshot of the budget.
        counts: entity -> status -> rows of the ledger.
    """
    totals = counters.values(store)
    return {
        "host": host.NAME,
        "done": ids(totals, "done"),
        "failed": ids(totals, "failed"),
        "requests": limits["requests"],
        "errors": limits["errors"],
        "not_modified": limits["not_modified"],
        "error_remain": limits["error_remain"],
        "in_flight": limits["in_flight"],
        "queues": {name.rpartition(".")[2]: count for name, count in waiting["pending"].items()},
        "open": sum(by.get("pending", 0) + by.get("processing", 0) for by in counts.values()),
    }


def sample(store: Store, broker: Queue, budget: Budget) -> None:
    """Keep the state of this minute."""
    samples.add(store, now(store, queues(broker), snapshot(budget), ledger.counts(store)))


def ids(totals: dict[str, float], result: str) -> int:
    """Ids of all entities with one result."""
    return int(sum(value for name, value in totals.items() if name.startswith("ids:") and name.endswith(f":{result}")))


def throughput(taken: Sequence[tuple[Any, dict[str, Any]]], state: dict[str, Any]) -> list[dict[str, Any]]:
    """Ids and requests a second over 1, 15 and 60 minutes; None while no sample is that old, and of requests where another
    host took it.

    Args:
        taken: samples of the last hour and more, oldest first.
        state: the sample of this moment.
    """
    found, time = [], clock.now()
    for minutes in MINUTES:
        # Samples lie a minute apart: the one to compare with may be half a minute older or newer.
        old = [(at, one) for at, one in taken if (time - at).total_seconds() >= 60 * minutes - 30]
        row: dict[str, Any] = {"minutes": minutes, "ids_per_s": None, "failed_per_s": None, "requests_per_s": None}
        if old:
            at, before = old[-1]
            seconds = max(1.0, (time - at).total_seconds())
            for name, key in (("ids_per_s", "done"), ("failed_per_s", "failed"), ("requests_per_s", "requests")):
                grown = _grown(before, state, key)
                row[name] = None if grown is None else round(grown / seconds, 3)
        found.append(row)
    return found


def series(taken: Sequence[tuple[Any, dict[str, Any]]]) -> dict[str, list[tuple[float, float]]]:
    """Points (minutes ago, value) of each plot: rates of what grows, values of the rest, depth by queue."""
    time = clock.now()
    found: dict[str, list[tuple[float, float]]] = {}
    for place, (at, one) in enumerate(taken):
        ago = (time - at).total_seconds() / 60
        for name in ("error_remain", "in_flight", "open"):
            found.setdefault(name, []).append((ago, float(one.get(name, 0))))
        for queue, depth in one.get("queues", {}).items():
            found.setdefault(f"queue {queue}", []).append((ago, float(depth)))
        if place:
            before_at, before = taken[place - 1]
            seconds = max(1.0, (at - before_at).total_seconds())
            for name in _COUNTS:
                if (grown := _grown(before, one, name)) is not None:
                    found.setdefault(f"{name} a second", []).append((ago, grown / seconds))
    return found


def _grown(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> float | None:
    """What a count has grown by between two samples; None for what two hosts have counted each for itself."""
    if name in _OF_THE_HOST and before.get("host") != after.get("host"):
        return None
    return max(0.0, float(after.get(name, 0) - before.get(name, 0)))
