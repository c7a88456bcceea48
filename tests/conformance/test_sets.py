"""Whole sets, from ESI's pages to the tables: newer versions win, whole or not at all, and none is emptied by one answer."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from peewee import CompositeKey

from esid import clock
from esid.entities import BY_NAME, base
from esid.entities.base import LIST_ID, Edges, Entity
from esid.entities.columns import Flag, Id, Integer, Number, Text
from esid.entities.flows import by_max_id, each, history, listing
from esid.entities.members import Part
from esid.entities.sets import whole_set
from esid.errors import Implausible
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.decode import Fields
from esid.esi.routes import Route
from esid.queue import asking
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.queue.work import Work
from esid.schedule import tasks
from esid.store import audit, ledger, notes, sets
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import EMPTIED, Done, EntityTable, Job, Seen, StampedTable, UtcField, utc_time
from tests.tools import mirror
from tests.tools.simulation import Raw

START = dt.datetime(2026, 11, 24, 12, 0, 30, tzinfo=dt.UTC)
Body = list[Any] | dict[str, Any]


class Campaign(StampedTable):
    """A set whose rows end."""

    campaign_id = Id()
    defender_id = Id(to="alliance", null=True)
    structure_id = Id()
    score = Number(of="defender_score", null=True)
    end_time = UtcField(null=True)

    class Meta:
        table_name = "campaigns"
        primary_key = CompositeKey("campaign_id")


class Participant(StampedTable):
    """Rows inside of the members."""

    campaign_id = Id()
    alliance_id = Id(to="alliance")
    score = Number()

    class Meta:
        table_name = "participants"
        primary_key = CompositeKey("campaign_id", "alliance_id")


class Order(StampedTable):
    """A set of a scope."""

    order_id = Id()
    region_id = Id()
    price = Number()

    class Meta:
        table_name = "orders"
        primary_key = CompositeKey("order_id")


class Claim(EntityTable):
    """A set of rows with ids, that cannot be gone."""

    id = Id(of="solar_system_id", primary_key=True)
    alliance_id = Id(to="alliance", null=True)
    is_capital = Flag(null=True)

    class Meta:
        table_name = "claims"


class Kills(StampedTable):
    """A set of which each version stays."""

    system_id = Id()
    at = UtcField()
    kills = Integer(of="ship_kills")

    class Meta:
        table_name = "kills"
        primary_key = CompositeKey("system_id", "at")


class Record(StampedTable):
    """A record of a past."""

    character_id = Id()
    record_id = Id()
    corporation_id = Id(to="corporation")

    class Meta:
        table_name = "records"
        primary_key = CompositeKey("character_id", "record_id")


class Kind(EntityTable):
    """A thing whose ids begin with 0."""

    id = Id(primary_key=True, first=0)
    name = Text()

    class Meta:
        table_name = "kinds"


TABLES: tuple[Any, ...] = (Campaign, Participant, Order, Claim, Kills, Record, Kind)


def _participants(campaign: Fields) -> Iterator[Fields]:
    for one in campaign.objects("participants", optional=True):
        yield Fields(one.entity, {**one.value, "campaign_id": campaign.id("campaign_id")})


CAMPAIGNS = whole_set(
    "campaigns",
    "alliance",
    Route("/sovereignty/campaigns", cache_s=300.0, group="sovereignty"),
    Part(Campaign, gone="end_time"),
    Part(Participant, split=_participants),
    may_shrink=True,
    unused=("participants",),
)
ORDERS = whole_set(
    "orders",
    "alliance",
    Route("/markets/{id}/orders", cache_s=300.0, query=(("order_type", "all"),)),
    Part(Order),
    of="region_id",
    may_shrink=True,
)
CLAIMS = whole_set(
    "claims", "alliance", Route("/sovereignty/systems", cache_s=300.0), Part(Claim, gone=EMPTIED), least_share=0.95
)
KILLS = whole_set("kills", "alliance", Route("/universe/system_kills"), Part(Kills), stamp="at")
DAILY = whole_set("daily", "alliance", Route("/fw/wars", is_daily=True), Part(Claim))
HISTORY = history("history", "character", Route("/characters/{id}/corporationhistory"), Record, of="character_id")
WARS = by_max_id("wars", "killmail", Route("/wars"), of="killmail", most=10_000, parameter="max_war_id")
KIND = each("kind", "alliance", Route("/universe/types/{id}"), Kind)


@dataclass
class Esi(requests.adapters.BaseAdapter):
    """Answers each URL with pages of one version, as the test says."""

    pages: dict[str, list[Body] | dict[str, Any]] = field(default_factory=dict)
    version: dt.datetime = START
    etag: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        """One page."""
        url = urlsplit(request.path_url)
        query = parse_qs(url.query)
        page = int(query.pop("page", ["1"])[0])
        etag = request.headers.get("If-None-Match")
        self.asked.append((request.path_url, etag))
        key = "&".join([url.path, *(f"{name}={values[0]}" for name, values in query.items())])
        pages = self.pages.get(key)
        response = requests.Response()
        response.request, response.url = request, request.url
        is_same = etag is not None and etag == self.etag
        response.status_code = 404 if pages is None else 304 if is_same else 200
        body = (
            {"error": "Not found"}
            if pages is None
            else None
            if is_same
            else pages
            if isinstance(pages, dict)
            else pages[page - 1]
        )
        now = clock.now()
        response.headers.update(
            {
                "Date": _http(now),
                "Expires": _http(now + dt.timedelta(seconds=300)),
                "Last-Modified": _http(self.version),
                "X-Pages": str(len(pages) if isinstance(pages, list) else 1),
                **({"Etag": self.etag} if self.etag else {}),
            }
        )
        response.raw = Raw(json.dumps(body).encode())
        return response

    def close(self) -> None:
        """Nothing is open."""


def _http(time: dt.datetime) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT")


@dataclass
class Mirror:
    """A unit of work beside that ESI, and a clock that goes on by hand."""

    store: Store
    esi: Esi
    work: Work
    edges: Edges
    publisher: Publisher
    now: dt.datetime = START

    def ask(self, entity: Entity, *ids: int) -> Any:
        """Ask for these ids now; how that ended."""
        ids = ids or (LIST_ID,)
        ledger.request(self.store, [Seen(entity.name, key) for key in ids])
        return self.work.perform(entity, list(ids))

    def later(self, minutes: int = 6) -> None:
        """What was there has expired, and a later version is there."""
        self.now += dt.timedelta(minutes=minutes)
        self.esi.version = self.now

    def rows(self, table: Any) -> list[tuple[Any, ...]]:
        """All rows, in order of their keys."""
        return [tuple(row.values()) for _, row in sorted(mirror.table(self.store, table).items())]

    def seen(self, entity: str) -> set[int]:
        """Ids that became known."""
        found = self.store.rows("SELECT entity_id FROM sync_jobs WHERE entity_type = %s", (entity,))
        return {key for (key,) in found}


@pytest.fixture
def mirrored(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A unit of work beside that ESI, and the tables of these entities."""
    budget = Budget(tmp_path / "budget", Limits(max_rps=0))
    store.database.create_tables(TABLES)
    for entity in (CAMPAIGNS, ORDERS, CLAIMS, KILLS, DAILY, HISTORY, WARS, KIND):
        monkeypatch.setitem(BY_NAME, entity.name, entity)
    client = Client("http://127.0.0.1", budget, adapter=(esi := Esi()))
    publisher = Publisher(store, open_broker(store, "", "work"), "work")
    edges = Edges(client, lambda *_: set(), lambda *_: None)
    made = Mirror(store, esi, Work(store, client, publisher, []), edges, publisher)
    monkeypatch.setattr(clock, "now", lambda: made.now)
    monkeypatch.setattr(base.random, "random", lambda: 1.0)
    with store.connection():
        yield made
    budget.close()


