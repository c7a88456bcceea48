"""A day of the daemon asks what the cache times permit and nothing before it expires."""

from __future__ import annotations

import pytest

from esid.entities.cadence import asked_every_s
from tests.tools.simulation import BEGIN, FIRST_ALLIANCE, FIRST_CHARACTER, Size, computed, day


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


@pytest.mark.parametrize("slept_days", [8, 31, 100])
def test_what_has_slept_is_asked_less_often_and_what_has_not_as_before(slept_days: int) -> None:
    # Given a part of EVE that is known, and has slept but for one id of three
    size, hours = Size(alliances=9, corporations=45, characters=30), 14
    with day(size) as simulated:
        simulated.run(1)
        simulated.sleep(slept_days, but_one_in=3)
        simulated.run(hours - 1)
    asked, awake, asleep = simulated.wire.by_hour, computed(size), computed(size, slept_days)

    # Then 12 hours cost what the cadence says: the awake third each hour, the others once in 2, 4 or 6 hours
    assert simulated.wire.early == []
    for kind in ("/alliances/{id}", "/alliances/{id}/corporations", "/corporations/{id}"):
        wanted = 12 * (awake[kind] / 3 + asleep[kind] * 2 / 3)
        found = sum(asked[hour][kind] for hour in range(2, hours))
        # A look every 10 minutes makes an hour of cache time up to 70 minutes long
        assert 0.8 * wanted <= found <= wanted + awake[kind], (kind, found, wanted)


def test_a_list_of_members_that_changes_is_asked_as_often_as_what_changes() -> None:
    # Given alliances that have slept for long, of which one has other members from now on
    awake, asleep = f"/alliances/{FIRST_ALLIANCE}/corporations", f"/alliances/{FIRST_ALLIANCE + 1}/corporations"
    with day(Size(alliances=3, corporations=9, characters=3)) as simulated:
        simulated.run(1)
        simulated.sleep(100, but_one_in=10**9)
        simulated.wire.changing.add(awake)
        simulated.wire.asked.clear()
        simulated.run(18)
    # Then it is asked each hour once that was seen, and the others as before
    assert simulated.wire.asked[awake] >= 9
    assert simulated.wire.asked[asleep] <= 3


def test_details_of_characters_that_sleep_are_left_alone_by_the_hourly_look_at_their_affiliation() -> None:
    # Given characters that nothing changes about, whose affiliations are looked at in bulk all the while
    size, days = Size(alliances=1, corporations=1, characters=30), 30
    with day(size) as simulated:
        simulated.run(24 * days)
    asked = [simulated.wire.asked[f"/characters/{FIRST_CHARACTER + place}"] for place in range(size.characters)]
    # Then each is asked about once a day for a week, and every other day from then on (less what a look may be late)
    assert simulated.wire.early == []
    assert {count for count in asked if not 18 <= count <= 20} == set(), asked


def test_no_sleep_is_longer_than_six_cache_times() -> None:
    assert [asked_every_s(3600.0, days * 86_400.0) / 3600 for days in (0, 6.9, 7, 30, 90, 9999)] == [1, 1, 2, 4, 6, 6]
