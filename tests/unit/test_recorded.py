"""Recorded exchanges with the real ESI, replayed over real HTTP: each ends in exactly the row that it says.

Without the recordings beside this repository there are no tests in here.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from esid.entities import BY_NAME, base
from esid.entities.base import Edges, Entity
from esid.entities.character import AFFILIATION, NAMES, Halving
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.routes import Route
from esid.store.model import Done, Job, Seen

RECORDED = Path(__file__).parents[2].parent / "shared" / "esi" / "recorded"
__test__ = RECORDED.is_dir()
HASH = "8f1450fca8ce97be9b10e106a1257088407ef387"
#: Headers of the recording that describe its sending, not its meaning.
_OF_THE_WIRE = {"content-length", "content-encoding", "transfer-encoding", "connection", "date"}


def found(pattern: str) -> list[str]:
    """Recordings by their name below `recorded`, none where there are none."""
    return sorted(str(path.relative_to(RECORDED)) for path in RECORDED.glob(pattern))


@dataclass(frozen=True)
class Recording:
    """One exchange; header names are as they were sent."""

    method: str
    path: str
    sent: Any
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def date(self) -> dt.datetime:
        """When it was answered."""
        return parsedate_to_datetime(self.headers["Date"])

    @property
    def fresh_s(self) -> float:
        """Seconds from the answer to its Expires, within a minute and a day."""
        told = (parsedate_to_datetime(self.headers["Expires"]) - self.date).total_seconds()
        return min(max(told, 60.0), 86_400.0)


def load(name: str) -> Recording:
    """A recording of either form: headers and status are plain, or wrapped in lists and an object."""
    exchange = json.loads((RECORDED / name).read_text(encoding="utf-8"))
    request, response = exchange["request"], exchange["response"]
    status = response["status"]
    return Recording(
        method=request["method"].upper(),
        path=re.sub(r"^/(v\d+|latest)(?=/)", "", urlsplit(request["uri"]).path).rstrip("/"),
        sent=request.get("body", ""),
        status=status["code"] if isinstance(status, dict) else status,
        headers={key: ", ".join(value) if isinstance(value, list) else value for key, value in response["headers"].items()},
        body=response["body"],
    )


class _Handler(BaseHTTPRequestHandler):
    """Answers the one recorded request as recorded, and everything else with 404."""

    protocol_version = "HTTP/1.1"
    recording: Recording

    def _answer(self) -> None:
        recording, asked = self.recording, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        same = self.path == recording.path and self.command == recording.method
        same = same and (not recording.sent or json.loads(asked) == json.loads(recording.sent))
        if recording.status == 304:
            same = same and self.headers.get("If-None-Match") == recording.headers["Etag"]
        self.send_response_only(recording.status if same else 404)
        self.send_header("Date", recording.headers["Date"])
        for name, value in recording.headers.items():
            if name.lower() not in _OF_THE_WIRE:
                self.send_header(name, value)
        body = json.dumps(recording.body).encode() if recording.status == 200 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def replay(recording: Recording, directory: Path) -> Iterator[Client]:
    """A client of a server that answers as recorded."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"recording": recording}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    budget = Budget(directory / "budget", Limits(max_rps=0))
    client = Client(f"http://127.0.0.1:{server.server_port}", budget)
    try:
        yield client
    finally:
        client._adapter.close()
        server.shutdown()
        thread.join(5)
        server.server_close()
        budget.close()


def sync(entity: Entity, job: Job, recording: Recording, directory: Path) -> Done:
    """What the flow of the entity makes of the recorded answer."""
    kept: list[int] = []
    with replay(recording, directory) as client:
        edges = Edges(client, lambda *_: set(), lambda _, ids, seconds: kept.extend(ids))
        (result,) = entity.sync(entity, [job], edges)
    assert isinstance(result, Done), result
    assert kept == []
    return result


def time(text: str) -> dt.datetime:
    """An aware time."""
    return dt.datetime.fromisoformat(text)


def seen(entity: str, *ids: int, asked: bool = True) -> list[Seen]:
    """Ids that became known."""
    return [Seen(entity, key, asked=asked) for key in ids]


@dataclass(frozen=True)
class Case:
    """A recording, the job that asks for it, and what must come of it."""

    file: str
    job: Job
    rows: list[tuple[str, dict[str, Any]]]
    seen: list[Seen]

    @property
    def title(self) -> str:
        """A short name."""
        return f"{self.job.entity} {self.job.id}"


