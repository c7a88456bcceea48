"""The budget: no request leaves against an announced limit, from any thread or process that shares the file."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from esid import clock
from esid.clock import Stop
from esid.errors import EsiError, Held, NotFound, NotPermitted, Stopping
from esid.esi import connection
from esid.esi.budget import Budget, Limits, Outcome, Subject, Ticket, admission
from esid.esi.budget import budget as budget_module
from esid.esi.budget import state as shared
from esid.esi.budget.breaker import FAILURES
from esid.esi.budget.layout import BUCKETS, SIZE
from esid.esi.budget.view import snapshot
from esid.esi.client import Client
from esid.esi.headers import retry_after_s
from esid.esi.routes import Route
from tests.fake_esi import FakeEsi, World
from tests.tools.ports import free_ports
from tests.tools.waiting import wait_until

ROOT = Path(__file__).parents[2]
ALLIANCES = Route("/alliances")
ALLIANCE = Route("/alliances/{id}")
KILLMAIL = Route("/killmails/{id}/{argument}", group="killmail")
STATUS = Route("/status", group="status")
HASH = "a" * 40
FREE = Limits(max_rps=0)
#: Each id once: the same URL is never asked by two at once.
IDS = count(1)
Open = Callable[..., Budget]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the shared file of this test is."""
    return tmp_path / "budget"


@pytest.fixture
def open_budget(path: Path) -> Iterator[Open]:
    """Opens the shared file as another process would."""
    opened: list[Budget] = []

    def make(limits: Limits = FREE, stop: Stop | None = None) -> Budget:
        opened.append(Budget(path, limits, stop))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def begin_window(esi: FakeEsi) -> None:
    """Move the fake's clock to the beginning of an error window, so that no test straddles two."""
    window_s = esi.limits.errors.window_s
    esi.clock.advance(window_s - esi.clock.now() % window_s + 0.1)


def route_of(group: str | None) -> Route:
    """A route of this group."""
    return Route(f"/{group or 'guarded'}", group=group)


def settle(budget: Budget, group: str | None, status: int | None, **headers: str) -> None:
    """Send one request whose answer has this status and these headers (_ for -)."""
    with budget.request(route_of(group)) as outcome:
        outcome.status = status
        outcome.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def errors(remain: int, reset_s: int) -> dict[str, str]:
    """Headers of the error limit."""
    return {"X_Esi_Error_Limit_Remain": str(remain), "X_Esi_Error_Limit_Reset": str(reset_s)}


def tokens(group: str, limit: str, remaining: int) -> dict[str, str]:
    """Headers of a bucket."""
    return {"X_Ratelimit_Group": group, "X_Ratelimit_Limit": limit, "X_Ratelimit_Remaining": str(remaining)}


def bucket(budget: Budget, group: str) -> dict[str, float]:
    """What the snapshot says of one bucket."""
    return next(one for one in snapshot(budget)["buckets"] if one["group"] == group)


def ask_for_ever(client: Client, route: Route, error: type[EsiError]) -> None:
    """Ask for what always ends in this error, until the budget lets nothing leave."""
    while True:
        with pytest.raises(error):
            client.get(route, id=next(IDS), argument=HASH)


def in_threads(threads: int, act: Callable[[], object]) -> None:
    """Do something in so many threads at once, and wait for all of them."""
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(act) for _ in range(threads)]:
            done.result()


