"""The breaker, the pace after it, hidden limits, and what routes tell of themselves: with time in the test's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.errors import Held
from esid.esi.breaker import FAILURES, LONGEST_OUTAGE_S, PROBE_S
from esid.esi.budget import Budget, Limits, Outcome
from esid.esi.routes import GROUPS, Route
from esid.esi.snapshot import snapshot

CORPORATION, CHARACTER = Route("/corporations/{id}"), Route("/characters/{id}")
HISTORY = Route("/markets/{id}/history", hidden="market-history")


class Host:
    """A budget, asked without waiting."""

    def __init__(self, path: Path, times: list[float]) -> None:
        self.budget, self._times = Budget(path, Limits(max_rps=0, max_in_flight=500)), times

    def admit(self, route: Route) -> Any:
        """(ticket or None, seconds, reason)."""
        with self.budget.shared.locked():
            return self.budget.admit(route, 0, self._times[0])

    def land(self, ticket: Any, status: int | None, failed: str = "", **headers: str) -> Outcome:
        """One answer comes in."""
        outcome = Outcome()
        outcome.status, outcome.failed = status, failed
        outcome.headers = {name.replace("_", "-"): text for name, text in headers.items()}
        with self.budget.shared.locked():
            self.budget.settle(ticket, outcome, self._times[0])
        return outcome

    def ask(self, route: Route, status: int | None, failed: str = "", **headers: str) -> Outcome:
        """One request that must be admitted, and its answer."""
        ticket, _, reason = self.admit(route)
        assert ticket, reason
        return self.land(ticket, status, failed, **headers)

    def fail(self, route: Route, times: int) -> None:
        """So many failures in a row."""
        for ticket in [self.admit(route)[0] for _ in range(times)]:
            self.land(ticket, 502, "HTTP 502")

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
    host.ask(CHARACTER, 404)
    host.fail(CORPORATION, FAILURES - 1)
    assert host.state == "closed"


def test_failures_in_a_row_let_nothing_leave_but_status(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES)
    assert host.state == "open"
    for _ in range(3):
        for route in (CORPORATION, CHARACTER):
            assert host.admit(route)[0] is None
        assert not host.probe()
        times[0] += PROBE_S * 1.1
        assert host.probe(is_up=False)


def test_one_real_request_follows_an_answer_of_status_and_ends_it(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES)
    times[0] += PROBE_S * 1.1
    assert host.probe()
    assert host.state == "probing"
    assert host.admit(CORPORATION)[0] is None
    times[0] += PROBE_S * 1.1
    ticket, _, _ = host.admit(CORPORATION)
    assert ticket
    assert host.admit(CORPORATION)[0] is None
    host.land(ticket, 200)
    assert host.state == "closed"


def test_an_answer_to_a_question_from_before_the_outage_does_not_end_it(host: Host, times: list[float]) -> None:
    early, _, _ = host.admit(CORPORATION)
    times[0] += 1.0
    host.fail(CORPORATION, FAILURES)
    host.land(early, 200)
    assert host.state == "open"


def test_a_real_request_that_fails_has_status_asked_again(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES)
    times[0] += PROBE_S * 1.1
    host.probe()
    times[0] += PROBE_S * 1.1
    host.ask(CORPORATION, 503, "HTTP 503")
    assert host.state == "open"
    times[0] += PROBE_S * 1.1
    assert host.probe()


def test_while_only_staff_may_log_in_no_real_request_leaves(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES)
    for _ in range(3):
        times[0] += PROBE_S * 1.1
        assert host.probe(is_vip=True)
        assert host.state == "vip"
        assert host.admit(CORPORATION)[0] is None


def test_a_failure_in_an_outage_is_nobodys_own_until_it_lasts_for_an_hour(host: Host, times: list[float]) -> None:
    host.fail(CORPORATION, FAILURES - 1)
    assert not host.ask(CORPORATION, 502, "HTTP 502").is_outage
    for _ in range(2):
        times[0] += PROBE_S * 1.1
        host.probe()
        times[0] += PROBE_S * 1.1
        assert host.ask(CORPORATION, 502, "HTTP 502").is_outage
    # /status answers and one id alone is asked for, in vain: in the end it is the id's own.
    times[0] += LONGEST_OUTAGE_S
    host.probe()
    times[0] += PROBE_S * 1.1
    assert not host.ask(CORPORATION, 502, "HTTP 502").is_outage


def test_one_route_that_is_away_holds_itself_only(host: Host, times: list[float]) -> None:
    for _ in range(FAILURES):
        host.fail(CHARACTER, 1)
        host.ask(CORPORATION, 200)
    assert (host.state, snapshot(host.budget)["breaker"]["routes"]) == ("closed", ["/characters/{id}"])
    assert host.admit(CHARACTER)[0] is None
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
    host.fail(CORPORATION, FAILURES)
    times[0] += PROBE_S * 1.1
    host.probe()
    times[0] += PROBE_S * 1.1
    host.ask(CORPORATION, 200)
    starts = [host.admit(CORPORATION)[1] for _ in range(60)]
    assert 2 <= sum(start <= 1.0 for start in starts) <= 10
    # Doubling each second: five seconds later there is hardly a distance left.
    assert starts[-1] < 5.0


def test_a_probe_leaves_at_a_pace_slower_than_the_probes(tmp_path: Path, times: list[float]) -> None:
    # Given a pace of one request in 10 s, ESI away, and /status that answers
    budget = Budget(tmp_path / "slow", Limits(max_rps=0.1, error_reserve=10))
    with budget.shared.locked() as state:
        budget.breaker._state.circuits[0].open_since = times[0]
        state.status_ok, state.next_start = 1, times[0] + 0.001
        ticket, wait_s, _ = budget.admit(CORPORATION, 0, times[0])
    # When its place in the pace has come, then it leaves although ESI is still away
    assert ticket
    assert wait_s > 0
    assert budget._keep_place(ticket, wait_s)
    budget.close()


def test_a_429_that_names_no_group_closes_its_route_only(host: Host, times: list[float]) -> None:
    host.ask(CHARACTER, 429, Retry_After="30")
    assert host.admit(CHARACTER)[0] is None
    host.ask(CORPORATION, 200)
    times[0] += 33.1
    host.ask(CHARACTER, 200)


def test_a_hidden_limit_is_kept_without_any_header(host: Host, times: list[float]) -> None:
    begin = times[0]
    sent = 0
    while times[0] < begin + 60:
        ticket, wait_s, _ = host.admit(HISTORY)
        if ticket:
            host.land(ticket, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")
            sent += 1
        else:
            times[0] += max(0.001, wait_s)
    assert 250 < sent <= 300 * 0.98
    host.ask(CORPORATION, 200)


def test_a_hidden_limit_that_says_no_by_a_500_is_left_alone_for_a_minute(host: Host, times: list[float]) -> None:
    host.ask(HISTORY, 500, "HTTP 500")
    assert host.admit(HISTORY)[0] is None
    times[0] += 61
    host.ask(HISTORY, 200)


def test_a_route_that_gets_a_bucket_one_day_is_counted_there_from_its_first_answer_on(host: Host) -> None:
    host.ask(CHARACTER, 200, X_Ratelimit_Group="character", X_Ratelimit_Limit="20/15m", X_Ratelimit_Remaining="4")
    assert host.admit(CHARACTER)[0] is None
    # And one that has lost it, in the error limit.
    killmail = Route("/killmails/{id}/{argument}", group="killmail")
    host.ask(killmail, 200, X_Esi_Error_Limit_Remain="100", X_Esi_Error_Limit_Reset="60")
    before = host.budget.buckets.used(host.budget.buckets.place("killmail") or 0, clock.monotonic())
    host.ask(killmail, 404, X_Esi_Error_Limit_Remain="99", X_Esi_Error_Limit_Reset="60")
    assert host.budget.buckets.used(host.budget.buckets.place("killmail") or 0, clock.monotonic()) == before
    assert snapshot(host.budget)["error_remain"] == 99


def test_an_ended_window_is_given_one_second_more_since_its_end_is_told_in_whole_seconds(
    host: Host, times: list[float]
) -> None:
    host.ask(CORPORATION, 404, X_Esi_Error_Limit_Remain="10", X_Esi_Error_Limit_Reset="60")
    times[0] += 60.5
    assert host.admit(CORPORATION)[0] is None
    times[0] += 0.6
    assert host.admit(CORPORATION)[0]


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
    wait: Callable[[Route], Any] = host.admit
    for group in GROUPS:
        assert wait(Route(f"/{group}", group=group))[0], group
