"""The fake ESI behaves as /work/shared/esi/facts.md says ESI does, and misbehaves on demand."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest

from tests.fake_esi import FakeEsi, World
from tests.tools.waiting import wait_until

SPEC = Path("/work/shared/esi/openapi.json")
NEW = {"X-Compatibility-Date": "2026-08-18", "User-Agent": "test/1 (a@example.com)"}
HASH = "8f1450fca8ce97be9b10e106a1257088407ef387"


class Got(NamedTuple):
    """An answer as a client sees it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)

    def seconds_between(self, earlier: str, later: str) -> float:
        first, second = (parsedate_to_datetime(self.headers[each]) for each in (earlier, later))
        return (second - first).total_seconds()


def ask(esi: FakeEsi, path: str, ids: object = None, timeout: float = 5.0, **headers: str) -> Got:
    """GET the path, or POST the ids to it; header names are given with _ for -."""
    connection = http.client.HTTPConnection(esi.base_url.removeprefix("http://"), timeout=timeout)
    sent = NEW | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        if ids is None:
            connection.request("GET", path, headers=sent)
        else:
            connection.request("POST", path, json.dumps(ids), headers=sent)
        response = connection.getresponse()
        return Got(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.fixture
def world() -> World:
    made = World.generate(3, 20, 30, npc_corporations=2)
    made.killmails[(81646519, HASH)] = {"killmail_id": 81646519}
    return made


@pytest.fixture
def esi(world: World) -> Iterator[FakeEsi]:
    with FakeEsi(world, error_limit=10, buckets={"killmail": (10, 900)}) as server:
        server.clock.advance(60 - server.clock.now() % 60)  # an error window begins
        yield server


def first(bodies: dict[int, dict], **wanted: object) -> int:
    """The first id whose body has all the wanted values; ... stands for any value."""
    return next(
        each
        for each, body in bodies.items()
        if all(key in body and value in (..., body[key]) for key, value in wanted.items())
    )


# --- the world ---


def schema_cases() -> list:
    if not SPEC.exists():
        return []
    world = World.generate(60, 300, 500, seed=7, npc_corporations=9)
    bodies = {
        "AllianceDetail": list(world.alliances.values()),
        "CorporationsDetail": list(world.corporations.values()),
        "CharactersDetail": list(world.characters.values()),
        "Status": [world.status],
        "AlliancesGet": [list(world.alliances)],
    }
    return [pytest.param(name, each, id=name) for name, each in bodies.items()]


@pytest.mark.parametrize(("name", "bodies"), schema_cases())
def test_bodies_fit_the_specification(name: str, bodies: list) -> None:
    spec = json.loads(SPEC.read_text())
    schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
    validator = jsonschema.Draft4Validator(schema)
    known = set(spec["components"]["schemas"][name].get("properties", {}))
    for body in bodies:
        validator.validate(body)
        assert not known or set(body) <= known


@pytest.mark.parametrize("characters", [1, 15, 39, 40, 55, 80, 100])
def test_a_world_fits_together(characters: int) -> None:
    world = World.generate(5, 40, characters)
    corporations = world.corporations.values()
    leaders = {body[key] for body in corporations for key in ("ceo_id", "creator_id") if key in body}
    assert leaders <= set(world.characters)
    if characters <= 2 * len(world.corporations):
        assert leaders == set(world.characters)
    for corporation_id, body in world.corporations.items():
        members = [each for each in world.characters.values() if each["corporation_id"] == corporation_id]
        assert len(members) == body["member_count"]
        listed = [each for each, members in world.alliance_corporations.items() if corporation_id in members]
        assert listed == ([body["alliance_id"]] if "alliance_id" in body else [])
        if "ceo_id" in body:
            assert world.characters[body["ceo_id"]]["corporation_id"] == corporation_id
    for body in world.characters.values():
        assert body.get("alliance_id") == world.corporations[body["corporation_id"]].get("alliance_id")


def test_the_same_seed_gives_the_same_world() -> None:
    assert World.generate(3, 20, 30, seed=5) == World.generate(3, 20, 30, seed=5)
    assert World.generate(3, 20, 30, seed=5) != World.generate(3, 20, 30, seed=6)


def test_optional_fields_are_absent_and_zero_now_and_then() -> None:
    world = World.generate(60, 300, 500)
    for bodies in (world.alliances, world.corporations, world.characters):
        keys = {key for body in bodies.values() for key in body}
        assert any(key not in body for body in bodies.values() for key in keys)
    assert 0.0 in {body.get("security_status") for body in world.characters.values()}
    assert "" in {body["description"] for body in world.corporations.values()}


# --- the routes ---


def test_gets_answer_with_the_bodies_of_the_world(esi: FakeEsi, world: World) -> None:
    alliance_id = next(iter(world.alliances))
    character_id = next(iter(world.characters))
    corporation_id = next(iter(world.corporations))
    assert ask(esi, "/alliances").json() == list(world.alliances)
    assert ask(esi, f"/alliances/{alliance_id}").json() == world.alliances[alliance_id]
    members = ask(esi, f"/alliances/{alliance_id}/corporations").json()
    assert members == world.alliance_corporations[alliance_id]
    assert ask(esi, "/corporations/npccorps").json() == world.npc_corporations
    assert ask(esi, f"/corporations/{corporation_id}").json() == world.corporations[corporation_id]
    assert ask(esi, f"/characters/{character_id}").json() == world.characters[character_id]
    assert ask(esi, f"/killmails/81646519/{HASH}").json() == {"killmail_id": 81646519}
    assert ask(esi, "/status").json() == world.status


def test_a_closed_alliance_answers_but_is_in_no_list(esi: FakeEsi, world: World) -> None:
    closed = next(iter(world.alliances))
    world.closed_alliances.add(closed)
    assert ask(esi, f"/alliances/{closed}").status == 200
    assert ask(esi, f"/alliances/{closed}/corporations").json() == []
    assert closed not in ask(esi, "/alliances").json()


def test_old_dates_get_old_shapes(esi: FakeEsi, world: World) -> None:
    corporation_id = first(world.corporations, enlisted_faction_id=..., ceo_id=...)
    new = world.corporations[corporation_id]
    got = ask(esi, f"/corporations/{corporation_id}", X_Compatibility_Date="2026-07-20")
    old = got.json()
    assert got.headers["X-Compatibility-Date"] == "2020-01-01"
    assert old["faction_id"] == new["enlisted_faction_id"]
    assert old["tax_rate"] == pytest.approx(new["tax_rates"]["isk"] / 100)
    assert not {"tax_rates", "enlisted_faction_id", "state", "type", "friendly_fire", "palette"} & set(old)
    closed = first(world.corporations, state="closed")
    assert ask(esi, f"/corporations/{closed}", X_Compatibility_Date="2020-01-01").json()["ceo_id"] == 1
    titled = first(world.characters, corporation_title=...)
    old = ask(esi, f"/characters/{titled}", X_Compatibility_Date="2026-06-08").json()
    assert old["title"] == world.characters[titled]["corporation_title"]
    assert not {"corporation_title", "achievement_score", "character_title_id"} & set(old)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/alliances/99999999", 404, "Alliance not found"),
        ("/corporations/98999999", 404, "Corporation not found"),
        ("/characters/1", 404, "Character not found"),
        ("/characters/2", 404, "Character has been deleted!"),
        (f"/killmails/1/{HASH}", 422, "Invalid killmail_id and/or killmail_hash"),
        ("/killmails/1/nohash", 400, None),
        ("/characters/0", 400, None),
        ("/characters/-5", 400, None),
        ("/characters/abc", 400, None),
        ("/characters/99999999999999999999", 400, None),
        ("/nowhere", 404, None),
    ],
)
def test_what_does_not_exist_is_refused(esi: FakeEsi, world: World, path: str, status: int, error: str | None) -> None:
    world.deleted_characters.add(2)
    got = ask(esi, path)
    assert got.status == status
    assert got.headers["Expires"] is None
    assert error in (None, got.json()["error"])


