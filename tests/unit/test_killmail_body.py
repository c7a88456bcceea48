"""The quick way of reading a killmail accepts what the slow one accepts, and gives the same rows."""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import json
import random
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esid.entities import killmail_body, killmail_shape
from esid.entities.killmail_body import Body, read
from esid.errors import BadField
from tests.fake_feed import generate
from tests.tools.daemon import ROOT

REAL = ROOT.parent / "shared" / "esi" / "killmails"
DAY = dt.date(2026, 11, 24)
MAILS = generate(130_000_001, 41, DAY)
WRONG: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    1.0,
    "7",
    "",
    [],
    {},
    2**63,
    -(2**63) - 1,
    1e308,
    "2026-11-24T00:00:00",
]


def outcome(value: Any) -> Body | str:
    """The rows, or what is wrong."""
    try:
        return read(7, "a" * 40, value)
    except BadField as error:
        return str(error)


def slowly(value: Any, monkeypatch: pytest.MonkeyPatch) -> Body | str:
    """The same field by field."""
    with monkeypatch.context() as patch:
        patch.setattr(killmail_body, "of_value", lambda _: None)
        return outcome(value)


def types(body: Any) -> list[list[type]]:
    """The type of every value: 1, 1.0 and True are equal."""
    return [list(map(type, row)) for row in (body.killmail, *body.attackers, *body.items)]


def test_generated_killmails_are_read_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for mail in generate(130_000_001, 300, DAY):
        found = outcome(mail.body)
        assert isinstance(found, Body)
        assert found == slowly(mail.body, monkeypatch)
        assert types(found) == types(slowly(mail.body, monkeypatch))


@pytest.mark.heavy
@pytest.mark.skipif(not REAL.exists(), reason="real killmails lie beside the project's own files")
def test_real_killmails_are_read_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(REAL / "killmails-2021-12-03.tar.bz2", "r|bz2") as tar:
        members = (tar.extractfile(member).read() for member in tar)  # type: ignore[union-attr]
        values = [json.loads(content) for content in itertools.islice(members, 0, None, 5)]
    # The quick way would be of no use if real killmails did not take it; about one in a hundred has an item in another.
    assert sum(killmail_shape.of_value(value) is not None for value in values) > 0.98 * len(values)
    for path in (REAL / "edge").glob("*.json"):
        loaded = json.loads(path.read_bytes())
        values += loaded if isinstance(loaded, list) else [loaded]
    for value in values:
        assert outcome(value) == slowly(value, monkeypatch)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value that can be changed."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, member in members for found in [(*path, key), *places(member, (*path, key))]]


@pytest.mark.heavy
@settings(max_examples=150)
@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_changed_killmail_is_refused_or_read_the_same_both_ways(number: int, rng: random.Random) -> None:
    value = copy.deepcopy(MAILS[number].body)
    for _ in range(rng.randrange(1, 4)):
        *path, last = rng.choice(places(value))
        target = value
        for step in path:
            target = target[step]
        if rng.random() < 0.3 and isinstance(target, dict):
            del target[last]
        else:
            target[last] = rng.choice(WRONG)
        if not places(value):
            break
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert outcome(value) == slowly(value, monkeypatch)


def test_nobody_is_among_the_people_of_a_killmail_without_any() -> None:
    body = {
        "attackers": [{"damage_done": 0, "final_blow": True, "security_status": 0}],
        "killmail_time": "2008-02-14T23:25:07Z",
        "solar_system_id": 30_000_142,
        "victim": {"damage_taken": 0, "ship_type_id": 670},
    }
    found = read(7, "a" * 40, body)
    assert found.seen() == []
    assert set(found.people()) == {(None, None, None)}


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["attackers", "items", "items in items"])
def test_a_killmail_of_an_implausible_size_is_refused_and_makes_nobody_known(what: str) -> None:
    attacker = {"damage_done": 1, "final_blow": False, "security_status": 0.0, "character_id": 90_000_001}
    item = {"flag": 5, "item_type_id": 34, "singleton": 0}
    attackers = [attacker] * (60_000 if what == "attackers" else 1)
    items: list[dict[str, Any]] = [item] * (60_000 if what == "items" else 1)
    if what == "items in items":
        items = [item | {"items": [item] * 30_000}]
    victim = {"damage_taken": 1, "ship_type_id": 587, "position": {"x": 0.0, "y": 0.0, "z": 0.0}, "items": items}
    value = {
        "killmail_id": 1, "killmail_time": "2026-01-01T00:00:00Z", "solar_system_id": 30_000_001, "attackers": attackers,
        "victim": victim,
    }  # fmt: skip
    with pytest.raises(BadField, match=r"killmail 1: field '(attackers|items)' has the value '(6|3)0,00\d of them"):
        read(1, "0" * 40, value)
