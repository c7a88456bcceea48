"""The plan of a daemon is pure: which jobs, and when."""

from __future__ import annotations

import datetime as dt
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esid import settings
from esid.clock import span
from esid.entities import ENTITIES
from esid.errors import SettingsError
from esid.schedule.plan import TASKS, Every, Planned, Ticks, is_quiet, last_due, next_due, plan, planned

QUEUES = ("alliance", "corporation", "character", "killmail")
TEXTS = {job.name: "10m" for job in TASKS}
INTERVALS = ("1s", "7s", "1m", "10m", "15m", "20m", "30m", "1h", "2h", "5h", "6h", "12h", "1d", "2d", "7d")
CRONTABS = ("* * * * *", "17 * * * *", "*/5 * * * *", "0 3 * * *", "30 4 1 * *", "10 11,12 * * *", "0 12 * * 1-5")
SYNC = TASKS[0]
times = st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(dt.UTC))


def at(text: str) -> dt.datetime:
    """An aware time."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_a_plan_has_the_jobs_that_are_not_off_for_the_queues_that_are_served() -> None:
    names = {job.name for job in plan({**TEXTS, "sync_corporation": "off"}, "x", ["alliance", "corporation"])}
    assert names == {"sync_alliance", "sweep", "audit", "clean_up"}
    assert {job.name for job in plan(TEXTS, "x", QUEUES)} == {job.name for job in TASKS}
    assert plan({}, "x", QUEUES) == ()


@pytest.mark.parametrize("job", TASKS, ids=lambda job: job.name)
def test_every_job_has_a_setting_of_its_own(job: object) -> None:
    assert len({one.setting for one in TASKS}) == len(TASKS)
    (setting,) = [one for one in settings.TABLE if one.field == job.setting]  # type: ignore[attr-defined]
    assert setting.name.startswith("ESID_SCHEDULE_")
    assert plan({job.name: setting.default}, "x", QUEUES)  # type: ignore[attr-defined]


def test_every_entity_is_asked_again_by_the_job_of_its_lane() -> None:
    assert {f"sync_{entity.lane}" for entity in ENTITIES} == {job.name for job in TASKS if job.name.startswith("sync_")}


@pytest.mark.parametrize("text", INTERVALS)
def test_what_is_drawn_is_the_installations_own_and_stays(text: str) -> None:
    drawn = [planned(SYNC, text, f"installation {number}").offset_s for number in range(30)]
    assert len(set(drawn)) > 25
    assert planned(SYNC, text, "installation 7").offset_s == drawn[7]
    assert all(0 <= offset_s <= settings.duration(text) for offset_s in drawn)


@pytest.mark.parametrize("text", ["20m", "30m", "1h", "2h", "6h", "12h", "1d", "7d"])
def test_no_interval_ticks_in_the_first_minute_of_an_hour_or_in_the_downtime(text: str) -> None:
    for number in range(50):
        job, tick = planned(SYNC, text, str(number)), at("2026-03-01T00:00:00")
        for _ in range(30):
            tick = next_due(job, tick) or tick
            assert tick.minute != 0
            assert not is_quiet(tick)


@given(times, st.sampled_from(INTERVALS + CRONTABS), st.text(max_size=5))
def test_ticks_are_the_same_for_whoever_asks_whenever(now: dt.datetime, text: str, installation: str) -> None:
    job = planned(SYNC, text, installation)
    last, following = last_due(job, now), next_due(job, now)
    assert last
    assert following
    assert last <= now < following
    assert not is_quiet(last)
    assert not is_quiet(following)
    # Nothing lies between them, however close one looks
    middle = last + (following - last) / 2
    assert (last_due(job, middle), next_due(job, middle)) == (last, following)
    assert last_due(job, following) == following
    assert next_due(job, last) == following


@given(times, st.lists(st.integers(-100_000, 100_000), max_size=20), st.sampled_from(INTERVALS + CRONTABS))
def test_the_newest_tick_is_known_whichever_way_the_clock_is_set(now: dt.datetime, steps: list[int], text: str) -> None:
    job = planned(SYNC, text, "x")
    ticks = Ticks(job)
    for step in steps:
        now += dt.timedelta(seconds=step)
        assert ticks.newest(now) == last_due(job, now)


@pytest.mark.parametrize(("expression", "most"), [("* * * * *", 61), ("0 0 29 2 *", 1)])
def test_the_newest_tick_is_worked_out_once_for_each_tick_or_day(
    monkeypatch: pytest.MonkeyPatch, expression: str, most: int
) -> None:
    worked_out: list[dt.datetime] = []
    monkeypatch.setattr("esid.schedule.plan.last_due", lambda job, now: (worked_out.append(now), last_due(job, now))[1])
    ticks = Ticks(Planned("x", expression))
    for second in range(3600):
        ticks.newest(at("2026-03-01T12:00:00") + dt.timedelta(seconds=second))
    assert len(worked_out) <= most


def test_what_asks_nothing_of_esi_ticks_in_the_downtime_too() -> None:
    sweep = next(job for job in TASKS if job.name == "sweep")
    assert is_quiet(next_due(planned(sweep, "1m", "x"), at("2026-03-01T11:05:00")) or at("2026-03-01T00:00:00"))
    assert next_due(planned(SYNC, "1m", "x"), at("2026-03-01T11:05:00")) >= at("2026-03-01T11:15:00")  # type: ignore[operator]


def test_a_crontab_that_names_the_downtime_alone_never_ticks_and_is_refused() -> None:
    assert next_due(Planned("x", "5 11 * * *", 7.0, is_quiet=True), at("2026-03-01T00:00:00")) is None
    with pytest.raises(SettingsError, match=r"11:00 to 11:15"):
        settings.read({"ESID_SCHEDULE_ALLIANCES": "5 11 * * *"})


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", "sun mon tue wed thu fri sat"),
        ("0", "sun"),
        ("7", "sun"),
        ("1", "mon"),
        ("06", "sat"),
        ("SUN", "sun"),
        ("1-5", "mon tue wed thu fri"),
        ("0-2", "sun mon tue"),
        ("5-7", "sun fri sat"),
        ("fri-sun", "sun fri sat"),
        ("Sun-Tue", "sun mon tue"),
        ("1-sun", "sun mon tue wed thu fri sat"),
        ("0-7", "sun mon tue wed thu fri sat"),
        ("*/2", "sun tue thu sat"),
        ("1-5/2", "mon wed fri"),
        ("2/3", "tue fri"),
        ("mon,4,6-7", "sun mon thu sat"),
    ],
)
def test_days_of_the_week_are_those_of_crontab(field: str, days: str) -> None:
    # From a Saturday on, a week of midnights
    tick, end, found = at("2026-02-28T23:59:59"), at("2026-03-07T23:59:59"), []
    job = Planned("x", f"0 0 * * {field}")
    while (tick := next_due(job, tick) or end) < end:
        found.append(tick.strftime("%a").lower())
    assert " ".join(found) == days
    assert settings.read({"ESID_SCHEDULE_HEAL": f"0 0 * * {field}"}).esid_schedule_heal == f"0 0 * * {field}"


def test_a_day_must_fit_both_fields_of_a_crontab() -> None:
    assert next_due(Planned("x", "0 0 13 * 5"), at("2026-03-14T00:00:00")) == at("2026-11-13T00:00:00")


def test_two_installations_do_not_ask_at_the_same_second() -> None:
    seconds = {last_due(planned(SYNC, "10m", os.urandom(8).hex()), at("2026-03-01T09:00:00")) for _ in range(20)}
    assert len(seconds) > 15
    seconds = {last_due(planned(SYNC, "17 * * * *", os.urandom(8).hex()), at("2026-03-01T09:00:00")) for _ in range(20)}
    assert len(seconds) > 8


def test_spans_are_for_people() -> None:
    assert [span(seconds) for seconds in (0.4, 59, 60, 3600, 12_345, 86_400 * 2.5)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "3 h 25 min",
        "2 d 12 h",
    ]


@pytest.mark.parametrize("before_s", [None, -1.0, -1.5, -86_400.0, -315_532_800.0, 86_400.0, 315_532_800.0])
def test_what_runs_again_and_again_is_asked_for_once_however_far_the_clock_was_set(before_s: float | None) -> None:
    now = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
    before = None if before_s is None else now + dt.timedelta(seconds=before_s)
    following = Every(1.0).get_next_fire_time(before, now)
    assert now < following <= now + dt.timedelta(seconds=1)