def test_a_garbled_compatibility_date_is_refused(esi: FakeEsi) -> None:
    assert ask(esi, "/alliances", X_Compatibility_Date="soon").status == 400


def test_affiliation_tells_the_memberships(esi: FakeEsi, world: World) -> None:
    ids = list(world.characters)
    got = ask(esi, "/characters/affiliation", ids)
    assert [each["character_id"] for each in got.json()] == ids
    for row in got.json():
        body = world.characters[row["character_id"]]
        for key in ("corporation_id", "alliance_id", "faction_id"):
            assert row.get(key) == body.get(key)
    assert not {"Expires", "Etag", "Last-Modified", "Cache-Control"} & set(got.headers)
    assert esi.log[-1].ids == tuple(ids)


def test_names_tell_the_category(esi: FakeEsi, world: World) -> None:
    bodies = {"alliance": world.alliances, "corporation": world.corporations, "character": world.characters}
    ids = {next(iter(each)): category for category, each in bodies.items()}
    rows = ask(esi, "/universe/names", list(ids)).json()
    assert {row["id"]: row["category"] for row in rows} == ids
    assert all(row["name"] == bodies[row["category"]][row["id"]]["name"] for row in rows)


def test_one_unknown_or_deleted_id_fails_the_batch(esi: FakeEsi, world: World) -> None:
    ids = list(world.characters)
    assert ask(esi, "/universe/names", [*ids, 5]).json() == {"error": "Ensure all IDs are valid before resolving."}
    world.deleted_characters.add(ids[3])
    assert ask(esi, "/universe/names", ids).status == 404
    assert ask(esi, "/characters/affiliation", ids).json() == {"error": "Character has been deleted!"}


