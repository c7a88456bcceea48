"""What the daemon says about its work: how far it is, when it is done, and that there was none."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid import clock, log
from esid.errors import Fault
from esid.esi.budget import Budget, Limits
from esid.esi.budget.doubts import IN_A_ROW, number_of
from esid.status.progress import Progress
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Done, Failure, Seen

QUEUES = ("alliance", "corporation", "character", "killmail")


@pytest.fixture
def progress(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Progress]:
    """The progress of a daemon on an empty database."""
    caplog.set_level(logging.INFO, logger="esid.sync")
    budget = Budget(tmp_path / "budget", Limits())
    yield Progress(store, budget, QUEUES)
    budget.close()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The words of the lines since the last call."""
    words = [record.esid_words for record in caplog.records]  # type: ignore[attr-defined]
    caplog.clear()
    return words


def answer(store: Store, *ids: int) -> None:
    """Answers that are good for an hour."""
    now = clock.now()
    ledger.finish(store, "alliance", [Done(key, checked_at=now, expires_at=now + dt.timedelta(hours=1)) for key in ids])


def test_it_says_how_far_the_work_is_and_once_that_it_is_done(
    progress: Progress, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.request(store, [Seen("alliance", key) for key in (1, 2, 3)])
    answer(store, 1)
    progress.say()
    assert said(caplog) == ["alliances 1 of 3; 0 requests/s"]

    answer(store, 2, 3)
    progress.say()
    progress.say()
    assert said(caplog) == ["everything that is due has been asked: 3 ids are up to date"]


def test_while_rabbitmq_is_away_it_tells_of_no_pace_and_no_time_left(
    progress: Progress, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, real = iter((0, 100, 200, 300)), clock.monotonic
    monkeypatch.setattr(progress, "_sent", lambda: next(sent))
    ledger.request(store, [Seen("alliance", key) for key in range(1, 1000)])
    progress.say()
    monkeypatch.setattr(clock, "monotonic", lambda: real() + 10)
    answer(store, 1)
    progress.say()
    assert "left" in said(caplog)[1]
    log.outage("rabbitmq").down("it is away")
    caplog.clear()
    progress.say()
    assert said(caplog) == ["alliances 1 of 999; waits for RabbitMQ"]
    # When it is back, nothing of the time before counts
    log.outage("rabbitmq").up()
    caplog.clear()
    monkeypatch.setattr(clock, "monotonic", lambda: real() + 20)
    progress.say()
    (words,) = said(caplog)
    assert "RabbitMQ" not in words


def test_ids_of_a_doubted_source_count_with_their_own_pace(
    progress: Progress, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    # Given 100 corporations that one answer has named, another one, and a source whose ids were refused in rows
    store.run(lambda: ledger.discover(store, [Seen("corporation", 98_000_000 + key) for key in range(100)], clock.now()))
    ledger.request(store, [Seen("corporation", 97_000_000)], by_person=True)
    (source,) = {job.source for job in ledger.take(store, "corporation", [98_000_000])}
    number = number_of("/corporations/{id}", source)
    with progress._budget.shared.locked():
        for _ in range(IN_A_ROW):
            progress._budget.doubts.settle(number, Fault.ID, clock.monotonic())
    # Then the 100 take ten minutes, however fast the rest is
    assert progress._doubted() == 100
    sent = iter(range(0, 10_000, 5_000))
    progress._sent = lambda: next(sent)  # type: ignore[method-assign]
    progress.say()
    progress.say()
    assert "about 10 min left" in said(caplog)[1]


def test_work_that_is_done_before_it_looks_is_said_to_be_done(
    progress: Progress, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    progress.began()
    answer(store, 1)
    progress.say()
    assert said(caplog) == ["everything that is due has been asked: 1 id is up to date"]


def test_failures_of_what_another_daemon_works_on_are_its_own(
    progress: Progress, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.request(store, [Seen("alliance", 1)])
    ledger.retry(store, "alliance", {}, {1: Failure("not_found", "404")})
    budget = Budget(tmp_path / "budget", Limits())
    Progress(store, budget, ("character",)).say()
    progress.say()
    budget.close()
    assert said(caplog) == [
        "nothing is due: 0 ids are up to date",
        "nothing is due: 0 ids are up to date, 1 failed (see `esid dead list`)",
    ]


def test_what_was_purged_has_not_failed(progress: Progress, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    since = clock.now()
    ledger.request(store, [Seen("alliance", key) for key in (1, 2)])
    ledger.purge(store, "alliance")
    progress.say()
    assert said(caplog) == ["nothing is due: 0 ids are up to date, 2 purged (asked at the next sync)"]
    assert ledger.failed_since(store, ["alliance"], since) == 0


def test_a_start_with_nothing_to_do_is_said_once(progress: Progress, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    answer(store, 1, 2)
    progress.say()
    progress.say()
    assert said(caplog) == ["nothing is due: 2 ids are up to date"]
