"""Alliances, characters and killmails that answer 500 for days, alone and in a batch: see `test_sick_ids`."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest

from esid import clock
from esid.errors import DAY_S, EsiUnavailable
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import utc_text
from tests.fake_esi import FakeEsi, Request, World
from tests.tools import mirror
from tests.tools.aging import age
from tests.tools.daemon import Daemon, Make
from tests.tools.machine import MOOD_S
from tests.tools.waiting import wait_until

#: Entity -> which ids are there, whole.
THERE = {
    "alliance": "SELECT id FROM alliances",
    "corporation": "SELECT id FROM corporations",
    "character": "SELECT id FROM characters WHERE birthday IS NOT NULL AND corporation_id IS NOT NULL",
    "killmail": "SELECT id FROM killmails",
}
#: Waits between two attempts are cut, so that ten of them end within a test; those of a quick one more.
PATIENT = "esid.queue.attempts:LONGEST_WAIT_S=20"
HASTY = "esid.queue.attempts:LONGEST_WAIT_S=0.2;esid.esi.budget.budget:RETRY_EVERY_S=0.2"
_KILLMAIL = {
    "killmail_time": "2007-12-05T13:37:00Z",
    "solar_system_id": 30000142,
    "attackers": [{"damage_done": 0, "final_blow": True, "security_status": 0.0}],
    "victim": {"ship_type_id": 670, "damage_taken": 0},
}
#: Ids that are asked for at a time, and how many of them are sick.
SIZES = [pytest.param(60, 1, id="1 of 60")]
SIZES += [
    pytest.param(400, sick, id=f"{sick} of 400", marks=[pytest.mark.long, pytest.mark.timeout(1800)])
    for sick in (1, 3, 8, 40)
]


@pytest.fixture
def world() -> World:
    """A thousand of each kind but corporations."""
    made = World.generate(alliances=1000, corporations=60, characters=1200, npc_corporations=2)
    made.killmails = {(key, f"a{key:039x}"): {**_KILLMAIL, "killmail_id": key} for key in range(1, 1001)}
    return made


@pytest.fixture
def esi(world: World) -> Iterator[FakeEsi]:
    """ESI with room for all killmails at once: of its own bucket a quarter goes in one burst, who is sick or not."""
    with FakeEsi(world, buckets={"killmail": (1_000_000, 900)}) as server:
        yield server


def names(world: World, entity: str) -> list[str]:
    """Everything of one kind, as it is asked for."""
    if entity == "killmail":
        return [f"{key}:{hash_}" for key, hash_ in world.killmails]
    return [str(key) for key in getattr(world, f"{entity}s")]


def id_of(name: str) -> int:
    """The id of what is asked for."""
    return int(name.partition(":")[0])


def lone(make_daemon: Make, entity: str, patch: str = HASTY) -> Daemon:
    """A daemon that asks as fast as it can, for nothing but what the test asks for."""
    kinds = ("ALLIANCES", "CORPORATIONS", "CHARACTERS", "KILLMAILS", "AFFILIATIONS")
    off = {f"ESID_SCHEDULE_{kind}": "off" for kind in kinds}
    daemon = make_daemon(hooks={"ESID_TEST_PATCH": patch}, ESID_PROCESSES="2", ESID_THREADS="8", **off)
    return daemon.start("--actors", entity)


def there(store: Store, entity: str, keys: Collection[int]) -> int:
    """How many of these are in the tables."""
    with store.connection():
        return len(set(keys) & {key for (key,) in store.rows(THERE[entity])})


def ids_of(request: Request) -> set[int]:
    """What is asked about."""
    return {*request.ids, *(int(part) for part in request.path.split("/") if part.isdecimal())}


def took_s(
    daemon: Daemon, esi: FakeEsi, store: Store, entity: str, asked: Sequence[str], sick: Collection[int] = ()
) -> float:
    """Seconds from the first request until all ids that are well are there."""
    wanted = set(map(id_of, asked))
    well, before = wanted - set(sick), len(esi.log)
    daemon.ok("enqueue", entity, "-", stdin="\n".join(asked))
    wait_until(
        lambda: there(store, entity, well) == len(well), 150, lambda: f"{there(store, entity, well)}\n{daemon.log[-4000:]}"
    )
    return esi.clock.now() - min(one.at for one in esi.log[before:] if not wanted.isdisjoint(ids_of(one)))


def assert_given_up(daemon: Daemon, store: Store, entity: str, sick: set[int], deadline_s: float) -> None:
    """They and nobody else are dead letters, each with the time at which it is asked again."""

    def letters() -> list[dead_letters.DeadLetter]:
        return dead_letters.find(store, Filter(entities=(entity,)))

    wait_until(
        lambda: len(letters()) >= len(sick), deadline_s, lambda: f"{len(letters())}\n{daemon.log[-4000:]}", every_s=1.0
    )
    now = clock.now()
    listed = json.loads(daemon.ok("dead", "list", "--json"))
    # The list of an alliance's corporations is asked for by its id, too.
    lists = {("alliance_corporations", key) for key in sick}
    assert {(one["entity_type"], one["entity_id"]) for one in listed} - lists == {(entity, key) for key in sick}
    for one in listed:
        assert (one["reason"], one["answer_status"], one["attempts"]) == ("unavailable", 500, EsiUnavailable.max_attempts)
        assert now < dt.datetime.fromisoformat(one["again_at"]) <= now + dt.timedelta(seconds=DAY_S), one


def assert_nobody_is_away(daemon: Daemon, esi: FakeEsi) -> None:
    """No line says so, and ESI's limits were kept."""
    assert ".away" not in daemon.log, daemon.log
    assert esi.count(status=420) == 0
    assert esi.count(status=429) == 0