def campaign(key: int, score: float = 0.5, *allies: int) -> dict[str, Any]:
    """One member."""
    participants = [{"alliance_id": one, "score": 0.1} for one in allies]
    found = {"campaign_id": key, "defender_id": 99_000_001, "structure_id": 5, "defender_score": score}
    return found | ({"participants": participants} if participants else {})


PATH = "/sovereignty/campaigns"


def test_new_fields_of_members_and_of_the_rows_inside_them_are_named(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1, 0.5, 99_000_002) | {"new": 1}]]
    mirrored.esi.pages[PATH][0][0]["participants"][0]["inner"] = 2  # type: ignore[index,call-overload]
    (done,) = CAMPAIGNS.sync(CAMPAIGNS, [Job("campaigns", LIST_ID)], mirrored.edges)
    assert isinstance(done, Done)
    assert done.unknown == ("inner", "new")


def test_a_declaration_that_contradicts_itself_is_refused_where_it_stands() -> None:
    with pytest.raises(ValueError, match="no column that must have a value"):
        whole_set("orders", "alliance", Route("/orders"), Part(Order, gone=EMPTIED))
    with pytest.raises(ValueError, match="no versions of their own"):
        whole_set("kills", "alliance", Route("/kills"), Part(Kills), of="system_id", stamp="at")


