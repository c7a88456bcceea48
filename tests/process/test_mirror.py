"""The whole daemon against a world: whatever the database and the queue, the tables end equal to it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.store import ledger
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.aging import DAY_S, HOUR_S, age
from tests.tools.daemon import ROOT, Daemon
from tests.tools.discovery import reachable
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync

KILLMAILS = ROOT.parent / "shared" / "esi" / "killmails"


@pytest.fixture
def open_store(stack: Stack) -> Iterator[Store]:
    """The database of the daemon, for looking at it."""
    store = Store(stack.database_url, pool_size=2)
    yield store
    store.close()


def stamps(store: Store) -> dict[tuple[str, int], Any]:
    """When each row last changed."""
    with store.connection():
        return {
            (model.__name__, row.id): row.updated_at
            for model in (Alliance, Corporation, Character)
            for row in model.select(model.id, model.updated_at)
        }


def test_a_world_ends_in_the_tables_by_itself(daemon: Daemon, esi: FakeEsi, world: World, open_store: Store) -> None:
    # Given a world with awkward names, zeros and absent fields, and no setting but the addresses
    daemon.start()

    # When the daemon has started, it syncs by itself
    wait_for_sync(daemon, open_store)

    # Then the tables are the world, and ESI was asked for nothing twice, for nothing early and for nothing in vain
    mirror.assert_equal(open_store, reachable(world))
    assert esi.early() == []
    assert [request for request in esi.log if request.status >= 400] == []
    gets = [request.path for request in esi.requests(method="GET")]
    assert len(gets) == len(set(gets))
    assert daemon.stop() == 0


@pytest.mark.quick_on(STACKS[0])
def test_a_second_start_inside_the_cache_time_asks_nothing(daemon: Daemon, esi: FakeEsi, open_store: Store) -> None:
    daemon.start()
    wait_for_sync(daemon, open_store)
    daemon.stop()
    esi.clear_log()

    # When it starts again and a person asks for a full sync too
    daemon.start()
    assert json.loads(daemon.ok("sync", "all", "--wait", "--json"))["queued"] == {
        "alliance": 0,
        "corporation": 0,
        "character": 0,
    }

    # Then nothing was asked
    assert esi.log == []


def test_after_expiry_everything_unchanged_is_a_304_or_a_bulk_post(
    daemon: Daemon, esi: FakeEsi, world: World, open_store: Store
) -> None:
    daemon.start()
    wait_for_sync(daemon, open_store)
    before = stamps(open_store)
    requests = len(esi.requests(method="GET"))
    mover = min(mirror.table(open_store, Character))
    world.characters[mover]["alliance_id"] = max(set(world.alliances) - {world.characters[mover].get("alliance_id")})

    # When all answers have expired and one character has moved
    esi.clear_log()
    esi.clock.advance(DAY_S)
    age(open_store, DAY_S)
    daemon.ok("sync", "all", "--wait", timeout_s=90)

    # Then it costs 304s (but for those few that are asked for whole) and bulk posts, and no unchanged row is rewritten
    assert len(esi.requests(method="GET", status=304)) >= 0.8 * requests
    assert {request.status for request in esi.log} <= {200, 304}
    assert len(esi.requests(method="POST")) == 2
    assert esi.early() == []
    mirror.assert_equal(open_store, reachable(world))
    after = stamps(open_store)
    assert [key for key in before if after[key] != before[key]] == [("Character", mover)]


@pytest.mark.quick_on(STACKS[1])
def test_affiliations_are_kept_fresh_in_bulk_alone(daemon: Daemon, esi: FakeEsi, world: World, open_store: Store) -> None:
    daemon.start()
    wait_for_sync(daemon, open_store)
    mover = next(key for key, body in world.characters.items() if body.get("alliance_id"))
    for name in ("alliance_id", "faction_id"):
        world.characters[mover].pop(name, None)

    # When an hour has passed and only characters are synced
    esi.clear_log()
    esi.clock.advance(HOUR_S)
    age(open_store, HOUR_S)
    daemon.ok("sync", "characters", "--wait")

    # Then one POST tells, and a field that went away is NULL
    characters = [request for request in esi.log if "character" in request.path]
    assert [(request.method, request.path) for request in characters] == [("POST", "/characters/affiliation")]
    assert mirror.table(open_store, Character)[mover]["alliance_id"] is None


@pytest.mark.quick_on(STACKS[1])
def test_one_bad_id_fails_no_batch_for_long(daemon: Daemon, esi: FakeEsi, world: World, open_store: Store) -> None:
    # Given a character that has been deleted among many known by id
    world.characters[95_000_001] = dict(next(iter(world.characters.values())))
    world.deleted_characters.add(95_000_001)
    wanted = sorted(world.characters)
    daemon.ok("enqueue", "character", "-", stdin="\n".join(map(str, wanted)))

    # When all are asked in bulk
    daemon.start("--actors", "character")
    wait_for_sync(daemon, open_store, only="character")

    # Then the others are there, the bad one is a dead letter with its reason
    found = mirror.table(open_store, Character)
    assert sorted(found) == [key for key in wanted if key != 95_000_001]
    letters = json.loads(daemon.ok("dead", "list", "--json"))
    assert [(letter["entity_id"], letter["reason"]) for letter in letters] == [(95_000_001, "not_found")]
    assert "deleted" in letters[0]["message"]

    # And it is never asked in a batch again
    esi.clear_log()
    esi.clock.advance(DAY_S)
    age(open_store, DAY_S)
    daemon.ok("sync", "characters", "--wait")
    assert [request for request in esi.requests(method="POST") if 95_000_001 in request.ids] == []
    assert [request for request in esi.requests(method="POST") if request.status != 200] == []


@pytest.mark.quick_on(STACKS[0])
def test_a_closed_alliance_keeps_its_row(daemon: Daemon, esi: FakeEsi, world: World, open_store: Store) -> None:
    daemon.start()
    wait_for_sync(daemon, open_store)
    closed = next(iter(world.alliances))
    world.closed_alliances.add(closed)
    world.alliances[closed].pop("executor_corporation_id", None)
    world.alliance_corporations[closed] = []

    esi.clock.advance(DAY_S)
    age(open_store, DAY_S)
    daemon.ok("sync", "alliances", "--wait")

    row = mirror.table(open_store, Alliance)[closed]
    assert row["executor_corporation_id"] is None
    assert row["name"] == world.alliances[closed]["name"]


def real_killmails(each: int) -> dict[tuple[int, str], dict[str, Any]]:
    """Every `each`th killmail of one real day and every edge case beside it; {} where they are not at hand."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    if not KILLMAILS.exists():
        return found
    with tarfile.open(KILLMAILS / "killmails-2021-12-03.tar.bz2") as archive:
        for member in archive.getmembers()[::each]:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream:
                add_killmail(found, json.load(stream))
    for path in sorted((KILLMAILS / "edge").glob("*.json")):
        add_killmail(found, json.loads(path.read_text(encoding="utf-8")))
    return found


