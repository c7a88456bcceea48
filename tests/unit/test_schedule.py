"""The plan of a daemon is pure: which jobs, when, and which of them at once."""

from __future__ import annotations

from esid.queue.progress import span
from esid.schedule import CRON_S, LOOK_S, Planned, heals_every_s, plan


def test_a_plan_has_a_sync_for_each_entity_that_is_worked_on() -> None:
    planned = plan({"alliance": "10m", "corporation": "17 * * * *", "character": "off"}, progress_s=5.0)
    assert {job.name for job in planned} == {"dispatch", "sweep", "progress", "sync_alliance", "sync_corporation"}
    assert Planned("sync_alliance", 600.0, at_start=True) in planned
    assert Planned("sync_corporation", "17 * * * *", at_start=True) in planned


def test_healing_is_looked_at_hourly_and_due_by_its_interval() -> None:
    assert plan({}, progress_s=5.0, heal="1d")[-1] == Planned("heal", LOOK_S, spread=True)
    assert plan({}, progress_s=5.0, heal="2s")[-1] == Planned("heal", 2.0, spread=True)
    assert plan({}, progress_s=5.0, heal="17 6 * * *")[-1] == Planned("heal", "17 6 * * *", spread=True)
    assert "heal" not in {job.name for job in plan({}, progress_s=5.0, heal="off")}
    # A day less a little, so that a look an hour late does not make it a day and an hour.
    assert 86_400 - LOOK_S * 1.5 < heals_every_s("1d") < 86_400
    assert heals_every_s("17 6 * * *") == CRON_S


def test_spans_are_for_people() -> None:
    assert [span(seconds) for seconds in (0.4, 59, 60, 3600, 12_345, 86_400 * 2.5)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "3 h 25 min",
        "2 d 12 h",
    ]
