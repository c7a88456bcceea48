"""How long an answer is good for, and what time it speaks of, from nothing but its headers."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esid.esi.cache import CAP_S, FLOOR_S, http_date, times

NOW = dt.datetime(2026, 9, 27, 22, 0, 0, tzinfo=dt.UTC)
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
#: Clocks of ESI that are wrong by these seconds.
SKEWS = [0.0, 2 * HOUR, -2 * HOUR, YEAR]


def date(after_s: float = 0.0) -> str:
    """An HTTP date so many seconds after NOW."""
    return format_datetime(NOW + dt.timedelta(seconds=after_s), usegmt=True)


def headers(expires_s: float | None = None, skew_s: float = 0.0, **others: str) -> dict[str, str]:
    """Headers of an answer given now by a clock that is wrong by `skew_s`, expiring after `expires_s` seconds."""
    made = {"Date": date(skew_s), **{name.replace("_", "-"): value for name, value in others.items()}}
    return made if expires_s is None else made | {"Expires": date(skew_s + expires_s)}


def as_of(given_headers: dict[str, str], cache_s: float, now: dt.datetime) -> dt.datetime:
    """The time that an answer speaks of."""
    return times(given_headers, cache_s, now)[0]


def fresh_s(given_headers: dict[str, str], cache_s: float) -> float:
    """Seconds for which an answer holds."""
    return (times(given_headers, cache_s, NOW)[1] - NOW).total_seconds()


def ago(age_s: float) -> dt.datetime:
    """So many seconds before NOW."""
    return NOW - dt.timedelta(seconds=age_s)


# -- until when


def test_the_floor_is_a_minute_and_the_cap_a_day() -> None:
    assert (FLOOR_S, CAP_S) == (60.0, 86_400.0)


@pytest.mark.parametrize("skew_s", SKEWS)
@pytest.mark.parametrize(
    ("expires_s", "wanted_s"),
    [(3600, 3600), (61, 61), (60, 60), (59, 60), (1, 60), (0, 60), (-1, 60), (-10 * YEAR, 60), (86_400, 86_400),
     (86_401, 86_400), (10 * YEAR, 86_400)],
)  # fmt: skip
def test_an_answer_is_fresh_until_it_expires_within_bounds(expires_s: float, wanted_s: float, skew_s: float) -> None:
    assert fresh_s(headers(expires_s, skew_s), HOUR) == wanted_s


@pytest.mark.parametrize(("cache_s", "wanted_s"), [(3600.0, 3600.0), (30.0, 60.0), (5.0, 60.0), (2_592_000.0, 86_400.0)])
@pytest.mark.parametrize("given_headers", [{}, headers()], ids=["no headers at all", "no Expires"])
def test_an_answer_that_names_no_end_is_fresh_for_the_known_time(
    given_headers: dict[str, str], cache_s: float, wanted_s: float
) -> None:
    assert fresh_s(given_headers, cache_s) == wanted_s


@pytest.mark.parametrize(
    ("control", "wanted_s"),
    [("public, max-age=300, must-revalidate, stale-if-error=900", 300), ("max-age=0", 60), ("max-age=999999999", 86_400)],
)
def test_max_age_counts_where_there_is_no_expires(control: str, wanted_s: float) -> None:
    assert fresh_s(headers(Cache_Control=control), HOUR) == wanted_s


def test_expires_beats_max_age() -> None:
    assert fresh_s(headers(600, Cache_Control="public, max-age=300"), HOUR) == 600


@pytest.mark.parametrize("control", ["public", "no-cache", "max-age=", "max-age=soon", "max-age=-5", "max-age=٣"])
def test_a_cache_control_without_a_number_says_nothing(control: str) -> None:
    assert fresh_s(headers(Cache_Control=control), HOUR) == HOUR


GARBAGE = [
    "",
    "0",
    "-1",
    "soon",
    "Sun, 99 Sep 2026 22:00:00 GMT",
    "Sun, 27 Sep 2026 25:61:61 GMT",
    "Sun, 27 Sep 2026",
    "Sun, 27 Sep 99999 22:00:00 GMT",
    "Sun, 27 Sep 2026 22:00:00 +9999999",
    "Sun, 27 Sep 2026 22:00:00 +99999999999999999999",
    "Sun, 27 Sep 2026 22:00:00 -99999999999999999999",
    "\xb2",
    "2026-09-27T22:00:00Z",
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:50]))
def test_a_date_that_is_none_is_no_date(text: str) -> None:
    assert http_date(text) is None


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:50]))
def test_an_expires_that_is_no_date_says_nothing(text: str) -> None:
    given_headers = {"Date": date(), "Expires": text}
    assert fresh_s(given_headers, HOUR) == HOUR
    assert as_of(given_headers, HOUR, NOW) == NOW


@settings(derandomize=True)
@given(text=st.text(alphabet="SunMonSepJan0123456789 :,+-GMTZ", max_size=45), other=st.text(max_size=30))
def test_no_header_whatever_breaks_the_reckoning(text: str, other: str) -> None:
    for given_headers in ({"Date": text, "Expires": other}, {"Date": other, "Expires": text}, headers() | {"Expires": text}):
        assert FLOOR_S <= fresh_s(given_headers | {"Cache-Control": other}, HOUR) <= CAP_S
        assert as_of(given_headers, HOUR, NOW).tzinfo is not None


@pytest.mark.parametrize(
    ("text", "hour"),
    [("Sun, 27 Sep 2026 22:00:00 GMT", 22), ("Sun, 27 Sep 2026 22:00:00", 22), ("Sun, 27 Sep 2026 22:00:00 +0200", 20)],
)
def test_an_http_date_is_aware(text: str, hour: int) -> None:
    got = http_date(text)
    assert got is not None
    assert got.astimezone(dt.UTC) == NOW.replace(hour=hour)


def test_no_date_is_no_date() -> None:
    assert http_date(None) is None


# -- of when


def test_an_answer_without_expires_speaks_of_its_date() -> None:
    assert as_of({"Date": date(-5)}, HOUR, NOW) == ago(5)


def test_an_answer_without_any_date_speaks_of_now() -> None:
    assert as_of({}, HOUR, NOW) == NOW


@pytest.mark.parametrize("left_s", [3600, 3599, 1800, 1])
def test_an_answer_out_of_the_cache_is_as_old_as_the_time_that_it_lay_there(left_s: float) -> None:
    # Expires - Last-Modified is the cache time; the Date is that of this answer.
    assert as_of(headers(left_s), HOUR, NOW) == ago(HOUR - left_s)


@pytest.mark.parametrize("expires_s", [3601, 2 * DAY, 10 * YEAR])
def test_no_answer_speaks_of_the_time_after_its_date(expires_s: float) -> None:
    assert as_of(headers(expires_s), HOUR, NOW) == NOW


def test_an_answer_that_has_just_expired_speaks_of_the_time_before_it_lay_in_the_cache() -> None:
    assert as_of(headers(-60), HOUR, NOW) == ago(HOUR + 60)


def test_the_time_is_that_of_the_clock_of_esi() -> None:
    for skew_s in (-2 * HOUR, 0.0, 240.0):
        assert as_of(headers(1800, skew_s=skew_s), HOUR, NOW) == ago(1800 - skew_s)


def test_a_character_of_the_cache_of_a_day_is_older_than_an_affiliation_of_now() -> None:
    assert as_of(headers(600), DAY, NOW) < as_of(headers(), HOUR, NOW)


@pytest.mark.parametrize("expires", ["Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 01 Jan 0100 00:00:00 GMT"])
def test_an_expires_that_only_says_do_not_cache_does_not_make_the_answer_decades_old(expires: str) -> None:
    assert as_of({"Date": date(), "Expires": expires}, HOUR, NOW) >= ago(2 * DAY)


@pytest.mark.parametrize("ahead", [dt.timedelta(minutes=6), dt.timedelta(days=1), dt.timedelta(days=3650)])
def test_a_date_far_ahead_of_our_clock_is_not_believed(ahead: dt.timedelta) -> None:
    now = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
    headers = {"Date": format_datetime(now + ahead, usegmt=True), "Expires": format_datetime(now + ahead, usegmt=True)}
    assert as_of(headers, 3600.0, now) <= now + dt.timedelta(minutes=5)
    assert as_of({"Date": headers["Date"]}, 3600.0, now) <= now + dt.timedelta(minutes=5)
