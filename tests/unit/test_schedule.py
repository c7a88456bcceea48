"""The plan of a daemon is pure: which jobs, when, and which of them at once."""

from __future__ import annotations

from esid.queue.progress import span
from esid.schedule import Planned, plan


def test_a_plan_has_a_sync_for_each_entity_that_is_worked_on() -> None:
    planned = plan({"alliance": "10m", "corporation": "17 * * * *", "character": "off"}, progress_s=5.0)
    assert {job.name for job in planned} == {"dispatch", "sweep", "progress", "sync_alliance", "sync_corporation"}
    assert Planned("sync_alliance", 600.0, at_start=True) in planned
    assert Planned("sync_corporation", "17 * * * *", at_start=True) in planned


def test_spans_are_for_people() -> None:
    assert [span(seconds) for seconds in (0.4, 59, 60, 3600, 12_345, 86_400 * 2.5)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "3 h 25 min",
        "2 d 12 h",
    ]