def add_killmail(found: dict[tuple[int, str], dict[str, Any]], loaded: Any) -> None:
    """One file holds a killmail or a list of them; those without a hash get one."""
    for body in loaded if isinstance(loaded, list) else [loaded]:
        key = body["killmail_id"]
        hash_ = body.pop("killmail_hash", None) or f"{key:040x}"
        body.pop("http_last_modified", None)
        found.setdefault((key, hash_), body)


@pytest.fixture
def killmail_world(each: int) -> World:
    """Killmails and nothing else; every `each`th of the many when they are at hand, ours in any case."""
    killmails = {
        (1, "a" * 40): {
            "killmail_id": 1,
            "killmail_time": "2007-12-05T13:37:00Z",
            "solar_system_id": 30000142,
            "attackers": [{"damage_done": 0, "final_blow": True, "security_status": 0.0}],
            "victim": {"ship_type_id": 670, "damage_taken": 0},
        },
        **real_killmails(each),
    }
    return World(killmails=dict(unique(killmails).items()))


def unique(killmails: dict[tuple[int, str], dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    """One hash for each id."""
    by_id = {key: (key, hash_) for key, hash_ in reversed(killmails)}
    return {pair: killmails[pair] for pair in by_id.values()}


@pytest.mark.parametrize("each", [4, pytest.param(1, marks=pytest.mark.long)])
def test_real_killmails_end_equal_to_their_json(main_stack: Stack, killmail_world: World, tmp_path: Path) -> None:
    # Given every killmail of a real day (`make test`: a quarter of them), asked for by id and hash
    with FakeEsi(killmail_world, buckets={"killmail": (1_000_000, 900)}) as esi:
        settings = {**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
        daemon = Daemon(settings)
        names = "\n".join(f"{key}:{hash_}" for key, hash_ in killmail_world.killmails)
        daemon.ok("enqueue", "killmail", "-", stdin=names)

        # When only killmails are worked on
        daemon.start("--actors", "killmail")
        store = Store(main_stack.database_url, pool_size=2)
        try:
            wait_until(
                lambda: ledger.open_count(store, ["killmail"]) == 0,
                120,
                lambda: f"killmails: {ledger.counts(store)} {daemon.log[-2000:]}",
            )
            # Then attackers and items are there in order, nested items under their parent
            mirror.assert_equal(store, killmail_world)
            assert esi.count(method="GET") == len(killmail_world.killmails)
            assert {request.path.split("/")[1] for request in esi.log} == {"killmails"}
        finally:
            daemon.end()
            store.close()


@pytest.mark.quick_on(STACKS[2])
def test_a_wrong_hash_is_a_dead_letter_with_that_reason(daemon: Daemon, esi: FakeEsi, open_store: Store) -> None:
    daemon.ok("enqueue", "killmail", f"12345:{'0' * 40}")
    daemon.start("--actors", "killmail")
    wait_for_sync(daemon, open_store)

    letters = json.loads(daemon.ok("dead", "list", "--json"))

    assert [(one["entity_type"], one["entity_id"], one["reason"], one["answer_status"]) for one in letters] == [
        ("killmail", 12345, "wrong_pair", 422)
    ]
    assert esi.count() == 1


@pytest.mark.parametrize("thousands", [2, pytest.param(8, marks=pytest.mark.long)])
def test_a_large_sync_costs_no_request_that_it_need_not(main_stack: Stack, tmp_path: Path, thousands: int) -> None:
    # Given 600 alliances, 4,000 corporations and 8,000 characters (`make test`: a quarter of them), all of which can be
    # found by following answers
    world = World.generate(alliances=75 * thousands, corporations=500 * thousands, characters=1000 * thousands, seed=7)
    esi = FakeEsi(world).start()
    daemon = Daemon({**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    daemon.ok("enqueue", "character", "-", stdin="\n".join(map(str, sorted(world.characters))))
    daemon.ok("enqueue", "corporation", "-", stdin="\n".join(map(str, sorted(world.corporations))))
    store = Store(main_stack.database_url, pool_size=2)
    try:
        # When everything is synced for the first time
        daemon.start()
        wait_for_sync(daemon, store, 170)
        mirror.assert_equal(store, world)

        # Then: lists once, each alliance twice, each corporation once, 8 + 8 bulk posts, each character once
        assert esi.count(method="POST", prefix="/characters/affiliation") == thousands
        assert esi.count(method="POST", prefix="/universe/names") == thousands
        assert esi.count(method="GET") == 2 + (2 * 75 + 500 + 1000) * thousands
        assert {request.status for request in esi.log} == {200}
        assert esi.early() == []
    finally:
        daemon.end()
        store.close()
        esi.stop()