@pytest.mark.parametrize("ids", [[], [7, 7], [0], [-1], ["7"], [True], [1.5], {}, list(range(1, 1002))])
def test_a_bad_batch_is_refused(esi: FakeEsi, ids: object) -> None:
    assert ask(esi, "/characters/affiliation", ids).status == 400
    assert ask(esi, "/universe/names", ids).status == 400


# --- headers and caches ---


@pytest.mark.parametrize(("path", "ttl_s"), [("/alliances", 3600), ("/characters/{}", 86400), ("/status", 30)])
def test_cached_routes_tell_how_long(esi: FakeEsi, world: World, path: str, ttl_s: int) -> None:
    got = ask(esi, path.format(next(iter(world.characters))))
    assert got.seconds_between("Last-Modified", "Expires") == ttl_s
    assert abs(got.seconds_between("Last-Modified", "Date")) <= 1
    assert got.headers["Cache-Control"] == "public"
    assert got.headers["Etag"].startswith('"')


def test_a_daily_route_expires_at_11_05(esi: FakeEsi) -> None:
    got = ask(esi, "/corporations/npccorps")
    assert " 11:05:00 GMT" in got.headers["Expires"]
    assert 0 < got.seconds_between("Date", "Expires") <= 86400
    assert got.headers["Etag"].startswith('W/"')


@pytest.mark.parametrize("strip", ["", '"'])
def test_a_known_body_is_not_sent_again(esi: FakeEsi, strip: str) -> None:
    full = ask(esi, "/alliances")
    got = ask(esi, "/alliances", If_None_Match=full.headers["Etag"].strip(strip))
    assert (got.status, got.body) == (304, b"")
    for name in ("Etag", "Expires", "Last-Modified"):
        assert got.headers[name] == full.headers[name]
    assert got.headers["X-Esi-Error-Limit-Remain"] == "10"


def test_a_change_shows_once_the_cached_answer_has_expired(esi: FakeEsi, world: World) -> None:
    path = f"/alliances/{next(iter(world.alliances))}"
    before = ask(esi, path)
    world.alliances[next(iter(world.alliances))]["name"] = "New Name"
    esi.clock.advance(3590)
    assert ask(esi, path).body == before.body
    assert [each.path for each in esi.early()] == [path]
    esi.clock.advance(11)
    after = ask(esi, path, If_None_Match=before.headers["Etag"])
    assert after.json()["name"] == "New Name"
    assert len(esi.early()) == 1


def test_early_is_judged_per_url_language_and_date(esi: FakeEsi) -> None:
    ask(esi, "/alliances")
    ask(esi, "/alliances", Accept_Language="de")
    ask(esi, "/alliances", X_Compatibility_Date="2020-01-01")
    ask(esi, "/characters/1")
    ask(esi, "/characters/1")
    assert esi.early() == []
    ask(esi, "/alliances")
    assert [each.early for each in esi.log] == [False] * 5 + [True]


def test_the_log_tells_what_was_asked(esi: FakeEsi) -> None:
    ask(esi, "/alliances?page=1", If_None_Match='"x"', Accept_Language="de")
    ask(esi, "/characters/1")
    ask(esi, "/universe/names", [1])
    assert esi.log[0].headers == {
        "user-agent": NEW["User-Agent"],
        "x-compatibility-date": "2026-08-18",
        "if-none-match": '"x"',
        "accept-language": "de",
    }
    assert (esi.log[0].method, esi.log[0].path, esi.log[0].status) == ("GET", "/alliances?page=1", 200)
    assert abs(esi.log[0].at - esi.clock.now()) < 10
    assert (esi.count(), esi.count("/alliances"), esi.count(status=404, method="POST")) == (3, 1, 1)
    assert len(esi.answers(404)) == 2
    esi.clear_log()
    assert esi.count() == 0


