"""The budget's file: whoever spoils or deletes it, and whatever answers say, one budget is spent and none is lost."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esid import clock
from esid.errors import Held
from esid.esi.budget import Budget, Limits, Outcome, Ticket, Wait
from esid.esi.budget.layout import SIZE, State
from esid.esi.budget.view import snapshot
from esid.esi.headers import LONGEST_WAIT_S, LONGEST_WINDOW_S
from esid.esi.routes import Route
from tests.tools.daemon import ROOT
from tests.tools.namespaces import IN_A_NAMESPACE, as_root
from tests.tools.waiting import wait_until

FREE = Limits(max_rps=0)
ROUTE, KILLMAIL = Route("/corporations/{id}"), Route("/killmails/{id}/{argument}", group="killmail")
Open = Callable[..., Budget]
HOLDS = """
import os, sys, time
from pathlib import Path
from esid.esi.budget import Budget, Limits
from esid.esi.routes import Route
budget = Budget(Path(sys.argv[1]), Limits(max_rps=0))
begun = [budget.request(Route("/x")) for _ in range(int(sys.argv[2]))]
for one in begun: one.__enter__()
if "fork" in sys.argv and os.fork() == 0:
    os.close(1)
    time.sleep(60)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the shared file of this test is."""
    return tmp_path / "budget"


@pytest.fixture
def open_budget(path: Path) -> Iterator[Open]:
    """Opens the shared file as another process would."""
    opened: list[Budget] = []

    def make(limits: Limits = FREE, **more: Any) -> Budget:
        opened.append(Budget(path, limits, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def ask(budget: Budget, route: Route = ROUTE, **headers: str) -> None:
    """One request that ends well."""
    with budget.request(route) as outcome:
        outcome.status, outcome.headers = 200, {name.replace("_", "-"): value for name, value in headers.items()}


def holding(path: Path, number: int, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A process with so many requests on their way."""
    command = [*before, sys.executable, "-c", HOLDS, str(path), str(number), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Kill it."""
    with process:
        process.kill()


def in_flight_after_looks(budget: Budget, seconds: float) -> int:
    """What is on its way after others have looked for the dead for so long."""
    until = clock.monotonic() + seconds
    wait_until(lambda: ask(budget) or clock.monotonic() > until, seconds + 5, "some looks")
    return int(snapshot(budget)["in_flight"])


# -- who lives


@as_root
def test_what_a_process_of_another_container_has_in_flight_is_in_flight_until_it_ends(open_budget: Open, path: Path) -> None:
    budget = open_budget()
    one = holding(path, 3, before=tuple(IN_A_NAMESPACE))
    assert in_flight_after_looks(budget, 2.5) == 3
    end(one)
    wait_until(lambda: ask(budget) or snapshot(budget)["in_flight"] == 0, 5, "the end of the dead")


def test_without_a_free_descriptor_nobody_is_taken_for_dead(open_budget: Open, path: Path) -> None:
    budget, one = open_budget(), holding(path, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        found = in_flight_after_looks(budget, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == 3
    end(one)


def test_a_process_that_was_forked_keeps_nothing_of_a_dead_one(open_budget: Open, path: Path) -> None:
    budget, one = open_budget(), holding(path, 2, "fork")
    end(one)
    try:
        wait_until(lambda: ask(budget) or snapshot(budget)["in_flight"] == 0, 5, "the end of the dead")
    finally:
        os.killpg(one.pid, 9)


def test_what_was_found_without_a_lock_and_has_one_again_is_not_freed(open_budget: Open, path: Path) -> None:
    budget, one = open_budget(), holding(path, 2)
    with budget.shared.locked() as state:
        slot = next(slot for slot in state.slots if slot.in_flight == 2)
        slot.dead_at = clock.monotonic() - 60
    assert in_flight_after_looks(budget, 1.0) == 2
    end(one)


# -- the file itself


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_taken_away_is_one_budget_again_within_a_second_and_closed_for_a_window(
    open_budget: Open, path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    one, other = open_budget(), open_budget()
    ask(one, KILLMAIL)
    path.unlink()
    # A process that was replaced meanwhile knows that the file was there
    third = open_budget(is_known=True)
    if how == "replaced":
        path.with_name("new").write_bytes(b"")
        path.with_name("new").rename(path)
        now[0] += 1.1
    with pytest.raises(Held):
        ask(third)
    now[0] += 1.1
    for budget in (one, other, third):
        with pytest.raises(Held) as held:
            ask(budget)
        assert 50 < held.value.wait_s <= 60
    assert len({bytes(budget.shared.state.file) for budget in (one, other, third)}) == 1
    now[0] += 61
    for budget in (one, other, third):
        ask(budget)
        ask(budget, KILLMAIL)
    assert snapshot(other)["requests"] == 6


def test_an_answer_that_was_asked_for_by_a_file_that_is_gone_changes_nothing(
    open_budget: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    budget = open_budget()
    with budget.request(KILLMAIL) as outcome:
        path.unlink()
        now[0] += 1.1
        outcome.status, outcome.headers = 200, {"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": "10/15m"}
    assert snapshot(budget)["buckets"] == []
    assert (snapshot(budget)["in_flight"], snapshot(budget)["requests"]) == (0, 0)


def test_a_directory_that_is_gone_lets_nothing_leave(open_budget: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    budget = open_budget()
    path.unlink()
    path.parent.chmod(0o500)
    path.parent.rename(path.parent.with_name("elsewhere"))
    now[0] += 1.1
    with budget.shared.locked() as state:
        assert isinstance(budget.admit(ROUTE, 0, now[0]), Wait)
        assert 0 < state.paused_until - now[0] <= 2
    path.parent.with_name("elsewhere").rename(path.parent)


def spoil(path: Path, offset: int, data: bytes) -> None:
    """Write into the file, as somebody else would."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def check_that_it_goes_on(budget: Budget, now: list[float]) -> None:
    """Units of work hear of nothing but a hold, and within a window something leaves again."""
    ends_at = now[0] + 1.2 * LONGEST_WAIT_S
    for route in (ROUTE, KILLMAIL):
        leave: Ticket | Wait | None = None
        while not isinstance(leave, Ticket):
            try:
                with budget.shared.locked():
                    leave = budget.admit(route, 0, now[0])
                    if isinstance(leave, Ticket):
                        outcome = Outcome()
                        outcome.status = 200
                        budget.settle(leave, outcome, now[0])
            except Held as held:
                leave = Wait(held.wait_s, held.reason)
            assert now[0] < ends_at, leave
            now[0] += 0.5 if isinstance(leave, Ticket) else min(max(leave.seconds, 0.5), 60.0)


@pytest.mark.heavy
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1, 4, 8, 200, 5000, SIZE]))
@example(seed=1, size=SIZE)
def test_garbage_at_any_place_raises_nothing_and_closes_for_no_longer_than_a_window(
    tmp_path: Path, seed: int, size: int
) -> None:
    dice, now, patch = random.Random(seed), [clock.monotonic()], pytest.MonkeyPatch()
    patch.setattr(clock, "monotonic", lambda: now[0])
    path = tmp_path / str(seed)
    budget = Budget(path, FREE)
    try:
        ask(budget, KILLMAIL)
        ask(budget)
        # Mostly where something stands
        named = [part.offset + dice.randrange(3000) for part in (State.buckets, State.circuits)]
        offset = dice.choice([dice.randrange(SIZE), dice.randrange(1500), *named])
        spoil(path, min(offset, SIZE - size), dice.randbytes(size))
        check_that_it_goes_on(budget, now)
    finally:
        patch.undo()
        budget.close()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("slots_end", 10**6), ("slots_end", 0), ("next_start", 1e12), ("paused_until", 1e12), ("paused_until", float("nan")),
     ("window_ends", float("inf")), ("errors_left", 3.0), ("errors_used", 1e9), ("exchanged_at", 1e12)],
)  # fmt: skip
def test_numbers_that_cannot_be_true_are_begun_anew(
    open_budget: Open, monkeypatch: pytest.MonkeyPatch, field: str, value: float
) -> None:
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    budget = open_budget()
    ask(budget, KILLMAIL)
    file = bytes(budget.shared.state.file)
    setattr(budget.shared.state, field, value)
    now[0] += 1.1
    with pytest.raises(Held):
        ask(budget)
    assert budget.shared.state.file != file
    now[0] += 60
    ask(budget)


