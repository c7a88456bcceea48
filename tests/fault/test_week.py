"""A week with everything that goes wrong now and then, once a day: the tables equal the world at the end of each day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esid.store import migrate
from esid.store.connection import Store
from tests.fault.week import Week

Begin = Callable[[str], Week]


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open database of each kind with the schema in it."""
    opened = Store(database_url, pool_size=2)
    migrate.migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def begin(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Makes a week from its seed."""
    made: list[Week] = []

    def make(seed: str) -> Week:
        made.append(Week(store, tmp_path, seed, monkeypatch))
        return made[-1]

    yield make
    for week in made:
        print(week.troubles.told(), dict(week.kills))
        week.close()


@pytest.mark.parametrize("seed", ["1"])
def test_a_day_in_which_everything_goes_wrong_ends_with_the_tables_equal_to_the_world(begin: Begin, seed: str) -> None:
    begin(seed).run(1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", ["1", "2", "3", "4", "5"])
def test_a_week_in_which_everything_goes_wrong_daily(begin: Begin, seed: str) -> None:
    begin(seed).run(7, quiet=2)