def test_a_set_fills_its_tables_and_its_ids_become_known(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1, 0.5, 99_000_002, 99_000_003), campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    assert mirrored.rows(Campaign) == [(1, 99_000_001, 5, 0.5, None), (2, 99_000_001, 5, 0.5, None)]
    assert mirrored.rows(Participant) == [(1, 99_000_002, 0.1), (1, 99_000_003, 0.1)]
    assert mirrored.seen("alliance") == {99_000_001, 99_000_002, 99_000_003}
    found = sets.stored(mirrored.store, "campaigns", LIST_ID)
    assert found == sets.Stored(START.replace(microsecond=0), 1, 2, None)
    assert (ledger.job(mirrored.store, "campaigns", LIST_ID) or {})["status"] == "completed"


def test_what_a_later_version_names_no_more_is_gone_in_each_table_by_its_own_word(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1, 0.5, 99_000_002, 99_000_003), campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    mirrored.later()
    mirrored.esi.pages[PATH] = [[campaign(1, 0.6, 99_000_003)]]
    mirrored.ask(CAMPAIGNS)
    ended = mirrored.now
    assert mirrored.rows(Campaign) == [(1, 99_000_001, 5, 0.6, None), (2, 99_000_001, 5, 0.5, ended)]
    assert mirrored.rows(Participant) == [(1, 99_000_003, 0.1)]