@pytest.mark.parametrize(
    ("other_boot", "pause_s", "closed_s"), [(False, 0, 60), (False, 40, 60), (True, 0, 0), (True, 40, 40)]
)
def test_the_file_of_another_version_is_begun_anew_and_no_request_leaves_too_many(
    open_budget: Open, path: Path, other_boot: bool, pause_s: int, closed_s: int
) -> None:
    # Given a file of another format, whose numbers this version cannot read, but for a pause
    budget = open_budget()
    with budget.shared.locked() as state:
        state.paused_until_wall = clock.now().timestamp() + pause_s if pause_s else 0.0
        boot = b"0" * 36 if other_boot else state.boot.rpartition(b" ")[2]
    spoil(path, 0, b"esid-budget-13 " + boot)
    spoil(path, State.window_ends.offset, b"\x7f" * 5000)
    # Then nothing leaves until the windows are over in which somebody may have spent since this boot
    again = open_budget()
    assert snapshot(again)["paused_s"] == pytest.approx(closed_s, abs=1)
    assert snapshot(again)["error_remain"] == 100
    if not closed_s:
        ask(again)


def test_an_error_of_our_own_in_a_file_that_is_whole_is_told(open_budget: Open) -> None:
    budget = open_budget()
    with pytest.raises(ZeroDivisionError), budget.shared.locked():
        raise ZeroDivisionError