CASES = [
    Case(
        "alliances__99008595.json",
        Job("alliance", 99008595),
        [
            (
                "alliances",
                {
                    "id": 99008595,
                    "name": "The Dead Parrots",
                    "ticker": "TDP",
                    "date_founded": time("2018-09-11T19:55:16Z"),
                    "creator_corporation_id": 98573850,
                    "creator_id": 95078959,
                    "executor_corporation_id": 98565696,
                    "faction_id": None,
                },
            )
        ],
        [
            *seen("alliance_corporations", 99008595),
            *seen("corporation", 98573850),
            *seen("character", 95078959),
            *seen("corporation", 98565696),
        ],
    ),
    Case(
        "alliance_corporations__99008595.json",
        Job("alliance_corporations", 99008595),
        [],
        seen("corporation", 98565696, 98595819, 98608556, 98608583, 98662531),
    ),
    Case(
        "corporations__98468592.json",
        Job("corporation", 98468592),
        [
            (
                "corporations",
                {
                    "id": 98468592,
                    "name": "Bullshit Bingo Club",
                    "ticker": "BUBIC",
                    "member_count": 12,
                    "ceo_id": 2114256809,
                    "creator_id": 1721864142,
                    "date_founded": time("2016-07-11T14:22:17Z"),
                    "description": 'u\'<font size="12" color="#bfffffff">BUBIC est malheureusement en hibernation !'
                    "<br><br>En attendant un eventuel r\\xe9veil, retrouvez les anciens membres Bubic chez les chevres !   "
                    '</font><font size="12" color="#ffd98d00"><a href="showinfo:2//98730717">Goat to Go</a></font>'
                    '<font size="12" color="#bfffffff"> <br><br>Bon jeu et \\xe0 tr\\xe8s vite ... o7</font>\'',
                    "alliance_id": None,
                    "faction_id": None,
                    "home_station_id": 60011893,
                    "shares": 1000,
                    "tax_rate": 0.10000000149011612,
                    "url": "https://zkillboard.com/corporation/98468592/",
                    "war_eligible": None,
                    "state": None,
                    "type": None,
                    "friendly_fire": None,
                },
            )
        ],
        seen("character", 2114256809, 1721864142),
    ),
    Case(
        "characters__1337512245.json",
        Job("character", 1337512245),
        [
            (
                "characters",
                {
                    "id": 1337512245,
                    "name": "Johnn Dillinger",
                    "birthday": time("2010-01-15T15:26:00Z"),
                    "bloodline_id": 4,
                    "race_id": 2,
                    "gender": "male",
                    "security_status": 3.83155339,
                    "description": "",
                    "title": None,
                },
            ),
            ("characters", {"id": 1337512245, "corporation_id": 1000171, "alliance_id": None, "faction_id": None}),
        ],
        seen("corporation", 1000171),
    ),
    Case(
        f"killmail__81646519__{HASH}.json",
        Job("killmail", 81646519, argument=HASH),
        [
            (
                "killmails",
                {
                    "id": 81646519,
                    "hash": HASH,
                    "killmail_time": time("2020-02-14T23:25:07Z"),
                    "solar_system_id": 30003493,
                    "moon_id": None,
                    "war_id": None,
                    "victim_character_id": 1337512245,
                    "victim_corporation_id": 98134807,
                    "victim_alliance_id": None,
                    "victim_faction_id": None,
                    "victim_ship_type_id": 24698,
                    "victim_damage_taken": 15918,
                    "victim_position_x": -1100269478625.7827,
                    "victim_position_y": -629102351286.0769,
                    "victim_position_z": 229500515736.35583,
                    "attacker_count": 1,
                },
            ),
            (
                "attackers",
                {
                    "killmail_id": 81646519,
                    "seq": 0,
                    "character_id": None,
                    "corporation_id": None,
                    "alliance_id": None,
                    "faction_id": 500021,
                    "ship_type_id": 3748,
                    "weapon_type_id": None,
                    "damage_done": 15918,
                    "final_blow": True,
                    "security_status": 0.0,
                },
            ),
            (
                "killmail_items",
                {
                    "killmail_id": 81646519,
                    "seq": 0,
                    "parent_seq": None,
                    "item_type_id": 12058,
                    "flag": 19,
                    "quantity_dropped": None,
                    "quantity_destroyed": 1,
                    "singleton": 0,
                },
            ),
        ],
        [*seen("character", 1337512245), *seen("corporation", 98134807)],
    ),
]
CASES = [case for case in CASES if (RECORDED / case.file).exists()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_recorded_answer_ends_in_exactly_these_rows(case: Case, tmp_path: Path) -> None:
    recording = load(case.file)
    done = sync(BY_NAME[case.job.entity], case.job, recording, tmp_path)
    assert [(row.model._meta.table_name, row.values) for row in done.rows] == case.rows
    assert list(done.seen) == case.seen
    assert (done.id, done.etag, done.unknown, done.unfinished) == (case.job.id, recording.headers["Etag"], (), False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_recorded_answer_expires_as_it_says_and_a_killmail_never(case: Case, tmp_path: Path) -> None:
    recording = load(case.file)
    before = dt.datetime.now(dt.UTC)
    done = sync(BY_NAME[case.job.entity], case.job, recording, tmp_path)
    if case.job.entity == "killmail":
        assert done.expires_at is None
    else:
        assert done.expires_at is not None
        assert 0 <= (done.expires_at - before).total_seconds() - recording.fresh_s < 10


#: Recordings whose answer lay in ESI's cache for the time that the route has today.
AGED = {"alliances__99008595.json", "alliance_corporations__99008595.json", "corporations__98468592.json"}


@pytest.mark.parametrize("case", [case for case in CASES if case.file in AGED], ids=lambda case: case.title)
def test_a_recorded_answer_out_of_the_cache_speaks_of_its_last_modified(case: Case, tmp_path: Path) -> None:
    recording = load(case.file)
    done = sync(BY_NAME[case.job.entity], case.job, recording, tmp_path)
    assert done.checked_at == parsedate_to_datetime(recording.headers["Last-Modified"])


@pytest.mark.parametrize("name", found("alliances__list.json"))
def test_the_recorded_list_of_alliances_makes_each_known(name: str, tmp_path: Path) -> None:
    recording = load(name)
    done = sync(BY_NAME["alliances"], Job("alliances", 1), recording, tmp_path)
    assert (len(recording.body), done.rows) == (3533, ())
    assert list(done.seen) == seen("alliance", *recording.body)


@pytest.mark.parametrize("name", found("corporation_npc.json"))
def test_the_recorded_list_of_npc_corporations_makes_each_known(name: str, tmp_path: Path) -> None:
    recording = load(name)
    done = sync(BY_NAME["npccorps"], Job("npccorps", 1), recording, tmp_path)
    assert (len(recording.body), done.etag) == (283, 'W/"f805136f9e57482fc672e0576b814b5bcd90c8e7122d9526e95b35ce"')
    assert list(done.seen) == seen("corporation", *recording.body)
    assert done.checked_at == time("2026-02-20T11:05:00Z")


@pytest.mark.parametrize("name", found("characters_affiliation.json"))
def test_the_recorded_affiliation_is_one_look_at_one_character(name: str, tmp_path: Path) -> None:
    recording = load(name)
    with replay(recording, tmp_path) as client:
        asked = Halving(client, AFFILIATION, [1337512245])
    (answer,) = asked.answers
    assert (asked.bad, asked.error) == ([], None)
    assert answer.body == [{"character_id": 1337512245, "corporation_id": 1000171}]
    assert (answer.is_new, answer.etag, answer.checked_at) == (True, None, recording.date)


@pytest.mark.parametrize("name", found("characters_affiliation.json"))
def test_the_recorded_affiliation_ends_in_the_row_of_a_known_character(name: str, tmp_path: Path) -> None:
    recording = load(name)
    now = dt.datetime.now(dt.UTC)
    job = Job("character", 1337512245, etag='"x"', expires_at=now + dt.timedelta(hours=5))
    done = sync(BY_NAME["character"], job, recording, tmp_path)
    (row,) = done.rows
    assert row.values == {"id": 1337512245, "corporation_id": 1000171, "alliance_id": None, "faction_id": None}
    assert (row.guard, list(done.seen), done.etag) == ("checked_at", seen("corporation", 1000171), None)
    assert (done.checked_at, done.expires_at, done.unfinished) == (recording.date, None, False)


@pytest.mark.parametrize("name", found("universe_names.json"))
def test_the_recorded_names_are_one_answer(name: str, tmp_path: Path) -> None:
    recording = load(name)
    with replay(recording, tmp_path) as client:
        asked = Halving(client, NAMES, json.loads(recording.sent))
    assert [row["name"] for row in asked.answers[0].body] == ["Jita", "Tritanium", "The Forge"]
    assert (asked.bad, asked.error) == ([], None)


@pytest.mark.parametrize("name", found("304/*.json"))
def test_a_recorded_304_answers_the_etag_sent_verbatim_and_expires_as_it_says(name: str, tmp_path: Path) -> None:
    recording = load(name)
    etag = recording.headers["Etag"]
    before = dt.datetime.now(dt.UTC)
    with replay(recording, tmp_path) as client:
        answer = client.get(Route(recording.path), etag=etag)
    assert (answer.is_new, answer.body, answer.etag) == (False, None, etag)
    assert 0 <= (answer.expires_at - before).total_seconds() - recording.fresh_s < 10


@pytest.mark.parametrize("name", found("304/304__corporations__98468592_*.json"))
def test_a_recorded_304_changes_no_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "wants_whole", lambda _: False)
    recording = load(name)
    job = Job("corporation", 98468592, etag=recording.headers["Etag"])
    done = sync(BY_NAME["corporation"], job, recording, tmp_path)
    assert (done.rows, done.seen, done.etag) == ((), (), job.etag)
    assert done.checked_at == parsedate_to_datetime(recording.headers["Last-Modified"])
