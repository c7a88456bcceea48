"""What is said of an outage by one process, and by the processes of one daemon."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from esid import log, log_outage
from esid.errors import DatabaseHindered

#: Two processes of a daemon, or what stands for them here.
Pair = tuple[log.Outage, log.Outage]


@pytest.fixture
def pair(caplog: pytest.LogCaptureFixture, times: list[float]) -> Pair:
    """Two that share what they know."""
    caplog.set_level(logging.DEBUG)
    known, logger = log_outage.shared(["database"])["database"], log.get("daemon")
    return log.Outage(logger, "database", known), log.Outage(logger, "database", known)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of a daemon with the usual level."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


def test_an_outage_that_several_processes_meet_is_said_once_and_its_end_too(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    for one in (first, second, first, second):
        one.down("it is away")
    assert said(caplog) == ["database.away"]
    assert first.words == second.words == "it is away"
    for one in (second, first):
        one.up()
    assert said(caplog) == ["database.away", "database.back"]
    assert first.words == second.words == ""
    assert len(caplog.records) == 4


def test_who_meets_an_outage_late_says_it_only_if_it_lasts(
    pair: Pair, caplog: pytest.LogCaptureFixture, times: list[float]
) -> None:
    first, second = pair
    first.down("it is away")
    first.up()
    second.down("it is away")
    assert said(caplog) == ["database.away", "database.back"]
    times[0] += log.LATE_S
    second.down("it is away")
    second.down("it is away")
    assert said(caplog) == ["database.away", "database.back", "database.away"]


def test_it_is_not_back_while_another_process_meets_it(
    pair: Pair, caplog: pytest.LogCaptureFixture, times: list[float]
) -> None:
    first, second = pair
    first.down(DatabaseHindered("a lock"))
    times[0] += log.QUIET_S - 1
    second.down(DatabaseHindered("a lock"))
    times[0] += 2
    first.up()
    assert said(caplog) == ["database.away"]
    times[0] += log.QUIET_S
    first.up()
    assert said(caplog) == ["database.away", "database.back"]


def test_an_outage_that_its_teller_died_of_makes_no_later_one_silent(
    pair: Pair, caplog: pytest.LogCaptureFixture, times: list[float]
) -> None:
    first, second = pair
    first.down("it is away")
    times[0] += log.FORGOTTEN_S
    second.down("it is away again")
    assert said(caplog) == ["database.away", "database.away"]


def test_processes_that_are_forked_share_it(caplog: pytest.LogCaptureFixture) -> None:
    log.share_outages()
    pid = os.fork()
    if not pid:
        log.outage("rabbitmq").down("it is away")
        os._exit(0)
    os.waitpid(pid, 0)
    log.outage("rabbitmq").down("it is away")
    log.outage("queue").down("it is away")
    assert said(caplog) == ["queue.away"]


def test_a_process_that_is_alone_says_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        log.outage("database").down("it is away")
        log.outage("database").up()
    assert said(caplog) == ["database.away", "database.back"] * 2


def test_threads_of_two_processes_that_tell_of_two_outages_take_each_other_for_no_deadlock() -> None:
    # The kernel gives byte locks to processes: two threads that hold one each, crosswise, look like a deadlock to it.
    known, rounds = log_outage.shared(["database", "rabbitmq"]), 20_000
    child = os.fork()
    if child == 0:
        os._exit(0 if not hammered(known, rounds) else 1)
    failed = hammered(known, rounds)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert failed == []


def hammered(known: dict[str, log_outage.Known], rounds: int) -> list[OSError]:
    """Errors of two threads, each with an outage of its own."""
    errors = list[OSError]()

    def lock(one: log_outage.Known) -> None:
        try:
            for _ in range(rounds):
                with one.locked():
                    pass
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=lock, args=(one,)) for one in known.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
