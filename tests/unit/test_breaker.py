"""The breaker, the pace after it, hidden limits, and what routes tell of themselves: with time in the test's hands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.errors import Fault, Held
from esid.esi.budget import Budget, Limits, Outcome, Subject, Ticket, Wait
from esid.esi.budget.breaker import (
    ANYBODY_S,
    DOUBT_S,
    FAILURES,
    LATER_PROBE_S,
    LATER_S,
    LONGEST_OUTAGE_S,
    MIXED_S,
    PROBE_S,
    Standing,
)
from esid.esi.budget.view import snapshot
from esid.esi.routes import GROUPS, Route

CORPORATION, CHARACTER = Route("/corporations/{id}"), Route("/characters/{id}")
HISTORY = Route("/markets/{id}/history", hidden="market-history")


_NAMES = count()


def another(standing: Standing = Standing.NEW) -> Subject:
    """An id that nobody has asked for yet."""
    return Subject(f"id {next(_NAMES)}", standing)


class Host:
    """A budget, asked without waiting."""

    def __init__(self, path: Path, times: list[float]) -> None:
        self.budget, self._times, self.change = Budget(path, Limits(max_rps=0, max_in_flight=500)), times, ""

    def admit(self, route: Route, subject: Subject | None = None) -> Ticket | Wait:
        """What the budget says to an id that nobody has asked for yet, unless one is named."""
        with self.budget.shared.locked():
            return self.budget.admit(route, 0, self._times[0], subject or another())

    def land(
        self,
        ticket: Any,
        status: int | None,
        failed: str = "",
        *,
        subject: Subject | None = None,
        fault: Fault = Fault.ESI,
        **headers: str,
    ) -> Outcome:
        """One answer comes in."""
        outcome = Outcome()
        outcome.status, outcome.failed, outcome.fault = status, failed, fault
        outcome.headers = {name.replace("_", "-"): text for name, text in headers.items()}
        with self.budget.shared.locked():
            self.change = self.budget.settle(ticket, outcome, self._times[0], subject or another())
        return outcome

    def ask(self, route: Route, status: int | None, failed: str = "", **more: Any) -> Outcome:
        """One request that must be admitted, and its answer."""
        subject = more.setdefault("subject", another())
        ticket = self.admit(route, subject)
        assert isinstance(ticket, Ticket), ticket
        return self.land(ticket, status, failed, **more)

    def fail(self, route: Route, times: int) -> None:
        """So many failures of different ids in a row."""
        for ticket in [self.admit(route) for _ in range(times)]:
            self.land(ticket, 502, "HTTP 502")

    def go_away(self) -> None:
        """Ids of two routes fail in a row: ESI is away."""
        self.fail(CHARACTER, 1)
        self.fail(CORPORATION, FAILURES - 1)

    @property
    def state(self) -> str:
        """The word for ESI as a whole."""
        return str(snapshot(self.budget)["breaker"]["state"])

    def probe(self, *, is_up: bool = True, is_vip: bool = False) -> bool:
        """What the client does where a probe is due; False where none is."""
        with self.budget.shared.locked():
            is_due = self.budget.breaker.claim_status_probe(self._times[0])
        if is_due:
            self.budget.note_status(is_up=is_up, is_vip=is_vip)
        return is_due


@pytest.fixture
def host(tmp_path: Path, times: list[float]) -> Iterator[Host]:
    """A budget whose error window is known."""
    made = Host(tmp_path / "budget", times)
    made.ask(CORPORATION, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")
    yield made
    made.budget.close()


def test_a_few_failures_are_no_outage(host: Host) -> None:
    host.fail(CORPORATION, FAILURES - 1)
    host.ask(CHARACTER, 200)
    host.fail(CORPORATION, FAILURES - 1)
    assert host.state == "closed"


def test_failures_in_a_row_let_nothing_leave_but_status(host: Host, times: list[float]) -> None:
    host.go_away()
    assert host.state == "open"
    for _ in range(3):
        for route in (CORPORATION, CHARACTER):
            assert isinstance(host.admit(route), Wait)
        assert not host.probe()
        times[0] += PROBE_S * 1.1
        assert host.probe(is_up=False)


def test_one_real_request_follows_an_answer_of_status_and_ends_it(host: Host, times: list[float]) -> None:
    host.go_away()
    times[0] += PROBE_S * 1.1
    assert host.probe()
    assert host.state == "probing"
    assert isinstance(host.admit(CORPORATION), Wait)
    times[0] += PROBE_S * 1.1
    ticket = host.admit(CORPORATION)
    assert isinstance(ticket, Ticket)
    assert isinstance(host.admit(CORPORATION), Wait)
    host.land(ticket, 200)
    assert host.state == "closed"


def test_an_answer_to_a_question_from_before_the_outage_does_not_end_it(host: Host, times: list[float]) -> None:
    early = host.admit(CORPORATION)
    times[0] += 1.0
    host.go_away()
    host.land(early, 200)
    assert host.state == "open"


def test_a_real_request_that_fails_has_status_asked_again(host: Host, times: list[float]) -> None:
    host.go_away()
    times[0] += PROBE_S * 1.1
    host.probe()
    times[0] += PROBE_S * 1.1
    host.ask(CORPORATION, 503, "HTTP 503")
    assert host.state == "open"
    times[0] += PROBE_S * 1.1
    assert host.probe()


def test_while_only_staff_may_log_in_no_real_request_leaves(host: Host, times: list[float]) -> None:
    host.go_away()
    for _ in range(3):
        times[0] += PROBE_S * 1.1
        assert host.probe(is_vip=True)
        assert host.state == "vip"
        assert isinstance(host.admit(CORPORATION), Wait)


def test_a_failure_in_an_outage_is_nobodys_own_until_it_lasts_for_an_hour(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES - 2)
    assert not host.ask(CHARACTER, 502, "HTTP 502").is_outage
    assert host.ask(CORPORATION, 502, "HTTP 502").is_outage
    for _ in range(2):
        times[0] += PROBE_S * 1.1
        host.probe()
        times[0] += PROBE_S * 1.1
        assert host.ask(CORPORATION, 502, "HTTP 502").is_outage
    # /status answers and one id alone is asked for, in vain: in the end it is the id's own.
    times[0] += LONGEST_OUTAGE_S
    host.probe()
    times[0] += LATER_PROBE_S * 1.1
    assert not host.ask(CORPORATION, 502, "HTTP 502").is_outage


def test_ids_that_are_sick_are_no_outage_however_many_and_often(host: Host, times: list[float]) -> None:
    # Given ids that fail each time, each again and again with nobody else between
    sick = [another() for _ in range(FAILURES - 1)]
    for _ in range(10):
        for one in sick:
            host.ask(CORPORATION, 500, "HTTP 500", subject=one)
            assert host.change == ""
    # and any number of those that have failed before
    for _ in range(40):
        host.ask(CORPORATION, 500, "HTTP 500", subject=another(Standing.SICK))
    assert (host.state, snapshot(host.budget)["breaker"]["routes"]) == ("closed", [])


def test_who_is_right_is_asked_of_status_where_sick_ids_alone_are_asked(host: Host, times: list[float]) -> None:
    for _ in range(FAILURES):
        assert not host.probe()
        host.ask(CORPORATION, 500, "HTTP 500", subject=another(Standing.SICK))
    # /status answers: it is the ids, and nobody asks again so soon
    assert host.probe()
    assert host.state == "closed"
    for _ in range(FAILURES):
        host.ask(CORPORATION, 500, "HTTP 500", subject=another(Standing.SICK))
    assert not host.probe()
    # It does not: ESI is away
    times[0] += DOUBT_S
    assert host.probe(is_up=False)
    assert host.state == "open"


def test_ids_that_never_were_are_no_outage(host: Host) -> None:
    for _ in range(40):
        host.ask(CHARACTER, 404, "HTTP 404", fault=Fault.ID)
    assert (host.state, snapshot(host.budget)["breaker"]["routes"]) == ("closed", [])


def test_ids_that_were_there_and_are_gone_all_at_once_are_their_routes_outage(host: Host) -> None:
    for number in range(FAILURES):
        host.ask(CHARACTER, 404, "HTTP 404", fault=Fault.ID, subject=another(Standing.KNOWN))
        assert bool(snapshot(host.budget)["breaker"]["routes"]) == (number == FAILURES - 1)
    assert isinstance(host.admit(CHARACTER), Wait)


def test_one_route_alone_that_fails_is_that_route_and_status_tells_of_the_rest(host: Host, times: list[float]) -> None:
    # Given that nobody else was answered lately
    host.fail(CORPORATION, FAILURES)
    assert (host.change, host.state) == ("", "closed")
    assert isinstance(host.admit(CORPORATION), Wait)
    # When /status does not answer either, then it is ESI, and nothing else was said
    assert host.probe(is_up=False)
    assert (host.state, snapshot(host.budget)["breaker"]["routes"]) == ("open", [])
    assert isinstance(host.admit(CHARACTER), Wait)


def test_a_route_that_fails_while_others_are_answered_is_said_at_once(
    host: Host, times: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    times[0] += 1.0
    host.ask(CHARACTER, 200)
    host.fail(CORPORATION, FAILURES)
    assert host.change == "route.away"
    # and one of which /status has to tell is said when it has
    times[0] += 1.0
    host.ask(HISTORY, 200)
    host.fail(HISTORY, FAILURES)
    assert host.change == ""
    assert host.probe()
    assert [record.getMessage() for record in caplog.records] == ["route.away"]


def test_a_second_route_that_fails_while_nobody_is_answered_is_esi(host: Host, times: list[float]) -> None:
    times[0] += 1.0
    host.fail(CORPORATION, FAILURES)
    assert host.probe()
    host.fail(CHARACTER, FAILURES)
    assert (host.change, host.state) == ("esi.away", "open")


def test_a_probe_is_none_of_those_that_failed(host: Host, times: list[float]) -> None:
    ids = [another() for _ in range(FAILURES)]
    for one in ids:
        host.ask(CORPORATION, 500, "HTTP 500", subject=one)
    host.ask(CHARACTER, 200)
    times[0] += PROBE_S * 1.1
    for one in (*ids, another(Standing.SICK)):
        assert isinstance(host.admit(CORPORATION, one), Wait)
    host.ask(CORPORATION, 200)
    assert snapshot(host.budget)["breaker"]["routes"] == []
    assert isinstance(host.admit(CORPORATION, ids[0]), Ticket)


def test_where_nobody_else_is_there_one_that_failed_is_a_probe_in_the_end(host: Host, times: list[float]) -> None:
    ids = [another() for _ in range(FAILURES)]
    for one in ids:
        host.ask(CORPORATION, 500, "HTTP 500", subject=one)
    times[0] += PROBE_S * 1.1 + ANYBODY_S
    host.ask(CORPORATION, 200, subject=ids[0])
    assert snapshot(host.budget)["breaker"]["routes"] == []


def test_each_circuit_has_its_own_probes(host: Host, times: list[float]) -> None:
    for route in (CORPORATION, CHARACTER):
        host.fail(route, FAILURES)
        host.ask(HISTORY, 200)
    times[0] += PROBE_S * 1.1
    # The probe of one, in vain, is none of the other's.
    host.ask(CORPORATION, 500, "HTTP 500")
    host.ask(CHARACTER, 200)
    assert snapshot(host.budget)["breaker"]["routes"] == [CORPORATION.path]


def test_a_long_outage_is_asked_for_half_as_often(host: Host, times: list[float]) -> None:
    host.go_away()
    begun, probes = times[0], list[float]()
    while times[0] < begun + 90:
        times[0] += 0.1
        if host.probe(is_up=False):
            probes.append(times[0])
    assert len(probes) <= LATER_S / PROBE_S + (90 - LATER_S) / LATER_PROBE_S
    assert len(probes) >= 9


def test_a_503_says_when_to_come_again(host: Host, times: list[float]) -> None:
    host.go_away()
    times[0] += PROBE_S * 1.1
    host.probe()
    times[0] += PROBE_S * 1.1
    host.ask(CORPORATION, 503, "HTTP 503", Retry_After="600")
    times[0] += 599.0
    assert not host.probe()
    times[0] += 1.1
    assert host.probe()


def test_a_503_of_status_says_when_to_come_again_too(host: Host, times: list[float]) -> None:
    host.go_away()
    times[0] += PROBE_S * 1.1
    with host.budget.shared.locked():
        assert host.budget.breaker.claim_status_probe(times[0])
    outcome = Outcome()
    outcome.status, outcome.headers = 503, {"Retry-After": "7200"}
    host.budget.note_status(is_up=False, is_vip=False, outcome=outcome)
    times[0] += 899.0
    assert not host.probe()
    times[0] += 1.1
    assert host.probe()


def test_what_an_outage_did_is_told_once_from_the_last_good_answer_before_it(
    host: Host, times: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = clock.now()
    monkeypatch.setattr(clock, "now", lambda: began + dt.timedelta(seconds=times[0] - start))
    start = times[0]
    host.ask(CORPORATION, 200)
    times[0] += 3.0
    host.go_away()
    assert host.budget.outages_over() == {}
    times[0] += 60.0
    host.probe()
    times[0] += LATER_PROBE_S * 1.1
    host.ask(CORPORATION, 200)
    ((path, since),) = host.budget.outages_over().items()
    assert (path, since) == ("", pytest.approx(began.timestamp() - MIXED_S, abs=0.1))
    host.budget.forget_outage(path, since)
    assert host.budget.outages_over() == {}


def test_sick_ids_take_half_of_the_error_limit_at_most(host: Host, times: list[float]) -> None:
    waits = [host.budget.retry_wait_s(CORPORATION, 0.0) for _ in range(200)]
    assert sum(wait <= 60.0 for wait in waits) <= 51
    assert waits[-1] == pytest.approx(199 * 1.2, abs=2.0)
    # A route with tokens has no error limit.
    assert host.budget.retry_wait_s(Route("/killmails/{id}", group="killmail"), 0.5) == 0.5


def test_one_route_that_is_away_holds_itself_only(host: Host, times: list[float]) -> None:
    for _ in range(FAILURES):
        host.fail(CHARACTER, 1)
        host.ask(CORPORATION, 200)
    assert (host.state, snapshot(host.budget)["breaker"]["routes"]) == ("closed", ["/characters/{id}"])
    assert isinstance(host.admit(CHARACTER), Wait)
    host.ask(CORPORATION, 200)
    times[0] += PROBE_S * 1.1
    host.ask(CHARACTER, 200)
    assert snapshot(host.budget)["breaker"]["routes"] == []


def test_a_failure_of_a_route_that_is_away_is_nobodys_own_until_it_lasts_for_an_hour(host: Host, times: list[float]) -> None:
    for _ in range(FAILURES):
        host.fail(CHARACTER, 1)
        host.ask(CORPORATION, 200)
    for _ in range(3):
        times[0] += PROBE_S * 1.1
        assert host.ask(CHARACTER, 502, "HTTP 502").is_outage
        host.ask(CORPORATION, 200)
    assert not host.ask(CORPORATION, 502, "HTTP 502").is_outage
    times[0] += LONGEST_OUTAGE_S
    assert not host.ask(CHARACTER, 502, "HTTP 502").is_outage


def test_after_an_outage_the_first_second_sees_ten_requests_at_most(host: Host, times: list[float]) -> None:
    host.go_away()
    times[0] += PROBE_S * 1.1
    host.probe()
    times[0] += PROBE_S * 1.1
    host.ask(CORPORATION, 200)
    tickets = [host.admit(CORPORATION) for _ in range(60)]
    starts_s = [ticket.leaves_at - times[0] for ticket in tickets if isinstance(ticket, Ticket)]
    assert 2 <= sum(start_s <= 1.0 for start_s in starts_s) <= 10
    # Doubling each second: five seconds later there is hardly a distance left.
    assert len(starts_s) == 60
    assert starts_s[-1] < 5.0


def test_a_probe_leaves_at_a_pace_slower_than_the_probes(tmp_path: Path, times: list[float]) -> None:
    # Given a pace of one request in 10 s, ESI away, and /status that answers
    budget = Budget(tmp_path / "slow", Limits(max_rps=0.1, error_reserve=10))
    with budget.shared.locked() as state:
        state.circuits[0].open_since, state.status_ok, state.next_start = times[0], 1, times[0] + 0.001
        ticket = budget.admit(CORPORATION, 0, times[0])
    # When its turn in the pace has come, then it leaves although ESI is still away
    assert isinstance(ticket, Ticket)
    assert ticket.leaves_at > times[0]
    assert budget._keep_turn(ticket, times[0])
    budget.close()


def test_a_429_that_names_no_group_closes_its_route_only(host: Host, times: list[float]) -> None:
    host.ask(CHARACTER, 429, Retry_After="30")
    assert isinstance(host.admit(CHARACTER), Wait)
    host.ask(CORPORATION, 200)
    times[0] += 33.1
    host.ask(CHARACTER, 200)


def test_a_hidden_limit_is_kept_without_any_header(host: Host, times: list[float]) -> None:
    begin = times[0]
    sent = 0
    while times[0] < begin + 60:
        ticket = host.admit(HISTORY)
        if isinstance(ticket, Ticket):
            host.land(ticket, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")
            sent += 1
        else:
            times[0] += max(0.001, ticket.seconds)
    assert 250 < sent <= 300 * 0.98
    host.ask(CORPORATION, 200)


def test_a_hidden_limit_that_says_no_by_a_500_is_left_alone_for_a_minute(host: Host, times: list[float]) -> None:
    host.ask(HISTORY, 500, "HTTP 500")
    assert isinstance(host.admit(HISTORY), Wait)
    times[0] += 61
    host.ask(HISTORY, 200)


def test_a_route_that_gets_a_bucket_one_day_is_counted_there_from_its_first_answer_on(host: Host) -> None:
    host.ask(CHARACTER, 200, X_Ratelimit_Group="character", X_Ratelimit_Limit="20/15m", X_Ratelimit_Remaining="4")
    assert isinstance(host.admit(CHARACTER), Wait)
    # And one that has lost it, in the error limit.
    killmail = Route("/killmails/{id}/{argument}", group="killmail")
    host.ask(killmail, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")
    before = host.budget.buckets.used(host.budget.buckets.number("killmail") or 0, clock.monotonic())
    host.ask(killmail, 404, X_Esi_Error_Limit_Remain="99", X_Esi_Error_Limit_Reset="60")
    assert host.budget.buckets.used(host.budget.buckets.number("killmail") or 0, clock.monotonic()) == before
    assert snapshot(host.budget)["error_remain"] == 99


def test_an_ended_window_is_given_one_second_more_since_its_end_is_told_in_whole_seconds(
    host: Host, times: list[float]
) -> None:
    host.ask(CORPORATION, 404, X_Esi_Error_Limit_Remain="10", X_Esi_Error_Limit_Reset="60")
    times[0] += 60.5
    assert isinstance(host.admit(CORPORATION), Wait)
    times[0] += 0.6
    assert isinstance(host.admit(CORPORATION), Ticket)


def test_the_same_is_never_asked_by_two_at_once(tmp_path: Path) -> None:
    budgets = [Budget(tmp_path / "budget", Limits(max_rps=0)) for _ in range(2)]
    with budgets[0].request(CORPORATION, "GET /corporations/1") as outcome:
        with pytest.raises(Held, match="the same is being asked"), budgets[1].request(CORPORATION, "GET /corporations/1"):
            pass
        with budgets[1].request(CORPORATION, "GET /corporations/2") as other:
            other.status = 200
        outcome.status = 200
    with budgets[1].request(CORPORATION, "GET /corporations/1") as again:
        again.status = 200
    for budget in budgets:
        budget.close()


def test_every_group_of_the_table_has_room(host: Host) -> None:
    for group in GROUPS:
        assert isinstance(host.admit(Route(f"/{group}", group=group)), Ticket), group