def test_the_same_version_costs_one_request_and_an_older_one_changes_nothing(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1)], [campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    before, at = mirrored.rows(Campaign), mirrored.esi.version
    mirrored.esi.asked.clear()
    # When the same version is there again, and then an older one that names less
    for version in (at, at - dt.timedelta(minutes=5)):
        mirrored.now += dt.timedelta(minutes=6)
        mirrored.esi.version = version
        mirrored.esi.pages[PATH] = [[campaign(3)], [campaign(4)]]
        mirrored.ask(CAMPAIGNS)
    # Then each was asked once, unconditionally: an ETag would be of the first page alone
    assert mirrored.esi.asked == [(PATH, None)] * 2
    assert mirrored.rows(Campaign) == before
    job = ledger.job(mirrored.store, "campaigns", LIST_ID) or {}
    assert (job["status"], job["etag"]) == ("completed", None)


def test_a_set_of_one_page_is_asked_with_its_etag(mirrored: Mirror) -> None:
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"a"', [[campaign(1)]]
    for _ in range(2):
        mirrored.ask(CAMPAIGNS)
        mirrored.later()
    assert [etag for _, etag in mirrored.esi.asked] == [None, '"a"']
    assert (ledger.job(mirrored.store, "campaigns", LIST_ID) or {})["etag"] == '"a"'
    assert len(mirrored.rows(Campaign)) == 1


def test_a_set_of_which_nothing_is_stored_is_asked_without_its_etag(mirrored: Mirror) -> None:
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"a"', [[campaign(1)]]
    mirrored.ask(CAMPAIGNS)
    mirrored.store.rows("DELETE FROM sets")
    mirrored.store.rows("DELETE FROM campaigns")
    mirrored.later()
    mirrored.ask(CAMPAIGNS)
    assert len(mirrored.rows(Campaign)) == 1


def test_an_older_version_that_was_read_beside_a_newer_one_changes_nothing(mirrored: Mirror) -> None:
    # Given two workers, of which one has read an older version and is late to write it
    mirrored.esi.pages[PATH] = [[campaign(1)]]
    (late,) = CAMPAIGNS.sync(CAMPAIGNS, [Job("campaigns", LIST_ID)], mirrored.edges)
    mirrored.later()
    mirrored.esi.pages[PATH] = [[campaign(1, 0.9, 99_000_007)]]
    mirrored.ask(CAMPAIGNS)
    before = mirrored.rows(Campaign), mirrored.rows(Participant)
    # When it writes it
    assert isinstance(late, Done)
    ledger.finish(mirrored.store, "campaigns", [late])
    # Then what is newer stands
    assert (mirrored.rows(Campaign), mirrored.rows(Participant)) == before
    found = sets.stored(mirrored.store, "campaigns", LIST_ID)
    assert found is not None
    assert found.at == mirrored.esi.version.replace(microsecond=0)


def test_a_version_that_shrinks_further_is_another_one(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1 + one) for one in range(100)]]
    mirrored.ask(CAMPAIGNS)
    for count, open_ones in ((40, 100), (0, 100), (0, 0)):
        mirrored.later()
        mirrored.esi.pages[PATH] = [[campaign(1 + one) for one in range(count)]]
        mirrored.ask(CAMPAIGNS)
        assert len([row for row in mirrored.rows(Campaign) if row[-1] is None]) == open_ones


def test_an_older_answer_leaves_no_etag_behind(mirrored: Mirror) -> None:
    # Given a second version, and then an answer of the first, out of an old cache
    for etag, key in (('"a"', 1), ('"b"', 2)):
        mirrored.later()
        mirrored.esi.etag, mirrored.esi.pages[PATH] = etag, [[campaign(key)]]
        mirrored.ask(CAMPAIGNS)
    newest = mirrored.now
    mirrored.now += dt.timedelta(minutes=6)
    mirrored.esi.etag, mirrored.esi.version = '"a"', newest - dt.timedelta(minutes=6)
    mirrored.ask(CAMPAIGNS)
    # When a third version is what the first was
    mirrored.later()
    mirrored.esi.pages[PATH] = [[campaign(1)]]
    mirrored.ask(CAMPAIGNS)
    # Then it is there
    assert [row[0] for row in mirrored.rows(Campaign) if row[-1] is None] == [1]


def test_a_304_for_the_answer_of_another_worker_changes_nothing(mirrored: Mirror) -> None:
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"a"', [[campaign(1)]]
    mirrored.ask(CAMPAIGNS)
    job = Job("campaigns", LIST_ID, etag='"a"')
    edges = replace(mirrored.edges, stored=lambda *_: sets.stored(mirrored.store, "campaigns", LIST_ID))
    (late,) = CAMPAIGNS.sync(CAMPAIGNS, [job], edges)
    mirrored.later()
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"b"', [[campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    assert isinstance(late, Done)
    ledger.finish(mirrored.store, "campaigns", [late])
    assert (ledger.job(mirrored.store, "campaigns", LIST_ID) or {})["etag"] == '"b"'