# --- limits ---


def test_too_many_errors_block_every_route_until_the_window_ends(esi: FakeEsi) -> None:
    remaining = [int(ask(esi, "/characters/1").headers["X-Esi-Error-Limit-Remain"]) for _ in range(10)]
    assert remaining == list(range(9, -1, -1))
    for path in ("/alliances", "/status", f"/killmails/81646519/{HASH}"):
        got = ask(esi, path)
        assert got.status == 420
        assert got.json()["error"].startswith("This software has exceeded the error limit for ESI.")
        assert got.headers["X-Esi-Error-Limit-Remain"] == "0"
    reset_s = int(got.headers["X-Esi-Error-Limit-Reset"])
    assert 50 <= reset_s <= 60
    esi.clock.advance(reset_s)
    assert ask(esi, "/alliances").headers["X-Esi-Error-Limit-Remain"] == "10"
    assert len(esi.answers(420)) == 3


def test_an_empty_bucket_answers_429_until_tokens_come_back(esi: FakeEsi) -> None:
    path = f"/killmails/81646519/{HASH}"
    full = ask(esi, path)
    assert full.headers["X-Ratelimit-Group"] == "killmail"
    assert full.headers["X-Ratelimit-Limit"] == "10/15m"
    assert (full.headers["X-Ratelimit-Remaining"], full.headers["X-Ratelimit-Used"]) == ("8", "2")
    assert full.headers["X-Esi-Error-Limit-Remain"] is None
    esi.clock.advance(100)
    assert ask(esi, f"/killmails/1/{HASH}").headers["X-Ratelimit-Remaining"] == "3"
    known = ask(esi, path, If_None_Match=full.headers["Etag"])
    assert (known.status, known.headers["X-Ratelimit-Remaining"]) == (304, "2")
    assert ask(esi, path).headers["X-Ratelimit-Remaining"] == "0"
    refused = ask(esi, path)
    assert (refused.status, refused.headers["X-Ratelimit-Used"]) == (429, "0")
    assert 790 <= int(refused.headers["Retry-After"]) <= 800
    assert ask(esi, "/alliances").status == 200
    esi.clock.advance(int(refused.headers["Retry-After"]))
    assert ask(esi, path).status == 200


# --- faults ---


def test_faulty_answers_are_sent_and_counted(esi: FakeEsi) -> None:
    esi.faults.add("/alliances", times=1, status=503)
    got = ask(esi, "/alliances")
    assert (got.status, "error" in got.json()) == (503, True)
    assert got.headers["X-Esi-Error-Limit-Remain"] == "9"
    esi.faults.add("/alliances", times=1, html=502)
    assert ask(esi, "/alliances").body.startswith(b"<html>")
    esi.faults.add("/alliances", times=1, status=429, retry_after="7")
    assert ask(esi, "/alliances").headers["Retry-After"] == "7"
    esi.faults.add("/alliances", times=1, redirect="http://127.0.0.1:9/")
    assert ask(esi, "/alliances").headers["Location"] == "http://127.0.0.1:9/"
    assert ask(esi, "/alliances").headers["X-Esi-Error-Limit-Remain"] == "7"
    assert [each.status for each in esi.log] == [503, 502, 429, 302, 200]


def test_faulty_bodies_are_sent_as_good_ones(esi: FakeEsi) -> None:
    esi.faults.add("/alliances", times=1, body=b"\xff{")
    assert ask(esi, "/alliances").body == b"\xff{"
    esi.faults.add("/alliances", times=1, json={"a": None})
    got = ask(esi, "/alliances")
    assert (got.status, got.json()) == (200, {"a": None})
    assert got.seconds_between("Last-Modified", "Expires") == 3600
    esi.faults.add("/alliances", times=1, gzip_bomb=3_000_000)
    got = ask(esi, "/alliances")
    assert got.headers["Content-Encoding"] == "gzip"
    assert len(got.body) < 10_000
    assert len(gzip.decompress(got.body)) == 3_000_000


