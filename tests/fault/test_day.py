"""A day of the daemon asks what the cache times permit and nothing before it expires."""

from __future__ import annotations

import pytest

from tests.simulation import BEGIN, Size, computed, day


def test_requests_by_hour_are_those_that_the_cache_times_give(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a small part of EVE, from a cold start and over the day's end of the characters' cache
    size = Size(alliances=9, corporations=45, characters=120)
    with day(size) as simulated:
        simulated.run(26)
        assert simulated.now > BEGIN
        assert simulated.open_jobs() == 0
    asked = simulated.wire.by_hour
    wanted = computed(size)

    # Then nothing was asked early, and each hour that is neither the first nor the day's turn costs what is computed
    assert simulated.wire.early == []
    for hour in range(1, 24):
        for kind in ("/alliances", "/alliances/{id}", "/alliances/{id}/corporations", "/corporations/{id}"):
            assert asked[hour][kind] == wanted[kind], (hour, kind)
        assert asked[hour]["/characters/affiliation"] == 1
        assert asked[hour]["/characters/{id}"] == 0
    details = [asked[hour]["/characters/{id}"] for hour in range(26)]
    assert (details[0], sum(details[1:])) == (size.characters, size.characters)