def test_another_compatibility_date_has_the_same_version_read_again(mirrored: Mirror) -> None:
    mirrored.esi.pages[PATH] = [[campaign(1)], [campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    mirrored.store.run(lambda: ledger.forget_etags(mirrored.store))
    mirrored.now += dt.timedelta(minutes=6)
    mirrored.esi.pages[PATH] = [[campaign(1, 0.9)], [campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    assert [row[3] for row in mirrored.rows(Campaign)] == [0.9, 0.5]


def test_a_set_that_changes_under_the_reader_waits_for_its_next_version_and_has_not_failed(mirrored: Mirror) -> None:
    torn: list[Body] = [[campaign(1)], [campaign(2)]]
    mirrored.esi.pages[PATH] = torn
    send = mirrored.esi.send

    def tear(request: Any, *more: Any, **named: Any) -> requests.Response:
        mirrored.esi.version += dt.timedelta(seconds=1)
        return send(request, *more, **named)

    mirrored.esi.send = tear  # type: ignore[method-assign]
    mirrored.ask(CAMPAIGNS)
    job = ledger.job(mirrored.store, "campaigns", LIST_ID) or {}
    assert (job["status"], job["retry_count"], len(mirrored.esi.asked)) == ("pending", 0, 6)
    due_s = (utc_time(job["due_at"]) - mirrored.now).total_seconds()  # type: ignore[operator]
    assert 290 < due_s < 340


def test_a_set_that_was_emptied_once_stays_and_is_emptied_when_that_is_said_again(
    mirrored: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"a"', [[campaign(1), campaign(2)]]
    mirrored.ask(CAMPAIGNS)
    # When ESI says that there is none
    mirrored.later()
    mirrored.esi.etag, mirrored.esi.pages[PATH] = '"none"', [[]]
    with caplog.at_level(logging.WARNING):
        mirrored.ask(CAMPAIGNS)
        # Then the rows stay, the same version says nothing more, and a line names both numbers
        mirrored.now += dt.timedelta(minutes=6)
        mirrored.ask(CAMPAIGNS)
    assert len(mirrored.rows(Campaign)) == 2
    (line,) = [one for one in caplog.records if one.getMessage() == "set.suspect"]
    assert "has 0 rows, where 2 are stored" in str(line.esid_words)  # type: ignore[attr-defined]
    # And a later version with the same ETag is believed
    mirrored.later()
    mirrored.ask(CAMPAIGNS)
    assert [row[-1] for row in mirrored.rows(Campaign)] == [mirrored.now, mirrored.now]
    assert sets.stored(mirrored.store, "campaigns", LIST_ID) == sets.Stored(mirrored.now.replace(microsecond=0), 1, 0, None)


def claims(count: int) -> list[Body]:
    """So many members on one page."""
    return [[{"solar_system_id": 30_000_000 + one, "alliance_id": 99_000_001} for one in range(count)]]


@pytest.mark.parametrize(("before", "after"), [(100, 94), (100, 0), (2, 0)])
def test_a_set_that_cannot_shrink_never_does(mirrored: Mirror, before: int, after: int) -> None:
    mirrored.esi.pages["/sovereignty/systems"] = claims(before)
    mirrored.ask(CLAIMS)
    mirrored.esi.pages["/sovereignty/systems"] = claims(after)
    for _ in range(3):
        mirrored.later()
        mirrored.ask(CLAIMS)
    assert [row[1] for row in mirrored.rows(Claim)] == [99_000_001] * before
    # And whole again it is as if nothing had been
    mirrored.later()
    mirrored.esi.pages["/sovereignty/systems"] = claims(before + 1)
    mirrored.ask(CLAIMS)
    assert len(mirrored.rows(Claim)) == before + 1
    found = sets.stored(mirrored.store, "claims", LIST_ID)
    assert found is not None
    assert found.suspect_at is None


@pytest.mark.parametrize(("before", "after"), [(100, 95), (49, 1)])
def test_a_few_may_go_and_a_small_set_may_shrink(mirrored: Mirror, before: int, after: int) -> None:
    mirrored.esi.pages["/sovereignty/systems"] = claims(before)
    mirrored.ask(CLAIMS)
    mirrored.later()
    mirrored.esi.pages["/sovereignty/systems"] = claims(after)
    mirrored.ask(CLAIMS)
    # Those that cannot be gone are there without values
    assert [row[1] for row in mirrored.rows(Claim)] == [99_000_001] * after + [None] * (before - after)


@pytest.mark.parametrize(
    ("members", "is_read"),
    [
        ([campaign(1), campaign(1)], True),
        ([campaign(1), campaign(1, 0.9)], False),
        ([campaign(1), {"campaign_id": "x"}], False),
        ([campaign(1), campaign(2, 0.5, 0)], False),
        ([campaign(1), None], False),
        ({"campaigns": []}, False),
    ],
)
def test_one_bad_member_fails_the_whole_version(mirrored: Mirror, members: Any, is_read: bool) -> None:
    mirrored.esi.pages[PATH] = [[campaign(7)]]
    mirrored.ask(CAMPAIGNS)
    mirrored.later()
    mirrored.esi.pages[PATH] = [members]
    mirrored.ask(CAMPAIGNS)
    assert [row[0] for row in mirrored.rows(Campaign)] == ([1, 7] if is_read else [7])
    # A route of which there is one fails as ESI does, and is asked again when there is another version
    job = ledger.job(mirrored.store, "campaigns", LIST_ID) or {}
    assert job["status"] == ("completed" if is_read else "pending")
    if not is_read:
        assert (utc_time(job["due_at"]) - mirrored.now).total_seconds() >= CAMPAIGNS.route.cache_s  # type: ignore[operator]


def test_a_set_of_one_scope_leaves_the_others_alone(mirrored: Mirror) -> None:
    def orders(region: int, *keys: int) -> None:
        pages: list[Body] = [[{"order_id": key, "price": 1.0}] for key in keys]
        mirrored.esi.pages[f"/markets/{region}/orders&order_type=all"] = pages

    orders(10, 1, 2)
    orders(20, 3)
    mirrored.ask(ORDERS, 10, 20)
    mirrored.later()
    orders(10, 1)
    mirrored.ask(ORDERS, 10, 20)
    assert mirrored.rows(Order) == [(1, 10, 1.0), (3, 20, 1.0)]
    changed = {key: (ledger.job(mirrored.store, "orders", key) or {})["changed_at"] for key in (10, 20)}
    assert changed[10] != changed[20]
    # An id that ESI does not know is a dead letter of its own
    mirrored.ask(ORDERS, 30)
    assert (ledger.job(mirrored.store, "orders", 30) or {})["error"].startswith("not_found")


def test_each_version_of_a_stamped_set_stays(mirrored: Mirror) -> None:
    times = []
    for kills in (3, 4):
        mirrored.esi.pages["/universe/system_kills"] = [[{"system_id": 1, "ship_kills": kills}]]
        mirrored.ask(KILLS)
        times.append(mirrored.esi.version.replace(microsecond=0))
        mirrored.later(90)
    assert mirrored.rows(Kills) == [(1, times[0], 3), (1, times[1], 4)]


def test_daily_sets_are_compared_by_content_and_never_asked_with_an_etag(mirrored: Mirror) -> None:
    mirrored.esi.etag = '"of all daily routes"'
    for alliance in (99_000_001, 99_000_002):
        mirrored.esi.pages["/fw/wars"] = [[{"solar_system_id": 1, "alliance_id": alliance}]]
        mirrored.ask(DAILY)
        mirrored.now += dt.timedelta(days=1)
    assert [etag for _, etag in mirrored.esi.asked] == [None, None]
    assert mirrored.rows(Claim) == [(1, 99_000_002, None)]


def test_a_daily_set_whose_version_never_moves_shrinks_when_that_is_said_again(mirrored: Mirror) -> None:
    shrinking = whole_set(
        "daily", "alliance", Route("/fw/wars", cache_s=86_400.0, is_daily=True), Part(Order), may_shrink=True
    )
    version = mirrored.esi.version
    for found, left in (([1, 2], 2), ([], 2), ([], 0)):
        mirrored.esi.pages["/fw/wars"] = [[{"order_id": one, "region_id": 1, "price": 1.0} for one in found]]
        mirrored.ask(shrinking)
        assert len(mirrored.rows(Order)) == left
        mirrored.later(24 * 60)
        mirrored.esi.version = version


def test_a_daily_list_is_never_asked_with_an_etag(mirrored: Mirror) -> None:
    mirrored.esi.etag, mirrored.esi.pages["/corporations/npccorps"] = '"of all daily routes"', [[1_000_001]]
    for _ in range(2):
        mirrored.ask(BY_NAME["npccorps"])
        mirrored.now += dt.timedelta(days=1, hours=1)
    assert [etag for _, etag in mirrored.esi.asked] == [None, None]


def test_every_version_of_a_stamped_set_is_kept_however_few_it_names(mirrored: Mirror) -> None:
    mirrored.esi.etag = '"the same"'
    for count in (300, 100, 300):
        mirrored.esi.pages["/universe/system_kills"] = [[{"system_id": 1 + one, "ship_kills": 1} for one in range(count)]]
        mirrored.ask(KILLS)
        mirrored.later(90)
    assert len(mirrored.rows(Kills)) == 700
    assert {etag for _, etag in mirrored.esi.asked} == {None}


def test_an_older_history_overwrites_no_newer_one(mirrored: Mirror) -> None:
    path = "/characters/90000001/corporationhistory"
    mirrored.esi.pages[path] = [[{"record_id": 1, "corporation_id": 98_000_001}]]
    (late,) = HISTORY.sync(HISTORY, [Job("history", 90_000_001)], mirrored.edges)
    mirrored.later()
    mirrored.esi.pages[path] = [[{"record_id": 1, "corporation_id": 98_000_002}]]
    mirrored.ask(HISTORY, 90_000_001)
    assert isinstance(late, Done)
    ledger.finish(mirrored.store, "history", [late])
    assert mirrored.rows(Record) == [(90_000_001, 1, 98_000_002)]


def test_the_audit_lets_a_history_rest(mirrored: Mirror) -> None:
    mirrored.esi.pages["/characters/90000001/corporationhistory"] = [[{"record_id": 1, "corporation_id": 98_000_001}]]
    mirrored.ask(HISTORY, 90_000_001)
    assert audit.look(mirrored.store, [tasks.kind(HISTORY)]) == {}
    assert (ledger.job(mirrored.store, "history", 90_000_001) or {})["next_at"] is None


def test_a_history_is_asked_once_and_a_record_that_disappears_stays(mirrored: Mirror) -> None:
    path = "/characters/90000001/corporationhistory"
    mirrored.esi.pages[path] = [
        [{"record_id": 1, "corporation_id": 98_000_001}, {"record_id": 2, "corporation_id": 98_000_002}]
    ]
    mirrored.ask(HISTORY, 90_000_001)
    job = ledger.job(mirrored.store, "history", 90_000_001) or {}
    assert (job["status"], job["expires_at"], job["next_at"]) == ("completed", None, None)
    mirrored.store.run(lambda: ledger.reopen(mirrored.store, "history", [90_000_001]))
    mirrored.esi.pages[path] = [[{"record_id": 2, "corporation_id": 98_000_003}]]
    mirrored.later()
    mirrored.ask(HISTORY, 90_000_001)
    assert mirrored.rows(Record) == [(90_000_001, 1, 98_000_001), (90_000_001, 2, 98_000_003)]
    assert mirrored.seen("corporation") == {98_000_001, 98_000_002, 98_000_003}


def test_a_list_of_the_newest_is_followed_down_to_what_is_known(mirrored: Mirror) -> None:
    esi = mirrored.esi
    # Given a first list, which is not followed: what is older is for the archives
    esi.pages["/wars"] = [[30, 29, 28]]
    mirrored.ask(WARS)
    assert [url for url, _ in esi.asked] == ["/wars"]
    assert mirrored.seen("killmail") == {30, 29, 28}
    # And an answer about the newest of them
    mirrored.store.rows("UPDATE sync_jobs SET checked_at = updated_at WHERE entity_type = 'killmail' AND entity_id = 30")
    # When many more are there than one list has
    esi.asked.clear()
    esi.pages |= {"/wars": [[40, 39, 38]], "/wars&max_war_id=38": [[37, 36, 35]], "/wars&max_war_id=35": [[34, 31, 29]]}
    mirrored.later(70)
    mirrored.ask(WARS)
    # Then none is left out, and no list is asked that has nothing new
    assert [url for url, _ in esi.asked] == ["/wars", "/wars?max_war_id=38", "/wars?max_war_id=35"]
    assert mirrored.seen("killmail") == {28, 29, 30, 31, 34, 35, 36, 37, 38, 39, 40}


def test_a_list_far_longer_than_before_is_not_believed_at_once(mirrored: Mirror) -> None:
    mirrored.esi.pages["/wars"] = [list(range(1, 30_000))]
    edges = replace(mirrored.edges, disbelieved=partial(notes.disbelieved, mirrored.store))
    (failed,) = WARS.sync(WARS, [Job("wars", LIST_ID)], edges)
    assert isinstance(failed, base.Failed)
    assert isinstance(failed.error, Implausible)


def test_a_list_of_ids_from_0_names_it(mirrored: Mirror) -> None:
    kinds = listing("kinds", "alliance", Route("/universe/types"), of="kind", most=100, first=0)
    mirrored.esi.pages["/universe/types"] = [[0, 1]]
    mirrored.ask(kinds)
    assert mirrored.seen("kind") == {0, 1}


def test_a_dead_letter_of_id_0_is_asked_again(mirrored: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ENTITIES", (KIND,))
    mirrored.ask(KIND, 0, 1)
    requests_ = asking.Asking(mirrored.store, mirrored.publisher, "work")
    assert requests_.retry_dead(Filter()) == 2


def test_of_more_new_ids_than_are_believed_the_rest_is_named(mirrored: Mirror, caplog: pytest.LogCaptureFixture) -> None:
    wars = by_max_id("wars", "killmail", Route("/wars"), of="killmail", most=4, parameter="max_war_id")
    mirrored.store.run(lambda: ledger.discover(mirrored.store, [Seen("killmail", 1)], mirrored.now, ()))
    mirrored.store.rows("UPDATE sync_jobs SET checked_at = updated_at WHERE entity_type = 'killmail'")
    mirrored.esi.pages |= {"/wars": [[40, 39]], "/wars&max_war_id=39": [[38, 37]], "/wars&max_war_id=37": [[36]]}
    with caplog.at_level(logging.WARNING):
        mirrored.ask(wars)
    assert mirrored.seen("killmail") == {1, 37, 38, 39, 40}
    (line,) = [one for one in caplog.records if one.getMessage() == "list.gap"]
    assert "those between 1 and 37 are left to the archives" in str(line.esid_words)  # type: ignore[attr-defined]


def test_a_list_that_says_the_same_again_is_not_followed_for_ever(mirrored: Mirror) -> None:
    mirrored.store.run(lambda: ledger.discover(mirrored.store, [Seen("killmail", 1)], mirrored.now, ()))
    mirrored.store.rows("UPDATE sync_jobs SET checked_at = updated_at WHERE entity_type = 'killmail'")
    mirrored.esi.pages |= {"/wars": [[40, 39]], "/wars&max_war_id=39": [[40, 39]]}
    mirrored.ask(WARS)
    assert len(mirrored.esi.asked) == 2
    assert mirrored.seen("killmail") == {1, 39, 40}


def test_an_entity_whose_ids_begin_with_0_has_it(mirrored: Mirror) -> None:
    assert (KIND.first_id, CAMPAIGNS.first_id, BY_NAME["alliance"].first_id) == (0, 1, 1)
    mirrored.esi.pages["/universe/types/0"] = {"name": "#System"}
    mirrored.ask(KIND, 0)
    assert mirrored.rows(Kind) == [(0, "#System")]
