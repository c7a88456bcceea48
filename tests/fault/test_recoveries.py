"""A message that kills its worker is given up after three recoveries, alone; deaths are counted apart from failures."""

from __future__ import annotations

import json

import pytest

from esid.store import ledger, recoveries
from esid.store.connection import Store
from esid.store.model import Seen
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Make
from tests.tools.stacks import STACKS

QUICK = "esid.daemon.child:MOST_DEATHS=100;esid.store.recoveries:WAITS_S=(0.0, 0.5, 1.0)"


# One way to die is enough at scale.
@pytest.mark.parametrize(
    ("main_stack", "how"),
    [
        pytest.param(STACKS[0], "kill", marks=pytest.mark.long),
        (STACKS[0], "segfault"),
        pytest.param(STACKS[0], "exit", marks=pytest.mark.long),
        (STACKS[1], "kill"),
    ],
    indirect=["main_stack"],
)
def test_an_id_that_kills_its_worker_is_dead_after_three_recoveries_and_the_rest_flows(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, how: str
) -> None:
    # Given an id in the middle of others on which every process dies
    poison = sorted(world.corporations)[3]
    daemon = make_daemon(hooks={"ESID_TEST_POISON": f"corporation:{poison}:{how}", "ESID_TEST_PATCH": QUICK})
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start("--threads", "4", "--processes", "2")

    # Then that id is given up, with the reason, after one death in company and three alone (or two more on the other
    # worker, which may have taken the message before the death was booked), and nothing else is
    checker.wait_for_drain(daemon, store, 90)
    checker.check(store, esi, daemon, wanted, dead=[("corporation", poison, "killed_worker")])
    assert 4 <= daemon.log.count("daemon.child_replaced") <= 6, daemon.log
    (letter,) = json.loads(daemon.ok("dead", "list", "--reason", "killed_worker", "--json"))
    assert "4 worker processes died" in letter["message"]
    assert (
        daemon.log.count(
            f"work.dead  worker after worker died with this id in hand; it is given up entity=corporation id={poison}"
        )
        == 1
    )
    assert esi.count(prefix=f"/corporations/{poison}") == 0
    assert daemon.stop() == 0


@pytest.fixture
def processing(store: Store) -> list[int]:
    """Ids in work."""
    ids = list(range(1, 26))
    ledger.request(store, [Seen("corporation", key) for key in ids])
    ledger.take(store, "corporation", ids)
    return ids


def states(store: Store, ids: list[int]) -> set[tuple[str, int]]:
    """(status, attempts) of these ids."""
    jobs = [ledger.job(store, "corporation", key) for key in ids]
    return {(job["status"], job["retry_count"]) for job in jobs if job}


def test_a_death_splits_the_message_and_counts_no_attempt(
    store: Store, processing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    booked = recoveries.book(store, "corporation", processing)
    assert booked == recoveries.Booked(dict.fromkeys(processing, 0.0), ())
    assert set(recoveries.suspects(store, "corporation").values()) == {(recoveries.PART, False)}
    assert states(store, processing) == {("pending", 0)}
    # In so much company nobody takes them, in less they are taken
    assert ledger.take(store, "corporation", processing) == []
    assert [job.id for job in ledger.take(store, "corporation", processing[:10])] == processing[:10]

    # The next death leaves them alone, each by itself
    monkeypatch.setattr(recoveries, "WAITS_S", (0.0, 0.0, 0.0))
    recoveries.book(store, "corporation", processing[:10])
    assert ledger.take(store, "corporation", processing[:2], quarantined=True) == []
    assert ledger.take(store, "corporation", processing[:1]) == []  # from now on in quarantine only
    assert [job.id for job in ledger.take(store, "corporation", processing[:1], quarantined=True)] == processing[:1]


def test_the_third_and_fourth_death_alone_wait_and_end_it(
    store: Store, processing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recoveries.WAITS_S == (0.0, 30.0, 300.0)
    waits = [recoveries.book(store, "corporation", [7], quarantined=True).waits for _ in range(3)]
    assert waits == [{7: 0.0}, {7: 30.0}, {7: 300.0}]
    assert ledger.take(store, "corporation", [7]) == []  # it is not its time
    # In the company of other suspects nobody is given up, alone it is
    assert recoveries.book(store, "corporation", [7]).dead == ()
    assert recoveries.book(store, "corporation", [7], quarantined=True).dead == (7,)
    assert ledger.job(store, "corporation", 7)["status"] == "failed"  # type: ignore[index]
    # What was asked for again by a person begins anew
    ledger.request(store, [Seen("corporation", 7)])
    assert recoveries.book(store, "corporation", [7]).waits == {7: 0.0}


def test_deaths_of_long_ago_are_forgotten(store: Store, processing: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        recoveries.book(store, "corporation", [7])
    monkeypatch.setattr(recoveries, "WITHIN_S", 0.0)
    assert recoveries.book(store, "corporation", [7]) == recoveries.Booked({7: 0.0}, ())
    assert recoveries.prune(store) == 1
    assert recoveries.suspects(store, "corporation") == {}


def test_a_message_that_comes_again_while_it_is_worked_on_waits_for_the_booking(
    store: Store, processing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = processing[20:]
    ledger.give_back(store, "corporation", done)
    recoveries.isolate(store, "corporation", processing)
    # Only those that somebody worked on are held back
    assert recoveries.suspects(store, "corporation").keys() == set(processing[:20])
    assert [job.id for job in ledger.take(store, "corporation", processing)] == done
    assert recoveries.counted(store) == []