@pytest.mark.parametrize(("size", "count"), SIZES)
@pytest.mark.parametrize("entity", ["alliance", "character", "killmail"])
@pytest.mark.takes_turns("entity")
def test_nobody_waits_for_what_is_sick(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, entity: str, size: int, count: int
) -> None:
    # Given a daemon that has some, and is asked for as many more, of which some are sick
    is_quick = size < 100
    asked = names(world, entity)
    daemon = lone(make_daemon, entity, HASTY if is_quick else PATIENT)
    without_s = took_s(daemon, esi, store, entity, asked[:size])
    world.sick_ids = set(map(id_of, random.Random(count).sample(asked[size : 2 * size], count)))
    with_s = took_s(daemon, esi, store, entity, asked[size : 2 * size], world.sick_ids)
    # and, when nothing but them has been asked for a while, for more that are well
    wait_until(lambda: esi.count(status=500) >= max(6, 2 * count), 100, lambda: daemon.log)
    then_s = took_s(daemon, esi, store, entity, asked[2 * size : 2 * size + size // 4])

    # Then those that are well take as long as ever, nobody says that ESI is away, and the sick ones are asked again
    print(f"{entity} {size} {count}: {without_s:.1f} {with_s:.1f} {then_s:.1f}; 500: {esi.count(status=500)}")
    assert max(with_s, then_s) < 1.1 * without_s + MOOD_S
    assert_given_up(daemon, store, entity, world.sick_ids, 1200)
    assert_nobody_is_away(daemon, esi)


@pytest.mark.parametrize("size", [60, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("path", ["/characters/affiliation", "/universe/names"])
@pytest.mark.takes_turns("path")
def test_one_id_that_spoils_a_batch_keeps_nobody_waiting_and_is_there_itself(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, path: str, size: int
) -> None:
    # Given an id whose details can be had, though one bulk route answers 500 to each batch with it
    asked = names(world, "character")
    daemon = lone(make_daemon, "character")
    without_s = took_s(daemon, esi, store, "character", asked[:100])
    part = asked[100 : 100 + size]
    world.sick_at[path] = {id_of(part[size // 3])}
    with_s = took_s(daemon, esi, store, "character", part)

    # Then all of the batch are there as soon as without it, itself too; it has cost a few requests, and no batch more
    print(f"{path} {size}: {without_s:.1f} {with_s:.1f}; {esi.count(path)} posts")
    assert with_s < 1.1 * without_s * size / 100 + MOOD_S
    assert esi.count(path, status=500) <= 15
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
    assert_nobody_is_away(daemon, esi)
    failed = esi.count(path, status=500)
    age(store, DAY_S + 10)
    esi.clock.advance(DAY_S + 10)
    daemon.ok("enqueue", "character", "-", stdin="\n".join(part))
    wait_until(lambda: not ledger.open_count(store, ["character"]), 60, lambda: daemon.log[-4000:])
    assert esi.count(path, status=500) == failed


@pytest.mark.parametrize(
    ("size", "count"),
    [
        pytest.param(60, 2, id="2 of 60"),
        pytest.param(400, 8, id="8 of 400", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
@pytest.mark.parametrize("entity", ["alliance", "corporation", "character"])
@pytest.mark.takes_turns("entity")
def test_what_was_well_and_becomes_sick_is_asked_again_and_is_right_when_it_is_well(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, entity: str, size: int, count: int
) -> None:
    # Given known ones whose answers are old, of a world that has changed, and some of them sick
    asked = names(world, entity)[:size]
    daemon = lone(make_daemon, entity)
    took_s(daemon, esi, store, entity, asked)
    wait_until(lambda: not ledger.open_count(store, [entity]), 60, lambda: daemon.log[-4000:])
    for number, name in enumerate(asked):
        getattr(world, f"{entity}s")[id_of(name)]["name"] = f"new {number}"
    age(store, DAY_S + 10)
    esi.clock.advance(DAY_S + 10)
    world.sick_ids = set(map(id_of, random.Random(count).sample(asked, count)))
    daemon.ok("enqueue", entity, "-", stdin="\n".join(asked))

    # Then the others are as they are now, and those have a time at which they are asked again, all the while
    well = [id_of(name) for name in asked if id_of(name) not in world.sick_ids]
    wait_until(lambda: not differing(store, world, entity, well), 60, lambda: daemon.log[-4000:])
    for key in world.sick_ids:
        job = ledger.job(store, entity, key)
        assert job
        assert job["due_at"] or job["next_at"] or job["status"] in ledger.OPEN, job
    assert_given_up(daemon, store, entity, world.sick_ids, 300)
    assert_nobody_is_away(daemon, esi)

    # And when they are well, and their time has come, nothing is left of it
    world.sick_ids = set()
    later(store)
    daemon.ok("sync", f"{entity}s")
    wait_until(
        lambda: not differing(store, world, entity, map(id_of, asked)) and not dead_letters.find(store, Filter()),
        60,
        lambda: daemon.log[-4000:],
    )


def differing(store: Store, world: World, entity: str, keys: Any) -> list[int]:
    """Ids whose rows are not as in the world."""
    model = {one.__name__.lower(): one for one in (mirror.Alliance, mirror.Corporation, mirror.Character)}[entity]
    found, wanted = mirror.table(store, model), getattr(mirror, f"{entity}s")(world)
    return [key for key in keys if found.get(key) != wanted[key]]


def later(store: Store) -> None:
    """The time of those that failed has come."""
    sql = "UPDATE sync_jobs SET next_at = %s WHERE status = 'failed'"
    store.run(lambda: store.rows(sql, (utc_text(clock.now()),)))