def child(code: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Another process; `budget` is the opened file there, `sys.argv[2:]` are the arguments."""
    start = (
        "import sys, time\nfrom pathlib import Path\nfrom esid.errors import Held\n"
        "from esid.esi.budget import Budget, Limits\nfrom esid.esi.client import Client\n"
        "from esid.esi.routes import Route\n"
        "budget = Budget(Path(sys.argv[1]), Limits(max_rps=0))\n"
    )
    command = [sys.executable, "-c", start + code, str(path), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill_with_requests_in_flight(path: Path, number: int) -> int:
    """Let a process begin so many requests and die; returns its id."""
    code = (
        f"begun = [budget.request(Route('/x')) for _ in range({number})]\n"
        "for one in begun: one.__enter__()\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    with child(code, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
    return process.pid


# -- the error limit


def test_nothing_but_404s_from_many_threads_never_meets_a_420_nor_the_reserve(esi: FakeEsi, open_budget: Open) -> None:
    begin_window(esi)
    client = Client(esi.base_url, open_budget())

    def hammer() -> None:
        with pytest.raises(Held):
            ask_for_ever(client, ALLIANCE, NotFound)

    in_threads(8, hammer)
    assert esi.count(status=420) == 0
    assert esi.count(status=404) == 90
    assert esi.limits.errors.remaining(esi.clock.now()) == 10


@pytest.mark.parametrize("reserve", [1, 20, 99])
def test_the_reserve_is_left_alone(esi: FakeEsi, open_budget: Open, reserve: int) -> None:
    begin_window(esi)
    client = Client(esi.base_url, open_budget(Limits(max_rps=0, error_reserve=reserve)))
    with pytest.raises(Held) as caught:
        ask_for_ever(client, ALLIANCE, NotFound)
    assert esi.limits.errors.remaining(esi.clock.now()) == reserve
    assert caught.value.reason == "error limit"
    assert 10 < caught.value.wait_s <= 61


def test_slow_answers_do_not_let_more_requests_out_than_may_fail(esi: FakeEsi, open_budget: Open) -> None:
    begin_window(esi)
    esi.latency_s = 0.2
    client = Client(esi.base_url, open_budget(Limits(max_rps=0, error_reserve=80)))

    def ask() -> None:
        with pytest.raises((NotFound, Held)):
            client.get(ALLIANCE, id=next(IDS))

    in_threads(32, ask)
    assert esi.limits.errors.remaining(esi.clock.now()) == 80


def test_errors_of_somebody_else_behind_the_same_address_count(esi: FakeEsi, open_budget: Open) -> None:
    begin_window(esi)
    client = Client(esi.base_url, open_budget())
    for _ in range(85):
        esi.limits.errors.add_error(esi.clock.now())
    client.get(ALLIANCES)
    assert snapshot(client._budget)["error_remain"] == 15
    with pytest.raises(Held):
        ask_for_ever(client, ALLIANCE, NotFound)
    assert esi.count(status=404) == 5


@pytest.mark.parametrize("status", [None, 404, 500, 503])
def test_an_error_that_tells_nothing_is_counted_all_the_same(open_budget: Open, status: int | None) -> None:
    budget = open_budget()
    for _ in range(3):
        settle(budget, None, status)
    assert snapshot(budget)["error_remain"] == 97


def test_a_new_window_gives_the_errors_back(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, None, 404, **errors(30, 5))
    assert snapshot(budget)["error_remain"] == 30
    settle(budget, None, 200, **errors(100, 59))
    assert snapshot(budget)["error_remain"] == 100


def test_an_answer_that_comes_late_within_a_window_does_not_give_errors_back(open_budget: Open) -> None:
    budget = open_budget()
    with budget.request(route_of(None)) as late:
        settle(budget, None, 404, **errors(30, 40))
        late.status, late.headers = 404, {"X-Esi-Error-Limit-Remain": "31", "X-Esi-Error-Limit-Reset": "41"}
    assert snapshot(budget)["error_remain"] == 30


def test_an_answer_of_the_last_window_that_comes_late_does_not_end_this_one(open_budget: Open) -> None:
    budget = open_budget()
    with budget.request(route_of(None)) as late:
        settle(budget, None, 404, **errors(15, 59))
        late.status, late.headers = 200, {"X-Esi-Error-Limit-Remain": "40", "X-Esi-Error-Limit-Reset": "1"}
    assert snapshot(budget)["error_reset_s"] > 50


def test_an_answer_whose_body_was_slow_neither_gives_errors_back_nor_moves_the_window(
    open_budget: Open, times: list[float]
) -> None:
    # Given a request whose headers were written at once and whose body took 25 s
    budget = open_budget()
    settle(budget, None, 200, **errors(100, 60))
    with budget.request(route_of(None)) as slow:
        times[0] += 10
        settle(budget, None, 404, **errors(20, 50))
        times[0] += 15
        slow.status, slow.headers = 200, {"X-Esi-Error-Limit-Remain": "100", "X-Esi-Error-Limit-Reset": "59"}
    assert (snapshot(budget)["error_remain"], snapshot(budget)["error_reset_s"]) == (20, 35)
    # Then the answers that follow are believed
    settle(budget, None, 404, **errors(19, 35))
    assert snapshot(budget)["error_remain"] == 19


def test_a_window_whose_end_was_told_by_a_slow_answer_is_corrected_by_the_next(
    open_budget: Open, times: list[float]
) -> None:
    budget = open_budget()
    with budget.request(route_of(None)) as slow:
        times[0] += 25
        slow.status, slow.headers = 200, {"X-Esi-Error-Limit-Remain": "100", "X-Esi-Error-Limit-Reset": "60"}
    assert snapshot(budget)["error_reset_s"] == 60
    times[0] += 5
    settle(budget, None, 404, **errors(40, 30))
    assert (snapshot(budget)["error_remain"], snapshot(budget)["error_reset_s"]) == (40, 30)


@pytest.mark.parametrize("text", ["", "many", "-5", "1e9", "\xb2", "9" * 30, "1.5"])
def test_headers_that_are_no_numbers_are_not_believed(open_budget: Open, text: str) -> None:
    budget = open_budget()
    settle(budget, None, 200, X_Esi_Error_Limit_Remain=text, X_Esi_Error_Limit_Reset=text)
    settle(budget, None, 200, X_Esi_Error_Limit_Remain="0", X_Esi_Error_Limit_Reset=text)
    assert snapshot(budget)["error_remain"] == 100


# -- 420


def test_after_a_420_nothing_leaves_on_any_route(esi: FakeEsi, open_budget: Open) -> None:
    budget = open_budget()
    client = Client(esi.base_url, budget)
    esi.faults.add("/alliances", times=1, status=420, headers={"X-Esi-Error-Limit-Reset": "40"})
    with pytest.raises(Held):
        client.get(ALLIANCES)
    assert 40 < snapshot(budget)["paused_s"] < 40 + 1 + 4
    for route in (ALLIANCES, KILLMAIL, STATUS):
        with pytest.raises(Held) as caught:
            client.get(route, id=1, argument=HASH)
        assert caught.value.reason == "420"
        assert caught.value.wait_s > 39
    assert len(esi.log) == 1


class Dialling:
    """A client whose next connection takes as long as the test wants, and the thread that waits for it."""

    def __init__(self, client: Client, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[Held] = []
        self._is_dialling, self._may_go_on = threading.Event(), threading.Event()
        self._client, self._route, self._connect = client, route, connection._connected
        self._thread = threading.Thread(target=self._ask)
        monkeypatch.setattr(connection, "_connected", self._connected)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_dialling.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._may_go_on.set()
        self._thread.join(10)

    def _ask(self) -> None:
        with pytest.raises(Held) as caught:
            self._client.get(self._route, id=next(IDS), argument=HASH)
        self.held.append(caught.value)

    def _connected(self, *arguments: Any) -> socket.socket:
        if threading.current_thread() is self._thread:
            self._is_dialling.set()
            assert self._may_go_on.wait(10)
        return self._connect(*arguments)


def test_what_was_still_connecting_when_a_420_came_does_not_leave(
    esi: FakeEsi, open_budget: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = open_budget()
    client = Client(esi.base_url, budget)
    esi.faults.add("/alliances", times=1, status=420, headers={"X-Esi-Error-Limit-Reset": "40"})
    with Dialling(client, KILLMAIL, monkeypatch) as dialling:
        with pytest.raises(Held):
            client.get(ALLIANCES)
        before = snapshot(budget)
    assert [held.reason for held in dialling.held] == ["420"]
    assert dialling.held[0].wait_s > 39
    assert [request.path for request in esi.log] == ["/alliances"]
    # And what did not leave has cost nothing and tells nothing of ESI
    after = snapshot(budget)
    assert (after["in_flight"], after["errors"]) == (0, before["errors"])
    assert bucket(budget, "killmail")["available"] == 3528
    assert budget.breaker._state.circuits[0].failures == 0


def test_what_was_still_connecting_when_esi_went_away_does_not_leave(
    esi: FakeEsi, open_budget: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = open_budget()
    client = Client(esi.base_url, budget)
    with Dialling(client, ALLIANCES, monkeypatch) as dialling:
        for number in range(FAILURES):
            with budget.request(STATUS if number else KILLMAIL, subject=Subject(str(number))) as outcome:
                outcome.failed = "no answer"
        opened_at = budget.breaker.open_since()
    assert [held.reason for held in dialling.held] == ["ESI is away"]
    assert esi.log == []
    assert 0 < opened_at == budget.breaker.open_since()


def test_after_a_420_nothing_leaves_from_another_process(esi: FakeEsi, open_budget: Open, path: Path) -> None:
    settle(open_budget(), None, 420, **errors(0, 40))
    code = (
        "try:\n    Client(sys.argv[2], budget).get(Route('/status', group='status'))\n"
        "except Held as held:\n    print(held.reason)"
    )
    with child(code, path, esi.base_url) as process:
        assert process.communicate(timeout=30)[0] == "420\n"
    assert esi.log == []


def test_a_420_of_a_killed_process_still_holds_after_a_restart(open_budget: Open, path: Path) -> None:
    code = (
        "with budget.request(Route('/x')) as outcome:\n"
        "    outcome.status, outcome.headers = 420, {'X-Esi-Error-Limit-Reset': '40'}\n"
        "print('paused', flush=True)\ntime.sleep(60)"
    )
    with child(code, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGKILL)
    assert snapshot(open_budget())["paused_s"] > 38


def test_a_second_420_never_shortens_the_pause(open_budget: Open) -> None:
    budget = open_budget()
    with budget.request(route_of(None)) as late:
        settle(budget, None, 420, **errors(0, 50))
        late.status, late.headers = 420, {"X-Esi-Error-Limit-Reset": "5"}
    assert snapshot(budget)["paused_s"] > 48


@pytest.mark.parametrize("reset", ["", "soon", "99999", "\xb2"])
def test_a_420_without_a_believable_time_pauses_for_a_window(open_budget: Open, reset: str) -> None:
    budget = open_budget()
    settle(budget, None, 420, X_Esi_Error_Limit_Reset=reset)
    assert 60 < snapshot(budget)["paused_s"] <= 67


@pytest.mark.parametrize(("status", "headers"), [(420, {"X-Esi-Error-Limit-Reset": "40"}), (429, {"Retry-After": "40"})])
def test_what_the_probe_of_status_is_told_is_obeyed(
    esi: FakeEsi, open_budget: Open, status: int, headers: dict[str, str]
) -> None:
    budget = open_budget()
    client = Client(esi.base_url, budget)
    esi.faults.add("/status", status=status, headers=headers)
    client._probe()
    client._probe()
    assert esi.count() == 1
    if status == 420:
        assert snapshot(budget)["paused_s"] > 39
    else:
        assert bucket(budget, "status")["closed_s"] > 39
    assert snapshot(budget)["in_flight"] == 0


def test_the_probe_of_status_waits_for_a_share_of_the_budget(esi: FakeEsi, path: Path) -> None:
    budget = Budget(path, FREE, is_divided=True)
    Client(esi.base_url, budget)._probe()
    assert esi.count() == 0
    budget.close()


def test_what_finds_no_connection_costs_nothing_and_the_probe_of_status_never_runs_dry(open_budget: Open) -> None:
    # Given a network that is away for longer than the tokens of /status would last
    budget = open_budget()
    (port,) = free_ports(1)
    client = Client(f"http://127.0.0.1:{port}", budget)
    before = snapshot(budget)
    for _ in range(200):
        client._probe()
    with pytest.raises(EsiError):
        client.get(KILLMAIL, id=1, argument=HASH)
    with pytest.raises(EsiError):
        client.get(ALLIANCES)
    # Then every probe was sent
    after = snapshot(budget)
    assert after["requests"] == before["requests"] + 202
    assert bucket(budget, "status")["available"] == 588
    assert bucket(budget, "killmail")["available"] == 3528
    assert after["error_remain"] == 100


def test_nothing_is_probed_after_a_stop(esi: FakeEsi, open_budget: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    budget = open_budget(stop=stop)
    monkeypatch.setattr(budget.breaker, "claim_status_probe", lambda _: True)
    stop.set()
    with pytest.raises(Stopping):
        Client(esi.base_url, budget).get(ALLIANCES)
    assert esi.count() == 0


@pytest.mark.heavy
def test_requests_that_wait_for_their_place_in_the_pace_stay_when_a_420_comes(esi: FakeEsi, open_budget: Open) -> None:
    # Six threads have leave, one each 3 s; the first is answered with 420 after all have it and before the second goes.
    esi.latency_s = 0.1
    esi.faults.add("/", status=420, headers={"X-Esi-Error-Limit-Reset": "40"})
    client = Client(esi.base_url, open_budget(Limits(max_rps=1 / 3)))

    def ask() -> None:
        with pytest.raises(Held):
            client.get(ALLIANCE, id=next(IDS))

    in_threads(6, ask)
    assert len(esi.log) == 1


# -- who waits, and for how long


def test_a_stop_ends_a_wait_at_once(open_budget: Open) -> None:
    stop = Stop()
    budget = open_budget(Limits(max_rps=0, max_in_flight=1), stop)
    ended_s: list[float] = []

    def wait() -> None:
        with pytest.raises(Stopping), budget.request(route_of(None)):
            pass
        ended_s.append(time.monotonic())

    with budget.request(route_of(None)):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: snapshot(budget)["waiting"] == 1)
        start = time.monotonic()
        stop.set()
        thread.join(20)
    assert ended_s
    assert ended_s[0] - start < 4
    assert (snapshot(budget)["in_flight"], snapshot(budget)["waiting"]) == (0, 0)


def test_a_stop_ends_a_wait_for_the_pace_at_once(open_budget: Open) -> None:
    stop = Stop()
    budget = open_budget(Limits(max_rps=0.05), stop)
    settle(budget, None, 200)
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    with pytest.raises(Stopping), budget.request(route_of(None)):
        pass
    assert time.monotonic() - start < 10
    assert snapshot(budget)["in_flight"] == 0


def test_nothing_leaves_after_a_stop(open_budget: Open) -> None:
    stop = Stop()
    stop.set()
    budget = open_budget(stop=stop)
    with pytest.raises(Stopping), budget.request(route_of(None)):
        pass
    assert snapshot(budget)["in_flight"] == 0


def test_errors_without_an_answer_count_beside_what_an_earlier_answer_says_is_left(open_budget: Open) -> None:
    # Given four requests on their way, of which ESI has refused two, and then broken off two
    budget, now = open_budget(Limits(max_rps=0, max_in_flight=100)), time.monotonic()
    refused = [{"X-Esi-Error-Limit-Remain": str(left), "X-Esi-Error-Limit-Reset": "50"} for left in (99, 98)]
    with budget.shared.locked():
        tickets = [budget.admit(route_of(None), 0, now) for _ in range(4)]
        # When the second refusal comes in behind a broken one
        for ticket, headers in zip(tickets, (refused[0], {}, refused[1], {}), strict=True):
            assert isinstance(ticket, Ticket)
            outcome = Outcome()
            outcome.status, outcome.headers = (404 if headers else None), headers
            budget.settle(ticket, outcome, now)
    # Then all four are known to be used
    assert snapshot(budget)["error_remain"] == 96


def test_a_thread_waits_no_longer_than_its_patience(open_budget: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (admission, budget_module):
        monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    budget = open_budget(Limits(max_rps=0, max_in_flight=1))
    with budget.request(route_of(None)):
        start = time.monotonic()
        with pytest.raises(Held) as caught, budget.request(route_of(None)):
            pass
        assert 0.2 < time.monotonic() - start < 5
    assert caught.value.reason == "in flight"
    assert snapshot(budget)["waiting"] == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, EsiError])
def test_a_request_that_breaks_is_settled(open_budget: Open, error: type[BaseException]) -> None:
    budget = open_budget()
    with pytest.raises(error), budget.request(route_of(None)):
        raise error("broken")
    assert (snapshot(budget)["in_flight"], snapshot(budget)["error_remain"]) == (0, 99)


def test_no_more_requests_are_in_flight_than_allowed(open_budget: Open) -> None:
    budget = open_budget(Limits(max_rps=0, max_in_flight=3))
    # Three at a time can be in flight, or they would wait for each other in vain.
    three = threading.Barrier(3, timeout=10)

    def fly() -> None:
        with budget.request(route_of(None)) as outcome:
            outcome.status = 200
            assert snapshot(budget)["in_flight"] <= 3
            three.wait()

    in_threads(30, fly)
    assert (snapshot(budget)["requests"], snapshot(budget)["in_flight"]) == (30, 0)


def test_requests_leave_evenly_at_the_pace(open_budget: Open) -> None:
    budget = open_budget(Limits(max_rps=50))
    start = time.monotonic()
    for _ in range(25):
        settle(budget, None, 200)
    assert 0.45 <= time.monotonic() - start <= 3


def test_the_pace_is_shared_by_threads_and_processes(open_budget: Open) -> None:
    budgets = [open_budget(Limits(max_rps=50)) for _ in range(5)]
    start = time.monotonic()
    waiting = iter(budgets)
    in_threads(5, lambda: [settle(budget, None, 200) for budget in [next(waiting)] for _ in range(5)])
    assert 0.45 <= time.monotonic() - start <= 3


def test_an_idle_time_is_not_caught_up(open_budget: Open) -> None:
    budget = open_budget(Limits(max_rps=20))
    settle(budget, None, 200)
    idle_until = time.monotonic() + 0.4
    wait_until(lambda: time.monotonic() > idle_until)
    start = time.monotonic()
    for _ in range(5):
        settle(budget, None, 200)
    assert time.monotonic() - start >= 0.18


# -- the dead


def test_what_a_killed_process_had_in_flight_comes_back(open_budget: Open, path: Path) -> None:
    budget = open_budget(Limits(max_rps=0, max_in_flight=1))
    kill_with_requests_in_flight(path, 1)
    assert snapshot(budget)["in_flight"] == 1
    settle(budget, None, 200)
    assert snapshot(budget)["in_flight"] == 0


def test_what_a_killed_process_held_of_the_error_limit_comes_back(open_budget: Open, path: Path) -> None:
    budget = open_budget()
    kill_with_requests_in_flight(path, 5)
    settle(budget, "killmail", 200)
    assert snapshot(budget)["in_flight"] == 5
    wait_until(lambda: settle(budget, "killmail", 200) or snapshot(budget)["in_flight"] == 0, 10, "what it held")


def test_after_a_death_a_new_answer_must_tell_what_is_left_of_the_errors(open_budget: Open, path: Path) -> None:
    # Given a process that dies with requests on their way, each of which may have been answered with an error
    budget = open_budget(Limits(max_rps=0, max_in_flight=200))
    settle(budget, None, 200, **errors(100, 60))
    with budget.request(route_of(None)) as old:
        kill_with_requests_in_flight(path, 50)
        wait_until(lambda: settle(budget, "killmail", 200) or snapshot(budget)["in_flight"] == 1, 5.0, "what it held")
        # Then an answer that may be from before tells nothing
        old.status, old.headers = 200, {"X-Esi-Error-Limit-Remain": "100", "X-Esi-Error-Limit-Reset": "58"}

    def room() -> float:
        with budget.shared.locked():
            return budget.errors.room(clock.monotonic())

    assert room() == 5
    settle(budget, None, 404, **errors(49, 58))
    assert room() == 39


def test_what_a_killed_process_may_have_used_is_used_until_an_answer_tells_better(open_budget: Open, path: Path) -> None:
    # Given that all which may fail is on its way when its process dies
    budget, began = open_budget(Limits(max_rps=0, max_in_flight=200)), clock.monotonic()
    settle(budget, None, 200, **errors(74, 60))
    kill_with_requests_in_flight(path, 64)
    wait_until(lambda: settle(budget, "killmail", 200) or snapshot(budget)["in_flight"] == 0, 5.0, "what it held")
    # Then nothing asks what is left before the next window: the reserve is for others
    with pytest.raises(Held) as held, budget.request(route_of(None)):
        pass
    assert 60 - (clock.monotonic() - began) <= held.value.wait_s <= 62


def test_a_new_process_with_the_number_of_a_dead_one_does_not_inherit_its_requests(open_budget: Open, path: Path) -> None:
    # In a container the first process has the same number after each restart: here ours is written in its place.
    pid = kill_with_requests_in_flight(path, 1)
    numbers = shared.Shared(path)
    with numbers.locked() as state:
        next(slot for slot in state.slots if slot.pid == pid).pid = os.getpid()
    numbers.close()
    budget = open_budget(Limits(max_rps=0, max_in_flight=1))
    settle(budget, None, 200)
    assert snapshot(budget)["in_flight"] == 0


def test_a_closed_budget_gives_its_place_back(path: Path) -> None:
    code = "with budget.request(Route('/x')) as outcome: outcome.status = 200\nbudget.close()\nprint('closed', flush=True)"
    with child(code, path) as process:
        assert process.communicate(timeout=30)[0] == "closed\n"
    numbers = shared.Shared(path)
    with numbers.locked() as state:
        assert [slot.pid for slot in state.slots if slot.pid] == []
    numbers.close()


# -- buckets


def test_the_killmail_bucket_is_known_before_the_first_answer(open_budget: Open) -> None:
    budget = open_budget()
    with budget.request(route_of("killmail")):
        known = bucket(budget, "killmail")
    assert (known["limit"], known["window_s"], known["closed_s"]) == (3600, 900, 0)
    assert (known["available"], known["reserve"]) == (3528, 72)


def test_a_limit_is_learned_from_the_headers(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, "killmail", 200, **tokens("killmail", "120/1m", 118))
    known = bucket(budget, "killmail")
    assert (known["limit"], known["window_s"]) == (120, 60)
    assert known["available"] == int(120 * 0.98) - 2


def test_a_group_that_nobody_knew_is_learned_from_the_headers(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, None, 200, **tokens("alliance", "40/1h", 0))
    assert (bucket(budget, "alliance")["limit"], bucket(budget, "alliance")["window_s"]) == (40, 3600)
    with pytest.raises(Held), budget.request(route_of("alliance")):
        pass


@pytest.mark.parametrize("limit", ["", "120", "120/", "/15m", "many/15m", "120/15", "120/15d", "0/15m", "120/0m", "-5/15m"])
def test_a_limit_that_cannot_be_read_leaves_the_bucket_as_it_is(open_budget: Open, limit: str) -> None:
    budget = open_budget()
    settle(budget, "killmail", 200, **tokens("killmail", limit, 3598))
    assert (bucket(budget, "killmail")["limit"], bucket(budget, "killmail")["window_s"]) == (3600, 900)


def test_what_is_remaining_counts_even_where_somebody_else_spent_it(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, "killmail", 200, **tokens("killmail", "3600/15m", 100))
    assert bucket(budget, "killmail")["available"] == 100 - 72


@pytest.mark.parametrize(("status", "cost"), [(200, 2), (304, 1), (404, 5), (422, 5), (500, 0), (503, 0)])
def test_an_answer_costs_what_ccp_says(open_budget: Open, status: int, cost: int) -> None:
    budget = open_budget()
    for _ in range(20):
        settle(budget, "killmail", status, X_Ratelimit_Group="killmail")
    assert bucket(budget, "killmail")["available"] == 3528 - 20 * cost


def test_a_request_without_an_answer_may_have_cost_the_most(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, "killmail", None)
    assert bucket(budget, "killmail")["available"] == 3528 - 5


def test_a_bucket_never_ends_in_a_429_while_many_threads_hammer(world: World, open_budget: Open) -> None:
    stop = Stop()
    budget = open_budget(stop=stop)
    with FakeEsi(world, buckets={"killmail": (120, 60)}) as esi:
        client = Client(esi.base_url, budget)

        def hammer() -> None:
            while not stop.is_set():
                try:
                    ask_for_ever(client, KILLMAIL, EsiError)
                except Held as held:  # as a worker would: the message waits, and somebody asks again
                    stop.wait(min(held.wait_s, 1.0))
                except Stopping:
                    return

        threads = [threading.Thread(target=hammer) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(esi.log) >= 10, 60, "some requests beyond the burst")
        finally:
            stop.set()
        for thread in threads:
            thread.join(5)
        assert esi.count(status=429) == 0
        assert esi.count(status=422) >= 5
        assert esi.limits.buckets["killmail"].remaining(esi.clock.now()) > 0


def test_a_429_closes_its_own_group_and_no_other(esi: FakeEsi, open_budget: Open) -> None:
    budget = open_budget()
    client = Client(esi.base_url, budget)
    esi.faults.add("/killmails", times=1, status=429, retry_after="30")
    with pytest.raises(Held):
        client.get(KILLMAIL, id=1, argument=HASH)
    with pytest.raises(Held, match="bucket killmail"):
        client.get(KILLMAIL, id=1, argument=HASH)
    assert 29 < bucket(budget, "killmail")["closed_s"] <= 33
    assert client.get(ALLIANCES).is_new
    assert client.get(STATUS).is_new
    assert snapshot(budget)["paused_s"] == 0
    assert esi.count("/killmails") == 1


def test_a_429_without_any_header_closes_the_group_of_its_route(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, "killmail", 429)
    assert 59 < bucket(budget, "killmail")["closed_s"] <= 66
    with budget.request(route_of("status")):
        pass


def test_a_later_429_never_opens_a_group_sooner(open_budget: Open) -> None:
    budget = open_budget()
    with budget.request(route_of("killmail")) as late:
        settle(budget, "killmail", 429, Retry_After="300")
        late.status, late.headers = 429, {"Retry-After": "5"}
    assert bucket(budget, "killmail")["closed_s"] > 290


def test_more_groups_than_there_is_room_for_break_nothing_and_are_said_once(
    open_budget: Open, caplog: pytest.LogCaptureFixture
) -> None:
    budget = open_budget()
    for number in range(BUCKETS + 16):
        with budget.request(Route(f"/{number}")) as outcome:
            outcome.status = 200
            outcome.headers = {"X-Ratelimit-Group": f"group-{number}-{'x' * 40}", "X-Ratelimit-Limit": "100/15m"}
    assert len(snapshot(budget)["buckets"]) == BUCKETS
    settle(budget, f"group-{BUCKETS + 15}", 200)
    assert [record.getMessage() for record in caplog.records] == ["budget.full"]


def test_a_group_with_an_odd_name_can_be_shown(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, None, 200, **tokens("a" + "\xe9" * 16, "100/15m", 98))
    assert snapshot(budget)["buckets"]


DATE = dt.datetime(2026, 9, 27, 22, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [
        ("5", 5.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("900", 900.0),
        ("901", 900.0),
        ("1000000000", 900.0),
        ("9" * 50, 60.0),
        ("-5", 60.0),
        ("1.5", 60.0),
        ("soon", 60.0),
        ("", 60.0),
        ("\xb2", 60.0),
        (None, 60.0),
        (format_datetime(DATE + dt.timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(DATE + dt.timedelta(days=9), usegmt=True), 900.0),
        (format_datetime(DATE - dt.timedelta(seconds=1), usegmt=True), 60.0),
        ("Sun, 27 Sep 2026 22:00:00 +99999999999999999999", 60.0),
    ],
    ids=repr,
)
def test_a_retry_after_is_read_in_all_its_forms(text: str | None, wanted_s: float) -> None:
    headers = {"Date": format_datetime(DATE, usegmt=True)}
    assert retry_after_s(headers if text is None else headers | {"Retry-After": text}) == wanted_s


def test_a_retry_after_with_a_date_and_no_clock_of_esi_goes_by_ours() -> None:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    assert 97 <= retry_after_s({"Retry-After": format_datetime(until, usegmt=True)}) <= 100


# -- the file


def test_a_snapshot_says_what_is_in_force(open_budget: Open) -> None:
    budget = open_budget(Limits(max_rps=50, max_in_flight=64, error_reserve=10))
    settle(budget, None, 304, **errors(97, 30))
    settle(budget, None, 404, **errors(96, 30))
    got = snapshot(budget)
    assert 29 <= got.pop("error_reset_s") <= 30
    assert got == {
        "paused_s": 0.0,
        "error_limit": 100,
        "error_remain": 96,
        "error_reserve": 10,
        "in_flight": 0,
        "waiting": 0,
        "max_rps": 50,
        "max_in_flight": 64,
        "rps": 0.03,
        "requests": 2,
        "errors": 1,
        "not_modified": 1,
        "members": 1,
        "breaker": {"state": "closed", "open_s": 0.0, "routes": []},
        "buckets": [],
    }


def test_a_snapshot_of_a_bucket_says_what_is_in_force(open_budget: Open) -> None:
    budget = open_budget()
    settle(budget, "killmail", 200)
    assert bucket(budget, "killmail").keys() == {
        "group", "limit", "window_s", "available", "reserve", "waiting", "closed_s",
    }  # fmt: skip


def test_all_who_share_the_file_see_one_budget(open_budget: Open) -> None:
    one, other = open_budget(), open_budget()
    settle(one, None, 404, **errors(50, 30))
    settle(one, "killmail", 429, Retry_After="100", **tokens("killmail", "3600/15m", 0))
    assert snapshot(other)["error_remain"] == 50
    assert bucket(other, "killmail")["closed_s"] > 99


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\x01\x80" * (SIZE // 2), b"\xff" * (2 * SIZE),
     b"esid-budget-1 another-boot".ljust(SIZE, b"\x7f")],
    ids=["empty", "short", "random", "long", "another boot"],
)  # fmt: skip
def test_a_file_of_another_boot_or_of_garbage_is_begun_anew(open_budget: Open, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    budget = open_budget()
    assert snapshot(budget)["error_remain"] == 100
    assert snapshot(budget)["buckets"] == []
    is_garbage = content and not content.startswith(b"esid-budget-")
    # Nobody knows what was spent where there is garbage
    assert round(snapshot(budget)["paused_s"]) == (60 if is_garbage else 0)
    if not is_garbage:
        settle(budget, None, 200)


def test_nobody_else_may_read_or_write_the_file(open_budget: Open, path: Path) -> None:
    open_budget()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["missing/budget", "."], ids=["no such directory", "a directory"])
def test_a_file_that_cannot_be_opened_is_refused_with_the_cure(tmp_path: Path, place: str) -> None:
    with pytest.raises(NotPermitted, match="ESID_DATA_DIR"):
        Budget(tmp_path / place, FREE)
