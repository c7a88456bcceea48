"""Each route has a circuit of its own and a limit that its answers tell, however many routes esid declares."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import esid
from esid import settings
from esid.assembly import core
from esid.entities import ROUTES
from esid.entities.base import Entity
from esid.errors import EsidError
from esid.esi.budget import Budget, Limits, Subject
from esid.esi.budget.breaker import FAILURES
from esid.esi.budget.layout import BUCKETS, CIRCUITS, named
from esid.esi.budget.view import snapshot
from esid.esi.routes import GROUPS, HIDDEN, STATUS, Route

FREE = Limits(max_rps=0)
Open = Callable[..., Budget]


@pytest.fixture
def open_budget(tmp_path: Path) -> Iterator[Open]:
    """Opens the budget as a process of the daemon does that asks these routes."""
    opened: list[Budget] = []

    def make(routes: Sequence[Route] = ()) -> Budget:
        opened.append(Budget(tmp_path / "budget", FREE, routes=routes))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def routes(number: int, version: str = "v1") -> list[Route]:
    """So many routes of one version of esid."""
    return [Route(f"/{version}/{one}/{{id}}") for one in range(number)]


def answer(budget: Budget, route: Route, group: str) -> None:
    """One good answer that names a rate group."""
    with budget.request(route) as outcome:
        outcome.status, outcome.headers = 200, {"X-Ratelimit-Group": group, "X-Ratelimit-Limit": "600/15m"}


def fail(budget: Budget, route: Route) -> None:
    """So many failures that the route is away, while another one is answered."""
    for number in range(FAILURES):
        with budget.request(STATUS) as outcome:
            outcome.status = 200
        with budget.request(route, subject=Subject(f"{route.path} {number}")) as outcome:
            outcome.status, outcome.failed = 502, "HTTP 502"


def declared() -> set[Route]:
    """Every route that stands in a module of esid."""
    found = set()
    for module in pkgutil.walk_packages(esid.__path__, "esid."):
        if not module.name.endswith("__main__"):
            for one in vars(importlib.import_module(module.name)).values():
                found |= {one} if isinstance(one, Route) else {one.route} if isinstance(one, Entity) else set()
    return found


def test_every_route_of_esid_is_declared_once_and_has_a_name_of_its_own() -> None:
    assert set(ROUTES) == declared()
    assert len({route.path.encode()[:63] for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("asked", [ROUTES, routes(120), routes(CIRCUITS - 1)], ids=["of esid", "120", "most"])
def test_each_route_has_a_circuit_of_its_own_and_learns_its_group_from_its_answers(
    open_budget: Open, asked: Sequence[Route]
) -> None:
    budget = open_budget(asked)
    groups = {route: f"group-{number % 50}" for number, route in enumerate(asked)}
    for route in asked:
        answer(budget, route, groups[route])
    with budget.shared.locked():
        circuits = {budget.breaker.number(route.path) for route in asked}
        learned = {route: budget.buckets.name(budget._kind(route)) for route in asked}
    assert len(circuits) == len(asked)
    assert 0 not in circuits
    assert learned == groups


def test_the_last_of_very_many_routes_can_be_away_alone(open_budget: Open) -> None:
    asked = [STATUS, *routes(CIRCUITS - 2)]
    budget = open_budget(asked)
    fail(budget, asked[-1])
    assert snapshot(budget)["breaker"] == {"state": "closed", "open_s": 0.0, "routes": [asked[-1].path]}


def test_one_route_too_many_ends_the_start_and_says_what_to_do(open_budget: Open) -> None:
    with pytest.raises(EsidError, match=rf"declares {CIRCUITS} routes .* room for {CIRCUITS - 1}: raise CIRCUITS"):
        open_budget(routes(CIRCUITS))


def test_a_daemon_declares_all_routes_of_esid_at_its_start(tmp_path: Path) -> None:
    budget = core.open_budget(settings.read({"ESID_DATA_DIR": str(tmp_path)}))
    with budget.shared.locked() as state:
        assert {one.name.decode() for one in named(state.circuits[1:])} == {route.path for route in ROUTES}
    budget.close()


def test_routes_that_an_older_version_asked_make_room(open_budget: Open) -> None:
    # Given a file that an older version has filled, and a newer one that asks some of its routes and many others
    kept, new = routes(20), routes(100, "v2")
    old = open_budget(routes(CIRCUITS - 1))
    for route in kept:
        answer(old, route, "kept")
    budget = open_budget([*kept, *new])
    # Then each of them has a circuit, and those that stay know what they knew
    for route in new:
        answer(budget, route, "new")
    with budget.shared.locked():
        assert {budget.buckets.name(budget._kind(route)) for route in kept} == {"kept"}
        assert {budget.buckets.name(budget._kind(route)) for route in new} == {"new"}


def test_a_route_that_nobody_declared_is_refused_where_there_is_no_room(open_budget: Open) -> None:
    budget = open_budget(routes(CIRCUITS - 1))
    with pytest.raises(LookupError, match="no room for the route /another"), budget.request(Route("/another")):
        pass


def test_all_groups_and_hidden_limits_of_the_table_have_room_beside_as_many_that_answers_tell_of() -> None:
    assert 2 * (len(GROUPS) + len(HIDDEN)) <= BUCKETS


def calls(budget: Budget, route: Route, group: str) -> int:
    """How many functions one request calls."""
    count = 0

    def look(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(look)
    try:
        answer(budget, route, group)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("hidden", [None, "market-history"])
def test_a_request_costs_the_same_however_many_routes_and_groups_there_are(
    open_budget: Open, times: list[float], hidden: str | None
) -> None:
    budget = open_budget()
    first, last = Route("/first", hidden=hidden), Route("/last", group="killmail", hidden=hidden)
    answer(budget, first, "first")
    few = calls(budget, first, "first")
    for number, route in enumerate(routes(100)):
        answer(budget, route, f"group-{number % 60}")
    answer(budget, last, "killmail")
    assert calls(budget, last, "killmail") == calls(budget, first, "first") == few