# -- numbers from outside

NUMBERS = st.sampled_from(["0", "1", "4", "5", "60", "100", "3600", "99999999999", "-1", "1e9", "", "x", "9" * 30])
WINDOWS = st.sampled_from(["0s", "1s", "1m", "15m", "24h", "9999999h", "99999999999h", "h", "", "1d"])
NAMES = st.sampled_from(["killmail", "other", "hidden:corporationhistory", "\0", "a\0b", "é" * 50, "x" * 500])
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "X-Ratelimit-Group": NAMES,
        "X-Ratelimit-Limit": st.builds("{}/{}".format, NUMBERS, WINDOWS),
        "X-Ratelimit-Used": NUMBERS,
        "X-Ratelimit-Remaining": NUMBERS,
        "X-Esi-Error-Limit-Remain": NUMBERS,
        "X-Esi-Error-Limit-Reset": NUMBERS,
        "Retry-After": st.one_of(
            NUMBERS, st.sampled_from(["Fri, 31 Dec 9999 23:59:59 -0500", "Sat, 01 Jan 0001 00:00:00 GMT"])
        ),
    },
)


@pytest.mark.heavy
@pytest.mark.parametrize("up_s", [0.0, 584.0, 1e6], ids=["just begun", "ten minutes", "days"])
@settings(max_examples=100)
@given(answers=st.lists(st.tuples(ANSWERS, st.sampled_from([200, 404, 420, 429, 500, None])), min_size=1, max_size=6))
@example(answers=[({"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": "4/15m"}, 200)])
@example(answers=[({"X-Ratelimit-Group": "killmail", "X-Ratelimit-Limit": "1/9999999h"}, 200)])
def test_no_number_of_an_answer_keeps_the_next_request_for_longer_than_a_day(up_s: float, answers: list[Any]) -> None:
    # The monotonic clock counts from the machine's start
    now, patch = [up_s], pytest.MonkeyPatch()
    patch.setattr(clock, "monotonic", lambda: now[0])
    with tempfile.TemporaryDirectory() as directory:
        budget = Budget(Path(directory) / "budget", FREE)
        try:
            for headers, status in answers:
                leave(budget, now, headers, status)
            begun = now[0]
            leave(budget, now, {}, 200)
            # A day, the slice in which it ends, and what is closed beside it
            assert now[0] - begun <= LONGEST_WINDOW_S * 122 / 120 + 2 * LONGEST_WAIT_S
        finally:
            patch.undo()
            budget.close()


def leave(budget: Budget, now: list[float], headers: dict[str, str], status: int | None) -> None:
    """Send one request, as soon as it may leave."""
    for _ in range(500):
        with budget.shared.locked():
            ticket = budget.admit(KILLMAIL, 0, now[0])
        if isinstance(ticket, Ticket):
            break
        now[0] += max(0.05, ticket.seconds)
    assert isinstance(ticket, Ticket), ticket
    now[0] = max(now[0], ticket.leaves_at)
    outcome = Outcome()
    outcome.status, outcome.headers = status, headers
    with budget.shared.locked():
        budget.settle(ticket, outcome, now[0])
