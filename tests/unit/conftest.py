"""What unit tests share."""

from __future__ import annotations

import pytest

from esid import clock


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in the test's hands: it stands still at the first of these."""
    times = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: times[0])
    return times
