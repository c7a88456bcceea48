"""What a process tells of itself: whatever goes wrong is said once, and told again a little later."""

from __future__ import annotations

import logging

import pytest

from esid import log
from esid.clock import Stop
from esid.daemon.beats import Beats
from esid.store import processes
from esid.store.connection import Store


def test_a_beat_that_fails_is_said_once_and_the_next_one_comes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    failures = [2]

    def state() -> dict[str, str]:
        if failures[0]:
            failures[0] -= 1
            raise ZeroDivisionError("no")
        return {}

    beats = Beats(store, "worker", Stop(), state)
    caplog.set_level(logging.INFO)
    for _ in range(3):
        beats._beat()
    assert [record.message for record in caplog.records if "beat" in record.message] == ["daemon.beat_failed"]
    assert [one["kind"] for one in processes.living(store)] == ["worker"]


def test_a_process_tells_what_it_misses(store: Store) -> None:
    log.outage("database").down("corporations cannot be written")
    log.outage("database")._is_partial = True
    beats = Beats(store, "worker", Stop())
    beats._beat()
    assert [one["away"] for one in processes.living(store)] == ["corporations cannot be written"]