def test_headers_can_be_left_out_replaced_and_removed(esi: FakeEsi) -> None:
    esi.faults.add("/alliances", times=2, no_expires=True)
    got = ask(esi, "/alliances")
    assert not {"Expires", "Etag", "Last-Modified", "Cache-Control"} & set(got.headers)
    ask(esi, "/alliances")
    assert esi.early() == []
    esi.faults.add("/alliances", headers={"expires": "soon", "Etag": None, "X-Extra": "1"})
    got = ask(esi, "/alliances")
    assert (got.headers["Expires"], got.headers["Etag"], got.headers["X-Extra"]) == ("soon", None, "1")
    esi.faults.clear()
    assert ask(esi, "/alliances").headers["X-Extra"] is None


def test_faults_fit_by_prefix_exactness_and_probability(esi: FakeEsi, world: World) -> None:
    exact = esi.faults.add("/alliances", exact=True, status=500)
    detail = f"/alliances/{next(iter(world.alliances))}"
    assert (ask(esi, "/alliances").status, ask(esi, detail).status) == (500, 200)
    assert exact.hits == 1
    esi.faults.clear()
    half = esi.faults.add("/status", probability=0.5, headers={"X-Hit": "1"})
    hits = [ask(esi, "/status").headers["X-Hit"] for _ in range(60)].count("1")
    assert 10 < hits < 50
    assert hits == half.hits
    with pytest.raises(TypeError):
        esi.faults.add("/status", typo=True)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"drop": True}, http.client.RemoteDisconnected),
        ({"reset": True}, ConnectionResetError),
        ({"truncate": True}, http.client.IncompleteRead),
        ({"hang_s": 60}, TimeoutError),
        ({"headers_drip_s": 60}, TimeoutError),
    ],
)
def test_connections_can_be_spoiled(esi: FakeEsi, what: dict, error: type[Exception]) -> None:
    esi.faults.add("/alliances", times=1, **what)
    with pytest.raises(error):
        ask(esi, "/alliances", timeout=0.3)
    status = 0 if {"drop", "reset"} & set(what) else 200
    assert [each.status for each in esi.log] == [status]
    assert ask(esi, "/alliances").status == 200
    assert esi.early() == []


@pytest.mark.parametrize("what", [{"hang_s": 0.1}, {"drip_s": 0.001}, {"headers_drip_s": 0.0002}])
def test_slow_answers_are_valid(esi: FakeEsi, world: World, what: dict) -> None:
    esi.faults.add("/alliances", **what)
    started = time.monotonic()
    assert ask(esi, "/alliances").json() == list(world.alliances)
    assert time.monotonic() - started > 0.02


def test_stopping_ends_hanging_connections_at_once(world: World) -> None:
    esi = FakeEsi(world).start()
    esi.faults.add("/alliances", hang_s=600)
    failures: list[Exception] = []

    def client() -> None:
        try:
            ask(esi, "/alliances", timeout=30)
        except (OSError, http.client.HTTPException) as failure:
            failures.append(failure)

    thread = threading.Thread(target=client)
    thread.start()
    wait_until(lambda: esi.count() == 1, what="the request to arrive")
    esi.stop()
    thread.join(5)
    assert len(failures) == 1


# --- the server ---


def test_a_stopped_server_comes_back_on_the_same_port(esi: FakeEsi) -> None:
    url = esi.base_url
    esi.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(esi, "/alliances")
    esi.start()
    assert esi.base_url == url
    assert ask(esi, "/alliances").status == 200


def test_latency_delays_each_answer(esi: FakeEsi) -> None:
    esi.latency_s = 0.1
    started = time.monotonic()
    ask(esi, "/alliances")
    assert 0.1 <= time.monotonic() - started < 2


def test_one_connection_serves_many_requests(esi: FakeEsi, world: World) -> None:
    connection = http.client.HTTPConnection(esi.base_url.removeprefix("http://"), timeout=5)
    connection.connect()
    connected = connection.sock
    for corporation_id, body in world.corporations.items():
        connection.request("GET", f"/corporations/{corporation_id}", headers=NEW)
        assert json.loads(connection.getresponse().read()) == body
    assert connection.sock is connected
    connection.close()


def test_the_module_serves_until_sigterm() -> None:
    root = Path(__file__).absolute().parents[2]
    command = [sys.executable, "-m", "tests.fake_esi", "--alliances", "2", "--characters", "50"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request("GET", "/alliances", headers=NEW)
        assert len(json.loads(connection.getresponse().read())) == 2
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
