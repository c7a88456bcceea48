"""How hosts divide one budget: nobody holds what another holds, whoever tells, dies or comes back in whatever order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esid import clock
from esid.clock import Stop
from esid.errors import DatabaseUnavailable
from esid.esi.budget import Budget, Limits, Outcome, Ticket, Wait
from esid.esi.budget.exchange import Sharing
from esid.esi.budget.layout import GUARDED
from esid.esi.budget.shares import GONE_S, SHARE_S, Part, allot, is_gone
from esid.esi.budget.view import snapshot
from esid.esi.routes import Route

CORPORATION, KILLMAIL = Route("/corporations/{id}"), Route("/killmails/{id}/{argument}", group="killmail")
USABLE = 90.0


class Database:
    """One table with a clock of its own; it can go away between the reading and the commit."""

    def __init__(self) -> None:
        self.now, self.rows, self.is_away = 5_000_000.0, dict[str, Any](), False

    def exchange(self) -> Callable[[Any], None]:
        """What `store.egress.exchange` does."""

        def run(meet: Any) -> None:
            rows = dict(self.rows)
            name, row = meet(self.now, rows)
            if self.is_away:
                raise DatabaseUnavailable("gone before the commit")
            self.rows = {**rows, name: row}

        return run


class Host:
    """One host's budget, with time in the test's hands."""

    def __init__(self, database: Database, path: Path, name: str, limits: Limits) -> None:
        path.mkdir(exist_ok=True)
        self.budget = Budget(path / name, limits, is_divided=True)
        self.sharing = Sharing(self.budget, database.exchange(), name, Stop())

    def tell(self) -> None:
        """One exchange."""
        self.sharing.once()

    def grant(self, most: int, route: Route = CORPORATION) -> list[Ticket]:
        """As many as may leave now; whoever gets no leave waits for good."""
        found = []
        with self.budget.shared.locked():
            for _ in range(most):
                ticket = self.budget.admit(route, 0, clock.monotonic())
                if isinstance(ticket, Wait):
                    self.budget.in_flight.add_waiting(self.budget._kind(route), 1)
                    break
                found.append(ticket)
        return found

    def land(self, tickets: list[Ticket], status: int, **headers: str) -> None:
        """Answers come in."""
        for ticket in tickets:
            outcome = Outcome()
            outcome.status, outcome.headers = status, {name.replace("_", "-"): text for name, text in headers.items()}
            with self.budget.shared.locked():
                self.budget.settle(ticket, outcome, clock.monotonic())


@pytest.fixture
def database() -> Database:
    """An empty table."""
    return Database()


@pytest.fixture
def now(times: list[float], database: Database) -> Callable[[float], None]:
    """Lets time go by, everybody's."""

    def pass_by(seconds: float) -> None:
        times[0] += seconds
        database.now += seconds

    return pass_by


@pytest.fixture
def host(database: Database, tmp_path: Path, now: Any) -> Iterator[Callable[..., Host]]:
    """Makes hosts."""
    made: list[Host] = []

    def make(name: str, **limits: Any) -> Host:
        made.append(Host(database, tmp_path, name, Limits(**({"max_rps": 0, "max_in_flight": 500} | limits))))
        return made[-1]

    yield make
    for one in made:
        one.budget.close()


