"""Counts that survive the processes that count: each adds what is new every few seconds."""

from __future__ import annotations

from collections.abc import Mapping

from esid.store.connection import Store


def add(store: Store, counts: Mapping[str, float]) -> None:
    """Add to counters, by name; new ones begin at 0."""
    rows = [(name, value) for name, value in sorted(counts.items()) if value]
    tail = "ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value"
    if rows:
        store.run(lambda: store.insert("counters", ("name", "value"), rows, tail))


def values(store: Store) -> dict[str, float]:
    """Every counter by name."""
    with store.connection():
        return {name: float(value) for name, value in store.rows("SELECT name, value FROM counters ORDER BY name")}
