"""What is noted beside the data stays small, whatever answers hold."""

from __future__ import annotations

import pytest

from esid.store import notes
from esid.store.connection import Store


def test_unknown_fields_are_counted_but_not_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "MOST_FIELDS", 10)
    unknown = notes.UnknownFields()
    for number in range(30):
        unknown.add("character", [f"{number} {'x' * 1000}", "new"])
    unknown.flush(store, now=True)
    assert ("character", "new", 30) in notes.unknown_fields(store)
    unknown.add("character", ["new"])
    for number in range(100, 130):
        unknown.add("character", [str(number)])
    unknown.flush(store, now=True)
    found = notes.unknown_fields(store)
    assert len(found) == 10
    assert ("character", "new", 31) in found
    assert max(len(name) for _, name, _ in found) == 200