def known(one: Host) -> None:
    """A first answer has told the window, so that the whole share may be on its way."""
    tickets = one.grant(1)
    assert tickets
    one.land(tickets, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")


# -- the rule


def parts() -> st.SearchStrategy[list[Part]]:
    """Parts as they come about: used within allowed, all of them within the limit."""
    used = st.floats(0, 20)
    one = st.builds(lambda u, more, wanted: Part(u + more, u, wanted), used, st.floats(0, 20), st.booleans())
    return st.lists(one, min_size=1, max_size=5).filter(lambda found: sum(part.allowed for part in found) <= USABLE)


@given(parts(), st.lists(st.integers(0, 4), max_size=30))
def test_whoever_takes_its_turn_all_parts_stay_within_the_limit(found: list[Part], turns: list[int]) -> None:
    for turn in turns:
        place = turn % len(found)
        mine = found[place]
        size = allot(USABLE, mine, found[:place] + found[place + 1 :])
        found[place] = Part(size, mine.used, mine.wanted)
        assert size >= mine.used
        assert sum(part.allowed for part in found) <= USABLE + 1e-6


def test_who_wants_shares_evenly_and_who_does_not_keeps_a_little() -> None:
    found = [Part(0, 0, wanted=True), Part(0, 0, wanted=True), Part(90, 0, wanted=False)]
    for _ in range(3):
        for place in range(3):
            mine = found[place]
            found[place] = Part(allot(USABLE, mine, found[:place] + found[place + 1 :]), 0, mine.wanted)
    assert [round(part.allowed) for part in found] == [43, 43, 4]


# -- hosts


def test_nothing_leaves_before_the_first_exchange(host: Callable[..., Host]) -> None:
    one = host("one")
    assert one.grant(1) == []
    one.tell()
    assert len(one.grant(1)) == 1


def test_one_host_alone_has_all(host: Callable[..., Host]) -> None:
    one = host("one")
    one.tell()
    known(one)
    assert len(one.grant(200)) == 90


def test_how_often_a_host_tells_is_as_the_others_need_it(host: Callable[..., Host], now: Any) -> None:
    one, other = host("one"), host("other")

    def exchanges() -> int:
        """Of one host in 12 seconds, while its threads look twice as often as it tells."""
        count = 0
        for _ in range(240):
            now(0.05)
            if one.sharing._is_due():
                one.tell()
                count += 1
        return count

    one.tell()
    assert exchanges() <= 6
    one.budget.in_flight.add_waiting(GUARDED, 1)
    assert 15 <= exchanges() <= 20
    other.tell()
    assert exchanges() >= 38
    one.budget.in_flight.add_waiting(GUARDED, -1)
    other.tell()
    assert 15 <= exchanges() <= 20


def test_who_joins_has_no_part_of_anything_before_it_was_heard(host: Callable[..., Host], now: Any) -> None:
    # Given a host that is alone, and one that asks for what the first knows nothing of
    one, other = (host(name, max_rps=50, max_in_flight=64) for name in ("one", "other"))
    one.tell()
    now(0.5)
    other.tell()
    assert other.grant(1, KILLMAIL) == []
    now(0.25)
    other.tell()
    assert other.grant(1, KILLMAIL) == []

    # When the first has heard of it, nothing stands in its way
    one.tell()
    now(0.25)
    other.tell()
    with other.budget.shared.locked():
        ticket = other.budget.admit(KILLMAIL, 0, clock.monotonic())
    assert isinstance(ticket, Ticket)
    assert ticket.leaves_at - clock.monotonic() < 0.1


def test_who_was_silent_too_long_begins_with_what_is_left(host: Callable[..., Host], now: Any) -> None:
    one, other = (host(name, max_rps=50, max_in_flight=64) for name in ("one", "other"))
    one.tell()
    now(80.0)
    other.tell()
    now(0.25)
    other.grant(1)
    other.tell()
    one.tell()
    rps = [each.budget.shared.state.rps_allowed for each in (one, other)]
    assert sum(rps) <= 50
    flying = [each.budget.shared.state.in_flight_allowed for each in (one, other)]
    assert sum(flying) <= 64


def test_more_hosts_than_requests_in_flight_ask_one_at_a_time(host: Callable[..., Host], now: Any) -> None:
    hosts = [host(name, max_rps=50, max_in_flight=1) for name in ("one", "other", "third")]
    for _ in range(8):
        for one in hosts:
            now(0.25)
            one.grant(0)
            one.budget.in_flight.add_waiting(GUARDED, 1)
            one.tell()
    assert [len(one.grant(5)) for one in hosts] == [1, 1, 1]


def test_a_limit_that_is_told_anew_is_at_once_all_of_who_is_alone(host: Callable[..., Host], now: Any) -> None:
    # Given a host that has heard of a bucket by its table alone
    one = host("one")
    one.tell()
    one.grant(1, KILLMAIL)
    one.tell()

    # When answers tell of a far larger one, before the next exchange
    limit = {"X_Ratelimit_Group": "killmail", "X_Ratelimit_Limit": "1000000/15m", "X_Ratelimit_Used": "2"}
    for _ in range(10):
        tickets = one.grant(400, KILLMAIL)
        assert len(tickets) == 400
        one.land(tickets, 200, **limit)
        now(0.01)


def test_two_hosts_have_it_all_together_and_no_more(host: Callable[..., Host], now: Any) -> None:
    one, other = host("one"), host("other")
    for each in (one, other, one, other, one, other):
        now(0.25)
        each.grant(0)
        each.tell()
    known(one)
    known(other)
    first = one.grant(200)
    for each in (one, other, one, other):
        now(0.25)
        each.tell()
    second = other.grant(200)
    assert len(first) + len(second) <= 90
    one.land(first, 404, X_Esi_Error_Limit_Remain=str(100 - len(first)), X_Esi_Error_Limit_Reset="58")
    for each in (one, other, one, other):
        now(0.25)
        each.tell()
    assert len(first) + len(second) + len(other.grant(200)) + len(one.grant(200)) <= 90


def test_an_exchange_that_is_not_committed_gives_nothing(host: Callable[..., Host], database: Database, now: Any) -> None:
    one, other = host("one"), host("other")
    one.tell()
    known(one)
    database.is_away = True
    with pytest.raises(DatabaseUnavailable):
        other.tell()
    assert other.grant(1) == []
    database.is_away = False
    assert len(one.grant(200)) == 90


def test_a_transaction_that_is_repeated_gives_what_its_last_try_has_found(
    host: Callable[..., Host], database: Database, now: Any
) -> None:
    # Given two hosts, of which one could grow
    one, other = (host(name, max_rps=50) for name in ("one", "other"))
    for each in (one, other):
        each.tell()
        now(2)
    one.budget.shared.state.rps_allowed = 10.0
    database.rows["other"]["parts"]["rps"] = [0.0, 0.0, False]

    # When the other takes everything after the first try, which is lost before its commit
    def run(meet: Any) -> None:
        meet(database.now, dict(database.rows))
        database.rows["other"]["parts"]["rps"] = [40.0, 0.0, False]
        name, database.rows["one"] = meet(database.now, dict(database.rows))
        assert name == "one"

    one.sharing._exchange = run
    one.tell()
    assert one.budget.shared.state.rps_allowed == database.rows["one"]["parts"]["rps"][0] == 10.0


def test_who_cannot_tell_any_more_stops_before_the_others_take_its_share(host: Callable[..., Host], now: Any) -> None:
    one, other = host("one"), host("other")
    for each in (one, other, one, other):
        now(0.25)
        each.grant(0)
        each.tell()
    known(one)
    now(SHARE_S + 0.1)
    assert one.grant(1) == []
    assert SHARE_S < GONE_S
    other.tell()
    before = other.budget.shared.state.errors_allowed
    now(GONE_S + 61)
    other.grant(200)
    other.tell()
    assert other.budget.shared.state.errors_allowed == USABLE > before


def test_a_420_that_one_meets_holds_for_all_and_after_a_restart(
    host: Callable[..., Host], database: Database, tmp_path: Path, now: Any
) -> None:
    one, other = host("one"), host("other")
    for each in (one, other, one, other):
        now(0.25)
        each.tell()
    one.land(one.grant(1), 420, X_Esi_Error_Limit_Reset="40")
    one.tell()
    other.tell()
    assert snapshot(other.budget)["paused_s"] > 39
    # The same host again, its file lost.
    now(GONE_S + 1)
    again = Host(database, tmp_path / "another file", "one", Limits(max_rps=0))
    again.tell()
    assert snapshot(again.budget)["paused_s"] > 28
    again.budget.close()


def test_what_was_spent_of_a_bucket_is_spent_after_a_restart(
    host: Callable[..., Host], database: Database, tmp_path: Path, now: Any
) -> None:
    one = host("one")
    one.tell()
    one.land(one.grant(1, KILLMAIL), 200)
    now(0.25)
    one.tell()
    now(0.25)
    one.land(one.grant(50, KILLMAIL), 422)
    now(0.25)
    one.tell()
    spent = one.budget.buckets.used(0, clock.monotonic())
    assert spent > 5
    now(GONE_S + 1)
    again = Host(database, tmp_path / "another file", "one", Limits(max_rps=0))
    again.tell()
    assert again.budget.buckets.used(0, clock.monotonic()) == spent
    again.budget.close()


def test_two_hosts_of_one_name_are_two(host: Callable[..., Host], database: Database, tmp_path: Path, now: Any) -> None:
    one = host("one")
    twin = Host(database, tmp_path / "another host", "one", Limits(max_rps=0, max_in_flight=500))
    for each in (one, twin, one, twin, one, twin):
        now(0.25)
        each.grant(0)
        each.tell()
    assert len(database.rows) == 2
    assert one.budget.shared.state.errors_allowed + twin.budget.shared.state.errors_allowed <= USABLE
    twin.budget.close()


def test_who_leaves_gives_back_at_once_what_it_has_not_used(host: Callable[..., Host], now: Any) -> None:
    one, other = host("one"), host("other")
    for each in (one, other, one, other):
        now(0.25)
        each.tell()
    other.sharing.once(leaving=True)
    now(0.25)
    one.tell()
    assert one.budget.shared.state.errors_allowed == USABLE


def test_a_share_that_is_still_to_come_is_waited_for_and_not_for_a_window(host: Callable[..., Host]) -> None:
    one = host("one")
    one.tell()
    with one.budget.shared.locked():
        wait = one.budget.admit(KILLMAIL, 0, clock.monotonic())
    assert isinstance(wait, Wait)
    assert wait.seconds < 1.0


def test_a_host_that_is_back_soon_waits_for_a_share_and_has_all_of_it_at_once(
    host: Callable[..., Host], tmp_path: Path, database: Database, now: Any
) -> None:
    # Given a host that has used some errors, leaves, and is back while its old share would still hold
    one = host("one")
    one.tell()
    known(one)
    one.land(one.grant(3), 404, X_Esi_Error_Limit_Remain="97", X_Esi_Error_Limit_Reset="58")
    one.sharing.once(leaving=True)
    now(1.0)
    back = Host(database, tmp_path, "one", Limits(max_rps=0, max_in_flight=500))
    # Then nothing leaves on the old share, which is not waited for, and with the first exchange all that is left may
    with back.budget.shared.locked():
        assert back.budget.admit(CORPORATION, 0, clock.monotonic()) == Wait(0.25, "no share of the budget")
    back.tell()
    assert len(back.grant(100)) == USABLE - 3
    back.budget.close()


def test_a_host_that_begins_to_want_more_is_not_sent_away_for_a_window(host: Callable[..., Host], now: Any) -> None:
    # Given a host that has used up the little that an idle one keeps, while another one wants all
    one, busy = host("one"), host("busy")
    for each in (one, busy) * 4:
        now(0.1)
        busy.grant(1)
        each.tell()
    known(one)
    one.land(one.grant(100), 404, X_Esi_Error_Limit_Remain="92", X_Esi_Error_Limit_Reset="58")
    with one.budget.shared.locked():
        wait = one.budget.admit(CORPORATION, 0, clock.monotonic())
    # Then it waits for what the other gives up, and not for the next window
    assert isinstance(wait, Wait)
    assert wait.why == "error limit"
    assert wait.seconds < 1.0
    # And once it has it all and has used it, for the window
    for each in (one, busy) * 4:
        now(0.25)
        each.tell()
    more = one.grant(100)
    assert more
    one.land(more, 404, X_Esi_Error_Limit_Remain="50", X_Esi_Error_Limit_Reset="55")
    for each in (one, busy) * 4:
        one.grant(1)
        now(0.1)
        each.tell()
    with one.budget.shared.locked():
        wait = one.budget.admit(CORPORATION, 0, clock.monotonic())
    assert isinstance(wait, Wait)
    assert wait.seconds > 10.0


def test_a_clock_of_the_database_that_is_set_back_makes_no_wait_longer(
    host: Callable[..., Host], database: Database, now: Callable[[float], None]
) -> None:
    # Given three hosts, a pause of 20 s that all have heard of, and a third that has died
    hosts = [host(name) for name in ("a", "b", "dead")]
    for each in hosts * 8:
        each.tell()
    with hosts[0].budget.shared.locked():
        hosts[0].budget.pause(20.0, clock.monotonic())
    for each in hosts * 2:
        each.tell()

    # When the database's clock goes back by a day
    database.now -= 86_400
    for _ in range(4):
        now(0.25)
        for each in hosts[:2]:
            each.tell()

    # Then the pause is over when it would have been, and stays over
    for _ in range(100):
        now(0.5)
        for each in hosts[:2]:
            each.tell()
    for each in hosts[:2]:
        with each.budget.shared.locked() as state:
            assert state.paused_until < clock.monotonic()

    # And what the dead one holds is free in its time, as its row is taken for one of the moment when it was met
    assert is_gone(database.rows["dead"], database.now)
    assert database.rows["dead"]["at"] < database.now


@pytest.mark.parametrize("ahead_s", [1000.0, 86_421.0])
def test_a_pause_that_no_answer_asks_for_is_not_believed(
    host: Callable[..., Host], database: Database, ahead_s: float
) -> None:
    one = host("one")
    one.tell()
    database.rows["other"] = {
        "file": "x", "at": database.now, "left": False, "paused_until": database.now + ahead_s, "closed": {}, "parts": {}
    }  # fmt: skip
    one.tell()
    with one.budget.shared.locked() as state:
        assert state.paused_until <= clock.monotonic()


def test_the_thread_goes_on_after_an_error_of_its_own_and_says_it_once(
    host: Callable[..., Host], caplog: pytest.LogCaptureFixture
) -> None:
    one, failures = host("one"), [2]
    exchange = one.sharing._exchange

    def fail(meet: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise ZeroDivisionError("no")
        exchange(meet)

    one.sharing._exchange = fail
    caplog.set_level(logging.INFO)
    for _ in range(3):
        one.sharing._try_once(leaving=False)
    said = [record.message for record in caplog.records if record.name == "esid.daemon"]
    assert said == ["sharing.away", "sharing.back"]
    with one.budget.shared.locked() as state:
        assert state.share_until > clock.monotonic()


def test_a_host_that_slept_sends_nothing_before_it_was_heard_again(
    host: Callable[..., Host], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two hosts with a share each
    slept = [3.0]
    monkeypatch.setattr(clock, "slept_s", lambda: slept[0])
    one, two = host("one"), host("two")
    for _ in range(6):
        one.tell()
        two.tell()
    known(one)
    held = one.grant(1)
    assert held
    # When one is suspended, in which its clock stands still, until the other has taken what it had
    database.now += 20.0
    two.grant(80)
    for _ in range(6):
        two.tell()
    slept[0] += 20.0
    # Then nothing leaves that had no leave yet, or was about to
    assert one.grant(1) == []
    assert one.budget._look(held[0])
    # But what it gets at its next exchange
    one.tell()
    assert one.budget._look(held[0]) is None
