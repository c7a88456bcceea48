"""The pages of the entities: what each answer means, full, minimal and wrong; and the halving of a bulk request."""

from __future__ import annotations

import copy
import datetime as dt
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from esid.entities import BY_NAME, ENTITIES, LISTS, base, ids
from esid.entities.alliance import Alliance
from esid.entities.base import Edges, Failed, is_due
from esid.entities.character import AFFILIATION, NAMES, Character, Halving
from esid.entities.corporation import Corporation
from esid.entities.killmail import HASH, Attacker, Killmail, KillmailItem
from esid.errors import BadField, EsiUnavailable, Held, NotFound
from esid.esi.answers import Answer
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.routes import Route
from esid.store.model import Done, Job, Row, Seen
from tests.fake_esi import FakeEsi, World, fixtures

AT = dt.datetime(2026, 9, 27, 22, 0, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(hours=1)
HEX = "8f1450fca8ce97be9b10e106a1257088407ef387"
STAMPS = {"created_at", "updated_at"}
WRONG_IDS = [1.5, True, "7", -1, 0, 2**63, [], {}]
ZKILL = {"total_value", "destroyed_value", "dropped_value", "fitted_value", "points", "npc", "solo", "awox"}

ALLIANCE: dict[str, Any] = fixtures.BY_NAME["alliance"].body
CORPORATION: dict[str, Any] = fixtures.BY_NAME["corporation"].body
CHARACTER: dict[str, Any] = {
    "achievement_score": 0,
    "alliance_id": 99000001,
    "birthday": "2010-01-15T15:26:00Z",
    "bloodline_id": 4,
    "character_title_id": "00000000-0000-4000-8000-000000000000",
    "corporation_id": 98000001,
    "corporation_title": "<b>Diplomat</b>",
    "description": "",
    "faction_id": 500001,
    "gender": "male",
    "name": "P",
    "race_id": 2,
    "security_status": 0.0,
}
KILLMAIL: dict[str, Any] = {
    "attackers": [
        {
            "alliance_id": 99000002,
            "character_id": 90000002,
            "corporation_id": 98000002,
            "damage_done": 10,
            "faction_id": 500002,
            "final_blow": True,
            "security_status": -0.5,
            "ship_type_id": 587,
            "weapon_type_id": 3186,
        },
        {"damage_done": 0, "final_blow": False, "security_status": 0},
    ],
    "killmail_id": 5,
    "killmail_time": "2020-02-14T23:25:07Z",
    "moon_id": 40000001,
    "solar_system_id": 30000142,
    "victim": {
        "alliance_id": 99000001,
        "character_id": 90000001,
        "corporation_id": 98000001,
        "damage_taken": 0,
        "faction_id": 500001,
        "items": [{"flag": 5, "item_type_id": 34, "quantity_dropped": 1, "singleton": 0}],
        "position": {"x": 0.0, "y": -1.5, "z": 2e12},
        "ship_type_id": 670,
    },
    "war_id": 7,
}
BODIES = {"alliance": ALLIANCE, "corporation": CORPORATION, "character": CHARACTER, "killmail": KILLMAIL}
KEYS = {"alliance": 99000009, "corporation": 98000009, "character": 90000009, "killmail": 5}
MINIMAL: dict[str, dict[str, Any]] = {
    "alliance": {
        name: ALLIANCE[name] for name in ("creator_corporation_id", "creator_id", "date_founded", "name", "ticker")
    },
    "corporation": {name: CORPORATION[name] for name in ("name", "ticker", "member_count")},
    "character": {
        name: CHARACTER[name] for name in ("name", "birthday", "bloodline_id", "race_id", "gender", "corporation_id")
    },
    "killmail": {
        "attackers": [],
        "killmail_id": 5,
        "killmail_time": "2008-02-14T23:25:07Z",
        "solar_system_id": 30000142,
        "victim": {"damage_taken": 0, "ship_type_id": 670},
    },
}


def answer(body: Any) -> Answer:
    """A new answer with this body."""
    return Answer(body=body, is_new=True, etag='"e"', checked_at=AT, expires_at=LATER)


def parse(entity: str, body: Any, key: int | None = None) -> Done:
    """What the page of the entity makes of a body."""
    job = Job(entity, KEYS.get(entity, 1) if key is None else key, argument=HEX if entity == "killmail" else None)
    return BY_NAME[entity].parse(job, answer(body))


def refusal(entity: str, body: Any) -> str:
    """The words with which the page refuses a body."""
    with pytest.raises(BadField) as caught:
        parse(entity, body)
    return str(caught.value)


def rows(done: Done, model: type) -> list[dict[str, Any]]:
    """The values of the rows of one table."""
    return [row.values for row in done.rows if row.model is model]


def changed(body: dict[str, Any], *path: str | int, **values: Any) -> dict[str, Any]:
    """A copy of the body with other fields in the object at the path; `None` takes a field away."""
    made = copy.deepcopy(body)
    place: Any = made
    for step in path:
        place = place[step]
    for name, value in values.items():
        place.pop(name, None)
        if value is not None:
            place[name] = value
    return made


def seen(entity: str, *keys: int, asked: bool = True) -> list[Seen]:
    """Ids that became known."""
    return [Seen(entity, key, asked=asked) for key in keys]


# -- the list of entities


def test_every_entity_is_found_by_its_name_and_lists_come_first() -> None:
    assert list(BY_NAME) == [entity.name for entity in ENTITIES]
    assert len(BY_NAME) == len(ENTITIES)
    for name, singles in LISTS.items():
        rows = [place for place, entity in enumerate(ENTITIES) if entity.lane == name and entity.own]
        assert all(ENTITIES.index(one) < min(rows) for one in singles if one.most and rows)


def test_every_table_with_an_odd_page_has_the_columns_of_the_design() -> None:
    columns = {model._meta.table_name: set(model._meta.fields) - STAMPS for entity in ENTITIES for model in entity.tables}
    odd = {
        "characters": {"id", "title", *CHARACTER} - {"corporation_title", "character_title_id", "achievement_score"},
        "killmails": set(rows(parse("killmail", KILLMAIL), Killmail)[0]) | ZKILL,
        "attackers": {"killmail_id", "seq", *KILLMAIL["attackers"][0]},
        "killmail_items": {
            "killmail_id", "seq", "parent_seq", "item_type_id", "flag", "quantity_dropped", "quantity_destroyed", "singleton"
        },
    }  # fmt: skip
    assert {name: columns[name] for name in odd} == odd


# -- what holds for all


@pytest.mark.parametrize("entity", BODIES)
def test_an_answer_carries_its_etag_and_times(entity: str) -> None:
    done = parse(entity, BODIES[entity])
    assert (done.id, done.etag, done.unfinished) == (KEYS[entity], '"e"', False)
    # A killmail never changes: its answer cannot grow old, nor be older than another.
    assert (done.checked_at, done.expires_at) == ((None, None) if entity == "killmail" else (AT, LATER))


@pytest.mark.parametrize("entity", BODIES)
def test_a_known_field_is_not_unknown_and_a_new_one_is_named_and_ignored(entity: str) -> None:
    assert parse(entity, BODIES[entity]).unknown == ()
    grown = parse(entity, BODIES[entity] | {"new_field": {"a": [1]}, "other": None})
    assert grown.unknown == ("new_field", "other")
    assert grown.rows == parse(entity, BODIES[entity]).rows


@pytest.mark.parametrize("entity", BODIES)
@pytest.mark.parametrize("body", [None, [], [{}], "x", 7, True], ids=repr)
def test_a_body_that_is_no_object_is_refused(entity: str, body: Any) -> None:
    assert f"{entity} {KEYS[entity]}: field '(body)'" in refusal(entity, body)


ID_FIELDS = [
    *[("alliance", name) for name in ALLIANCE if name.endswith("_id")],
    *[("corporation", name) for name in CORPORATION if name.endswith("_id")],
    *[("character", name) for name in CHARACTER if name.endswith("_id") and name != "character_title_id"],
    *[("killmail", name) for name in KILLMAIL if name.endswith("_id")],
]


@pytest.mark.parametrize("value", WRONG_IDS, ids=repr)
@pytest.mark.parametrize(("entity", "name"), ID_FIELDS)
def test_a_wrong_id_is_refused_by_entity_field_and_value(entity: str, name: str, value: Any) -> None:
    words = refusal(entity, BODIES[entity] | {name: value})
    assert words == f"{entity} {KEYS[entity]}: field {name!r} has the value {value!r}"


@pytest.mark.parametrize(("entity", "name"), [(entity, name) for entity, body in MINIMAL.items() for name in body])
@pytest.mark.parametrize("null", [False, True], ids=["absent", "null"])
def test_a_needed_field_that_is_absent_or_null_is_refused_by_name(entity: str, name: str, null: bool) -> None:
    body = changed(BODIES[entity], **{name: None})
    assert f"field {name!r} has the value None" in refusal(entity, body | {name: None} if null else body)


@pytest.mark.parametrize(
    ("entity", "name"), [(entity, name) for entity, body in BODIES.items() for name in body if name not in MINIMAL[entity]]
)
def test_an_optional_field_that_is_null_is_as_good_as_absent(entity: str, name: str) -> None:
    absent = changed(BODIES[entity], **{name: None})
    assert parse(entity, absent | {name: None}).rows == parse(entity, absent).rows


@pytest.mark.parametrize(
    ("entity", "model", "empty"),
    [
        ("alliance", Alliance, {"executor_corporation_id", "faction_id"}),
        ("corporation", Corporation, set(Corporation._meta.fields) - STAMPS - {"id", "name", "ticker", "member_count"}),
        ("killmail", Killmail, {name for name in Killmail._meta.fields if name.startswith("victim_")}
         - {"victim_ship_type_id", "victim_damage_taken"} | {"moon_id", "war_id"}),
    ],
)  # fmt: skip
def test_a_minimal_body_writes_null_into_every_optional_column(entity: str, model: type, empty: set[str]) -> None:
    (values,) = rows(parse(entity, MINIMAL[entity]), model)
    assert {name for name, value in values.items() if value is None} == empty
    assert set(values) == set(model._meta.fields) - STAMPS - ZKILL  # type: ignore[attr-defined]


# -- alliances


def test_an_alliance_is_a_row_and_makes_its_people_known() -> None:
    done = parse("alliance", ALLIANCE)
    assert done.rows == (Row(Alliance, {"id": 99000009, **ALLIANCE, "date_founded": when(ALLIANCE["date_founded"])}),)
    assert list(done.seen) == [
        *seen("alliance_corporations", 99000009), *seen("corporation", 98000001), *seen("character", 90000001),
        *seen("corporation", 98000002),
    ]  # fmt: skip


def when(text: str) -> dt.datetime:
    """An aware time."""
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("entity", "known"), [("alliances", "alliance"), ("alliance_corporations", "corporation"), ("npccorps", "corporation")]
)
def test_a_list_of_ids_makes_each_known_once(entity: str, known: str) -> None:
    done = parse(entity, [2000001, 2000003, 2000001])
    assert (done.rows, list(done.seen)) == ((), seen(known, 2000001, 2000003))
    assert parse(entity, []).seen == ()


@pytest.mark.parametrize("entity", ["alliances", "alliance_corporations", "npccorps"])
@pytest.mark.parametrize("body", [None, {}, [1, None], [1, "2"], [2**63], [[1]], "x"], ids=repr)
def test_a_list_of_ids_that_is_none_is_refused(entity: str, body: Any) -> None:
    assert refusal(entity, body).startswith(entity)


# -- which ids are asked


@pytest.mark.parametrize(
    ("known", "key", "asked"),
    [
        (ids.seen_character, 1, False),
        (ids.seen_character, 500021, False),
        (ids.seen_character, 3019491, False),
        (ids.seen_character, 3_999_999, False),
        (ids.seen_character, 4_000_000, True),
        (ids.seen_character, 90000001, True),
        (ids.seen_character, 2_112_000_000, True),
        (ids.seen_corporation, 1, False),
        (ids.seen_corporation, 500021, False),
        (ids.seen_corporation, 1_000_000, True),
        (ids.seen_corporation, 1000171, True),
        (ids.seen_corporation, 98000001, True),
        (ids.seen_alliance, 1, False),
        (ids.seen_alliance, 99000001, True),
    ],
)
def test_placeholders_and_npcs_are_known_and_not_asked(known: Any, key: int, asked: bool) -> None:
    (one,) = known(key)
    assert (one.id, one.asked) == (key, asked)


@pytest.mark.parametrize("known", [ids.seen_character, ids.seen_corporation, ids.seen_alliance])
def test_an_absent_id_makes_nothing_known(known: Any) -> None:
    assert known(None) == []


# -- corporations


def test_a_corporation_is_a_row_and_makes_its_people_known() -> None:
    done = parse("corporation", CORPORATION)
    (values,) = rows(done, Corporation)
    wanted = {name: value for name, value in CORPORATION.items() if name in Corporation._meta.fields}
    wanted |= {"id": 98000009, "faction_id": 500001, "tax_rate": 0.056, "date_founded": when(CORPORATION["date_founded"])}
    assert values == wanted
    assert list(done.seen) == [*seen("character", 90000001, 90000002), *seen("alliance", 99000001)]


def test_both_shapes_of_a_corporation_give_the_same_row() -> None:
    new = changed(CORPORATION, friendly_fire=None, palette=None, state=None, type=None)
    old = changed(new, tax_rates=None, enlisted_faction_id=None, tax_rate=0.056, faction_id=500001)
    assert parse("corporation", old) == parse("corporation", new)


@pytest.mark.parametrize(
    ("percent", "fraction"), [(5.6, 0.056), (0, 0.0), (0.0, 0.0), (100, 1.0), (12.5, 0.125), (0.1, 0.001), (33.3, 0.333)]
)
def test_a_tax_in_percent_is_stored_as_a_fraction(percent: float, fraction: float) -> None:
    (values,) = rows(parse("corporation", CORPORATION | {"tax_rates": {"isk": percent}}), Corporation)
    assert values["tax_rate"] == fraction
    assert type(values["tax_rate"]) is float


@pytest.mark.parametrize("old", [0.0, 0, 0.056, 0.10000000149011612, 1.0])
def test_a_tax_as_a_fraction_is_stored_as_it_is(old: float) -> None:
    (values,) = rows(parse("corporation", changed(CORPORATION, tax_rates=None) | {"tax_rate": old}), Corporation)
    assert values["tax_rate"] == old


@pytest.mark.parametrize("rates", [{}, {"loyalty_point": 5.0}, {"isk": None}], ids=str)
def test_tax_rates_without_isk_are_no_tax_rate(rates: dict[str, Any]) -> None:
    (values,) = rows(parse("corporation", CORPORATION | {"tax_rates": rates}), Corporation)
    assert values["tax_rate"] is None


@pytest.mark.parametrize("rates", [5.6, [], "x", {"isk": "5.6"}, {"isk": True}], ids=repr)
def test_tax_rates_of_another_shape_are_refused(rates: Any) -> None:
    assert refusal("corporation", CORPORATION | {"tax_rates": rates}).startswith("corporation 98000009")


def test_a_placeholder_for_the_ceo_is_stored_and_not_asked() -> None:
    done = parse("corporation", CORPORATION | {"ceo_id": 1, "creator_id": 1})
    (values,) = rows(done, Corporation)
    assert (values["ceo_id"], values["creator_id"]) == (1, 1)
    assert list(done.seen) == [*seen("character", 1, 1, asked=False), *seen("alliance", 99000001)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("member_count", "5"), ("shares", 1.5), ("war_eligible", 1), ("url", 7), ("name", ["x"]), ("state", True)],
)
def test_a_field_of_a_corporation_of_another_type_is_refused(name: str, value: Any) -> None:
    assert f"field {name!r}" in refusal("corporation", CORPORATION | {name: value})


# -- characters


def test_a_character_is_details_and_an_affiliation_that_yields_to_a_later_look() -> None:
    done = parse("character", CHARACTER)
    names = ("name", "bloodline_id", "race_id", "gender", "security_status", "description")
    details = {name: CHARACTER[name] for name in names}
    details |= {"id": 90000009, "birthday": when(CHARACTER["birthday"]), "title": "<b>Diplomat</b>"}
    affiliation = {"id": 90000009, "corporation_id": 98000001, "alliance_id": 99000001, "faction_id": 500001}
    assert done.rows == (
        Row(Character, details, guard="expires_at"),
        Row(Character, affiliation, guard="checked_at"),
    )
    assert list(done.seen) == [*seen("corporation", 98000001), *seen("alliance", 99000001)]


def test_a_minimal_character_writes_null_into_every_optional_column() -> None:
    details, affiliation = rows(parse("character", MINIMAL["character"]), Character)
    assert {name for name, value in details.items() if value is None} == {"security_status", "description", "title"}
    assert {name for name, value in affiliation.items() if value is None} == {"alliance_id", "faction_id"}
    assert set(details) | set(affiliation) == set(Character._meta.fields) - STAMPS


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"corporation_title": "new"}, "new"),
        ({"title": "old"}, "old"),
        ({"corporation_title": "new", "title": "old"}, "new"),
        ({"corporation_title": ""}, ""),
        ({"corporation_title": None}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_title_of_a_character_stands_in_either_field(fields: dict[str, Any], title: str | None) -> None:
    details, _ = rows(parse("character", changed(CHARACTER, corporation_title=None) | fields), Character)
    assert details["title"] == title


# -- killmails


def test_a_killmail_is_its_rows_in_order() -> None:
    done = parse("killmail", KILLMAIL)
    assert [row.model for row in done.rows] == [Killmail, Attacker, Attacker, KillmailItem]
    (values,) = rows(done, Killmail)
    victim = KILLMAIL["victim"]
    assert values == {
        "id": 5,
        "hash": HEX,
        "killmail_time": when(KILLMAIL["killmail_time"]),
        "solar_system_id": 30000142,
        "moon_id": 40000001,
        "war_id": 7,
        **{f"victim_{name}": victim[name] for name in victim if name not in {"items", "position"}},
        "victim_position_x": 0.0,
        "victim_position_y": -1.5,
        "victim_position_z": 2e12,
        "attacker_count": 2,
    }


def test_attackers_keep_their_order_and_may_have_no_id_at_all() -> None:
    first, second = rows(parse("killmail", KILLMAIL), Attacker)
    assert first == {"killmail_id": 5, "seq": 0, **KILLMAIL["attackers"][0]}
    nobody = dict.fromkeys(KILLMAIL["attackers"][0]) | {"damage_done": 0, "final_blow": False, "security_status": 0.0}
    assert second == {"killmail_id": 5, "seq": 1, **nobody}


def item(type_id: int, *inside: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An item with others in it."""
    made = {"flag": 5, "item_type_id": type_id, "singleton": 0, **more}
    return made | {"items": list(inside)} if inside else made


def test_nested_items_lie_under_their_parents_in_depth_first_order() -> None:
    items = [item(1), item(2, item(3, item(4)), item(5)), item(6, item(7)), item(1)]
    got = rows(parse("killmail", changed(KILLMAIL, "victim", items=items)), KillmailItem)
    assert [(one["seq"], one["parent_seq"], one["item_type_id"]) for one in got] == [
        (0, None, 1), (1, None, 2), (2, 1, 3), (3, 2, 4), (4, 1, 5), (5, None, 6), (6, 5, 7), (7, None, 1)
    ]  # fmt: skip


def test_items_nested_beyond_any_stack_are_walked() -> None:
    nested = item(9)
    for _ in range(5000):
        nested = item(9, nested)
    body = KILLMAIL | {"victim": KILLMAIL["victim"] | {"items": [nested]}}
    assert len(rows(parse("killmail", body), KillmailItem)) == 5001


def test_an_item_keeps_its_quantities_and_its_singleton() -> None:
    items = [item(1, quantity_dropped=0), item(2, quantity_destroyed=9_000_000_000, singleton=2)]
    first, second = rows(parse("killmail", changed(KILLMAIL, "victim", items=items)), KillmailItem)
    assert (first["quantity_dropped"], first["quantity_destroyed"], first["singleton"]) == (0, None, 0)
    assert (second["quantity_dropped"], second["quantity_destroyed"], second["singleton"]) == (None, 9_000_000_000, 2)


@pytest.mark.parametrize("items", [None, []], ids=["absent", "empty"])
def test_a_victim_without_items_has_no_rows_of_them(items: Any) -> None:
    body = changed(KILLMAIL, "victim", items=None)
    body["victim"] |= {} if items is None else {"items": items}
    assert rows(parse("killmail", body), KillmailItem) == []


def test_everybody_on_a_killmail_becomes_known_and_nobody_is_invented() -> None:
    done = parse("killmail", KILLMAIL)
    assert sorted(done.seen, key=repr) == sorted(
        [
            *seen("character", 90000001, 90000002),
            *seen("corporation", 98000001, 98000002),
            *seen("alliance", 99000001, 99000002),
        ],
        key=repr,
    )


def test_a_minimal_killmail_makes_nobody_known() -> None:
    assert parse("killmail", MINIMAL["killmail"]).seen == ()


def test_npcs_on_a_killmail_are_known_and_not_asked() -> None:
    body = changed(KILLMAIL, "attackers", 0, character_id=3019491, corporation_id=1000274, alliance_id=None)
    found = [one for one in parse("killmail", body).seen if one.id in {3019491, 1000274}]
    assert found == [Seen("character", 3019491, asked=False), Seen("corporation", 1000274)]


def test_a_killmail_with_another_id_is_refused() -> None:
    assert refusal("killmail", KILLMAIL | {"killmail_id": 6}) == "killmail 5: field 'killmail_id' has the value 6"


@pytest.mark.parametrize("value", WRONG_IDS, ids=repr)
@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("victim",), "character_id"),
        (("victim",), "corporation_id"),
        (("victim",), "alliance_id"),
        (("victim",), "faction_id"),
        (("victim",), "ship_type_id"),
        (("attackers", 0), "character_id"),
        (("attackers", 0), "corporation_id"),
        (("attackers", 0), "alliance_id"),
        (("attackers", 0), "faction_id"),
        (("attackers", 0), "ship_type_id"),
        (("attackers", 0), "weapon_type_id"),
        (("victim", "items", 0), "item_type_id"),
    ],
    ids=str,
)
def test_a_wrong_id_deep_in_a_killmail_is_refused_by_name(path: tuple[str | int, ...], name: str, value: Any) -> None:
    words = refusal("killmail", changed(KILLMAIL, *path, **{name: value}))
    assert words.startswith("killmail 5 ")
    assert f"field {name!r} has the value {value!r}" in words


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ((), "victim", []),
        ((), "attackers", {}),
        ((), "attackers", [None]),
        ((), "killmail_time", 7),
        (("victim",), "position", [0, 0, 0]),
        (("victim",), "position", {"x": 1.0, "y": 2.0}),
        (("victim",), "items", {}),
        (("victim",), "items", [7]),
        (("victim",), "damage_taken", "0"),
        (("victim", "items", 0), "flag", "5"),
        (("victim", "items", 0), "singleton", True),
        (("victim", "items", 0), "quantity_dropped", 1.5),
        (("victim", "position"), "x", math.inf),
        (("attackers", 0), "damage_done", "10"),
        (("attackers", 0), "final_blow", 1),
        (("attackers", 0), "security_status", "0"),
    ],
)
def test_a_part_of_a_killmail_of_another_type_is_refused(path: tuple[str | int, ...], name: str, value: Any) -> None:
    assert refusal("killmail", changed(KILLMAIL, *path, **{name: value})).startswith("killmail 5")


@pytest.mark.parametrize(
    ("text", "fits"),
    [(HEX, True), (HEX.upper(), False), (HEX[:39], False), (HEX + "0", False), ("CCP VERIFIED", False), ("", False)],
)
def test_a_hash_is_forty_lower_hexadecimal_digits(text: str, fits: bool) -> None:
    assert bool(HASH.fullmatch(text)) is fits


# -- asking one by one


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    """A budget of its own for each test, without a pace."""
    opened = Budget(tmp_path / "budget", Limits(max_rps=0))
    yield opened
    opened.close()


@pytest.fixture
def crowd() -> World:
    """A world of a thousand characters."""
    return World.generate(alliances=3, corporations=500, characters=1000)


@pytest.fixture
def crowded(crowd: World) -> Iterator[FakeEsi]:
    """ESI with that world, at the beginning of an error window."""
    with FakeEsi(crowd) as server:
        server.clock.advance(60 - server.clock.now() % 60 + 0.1)
        yield server


class Memory:
    """The memory of ids that break a batch, without a database."""

    def __init__(self, *kept: int) -> None:
        self.kept = set(kept)
        self.kept_s: dict[int, float] = {}

    def edges(self, esi: FakeEsi, budget: Budget) -> Edges:
        """What a flow may touch."""
        return Edges(Client(esi.base_url, budget), lambda _, asked: self.kept & set(asked), self._keep)

    def _keep(self, _: str, bad: Sequence[int], seconds: float) -> None:
        self.kept.update(bad)
        self.kept_s |= dict.fromkeys(bad, seconds)


def test_one_refused_id_does_not_keep_the_others(esi: FakeEsi, world: World, budget: Budget) -> None:
    first, second = list(world.alliances)[:2]
    jobs = [Job("alliance", key) for key in (first, 1, second)]
    entity = BY_NAME["alliance"]
    results = list(entity.sync(entity, jobs, Memory().edges(esi, budget)))
    assert [type(result) for result in results] == [Done, Failed, Done]
    assert isinstance(results[1], Failed)
    assert (results[1].job, type(results[1].error)) == (jobs[1], NotFound)


def test_a_304_is_done_without_rows(esi: FakeEsi, world: World, budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "wants_whole", lambda _: False)
    key, entity, edges = next(iter(world.alliances)), BY_NAME["alliance"], Memory().edges(esi, budget)
    (new,) = entity.sync(entity, [Job("alliance", key)], edges)
    esi.clock.advance(3601)
    assert isinstance(new, Done)
    (again,) = entity.sync(entity, [Job("alliance", key, etag=new.etag)], edges)
    assert isinstance(again, Done)
    assert (again.rows, again.seen, again.etag) == ((), (), new.etag)


def test_now_and_then_an_answer_is_asked_for_whole(
    esi: FakeEsi, world: World, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an ETag that stays although the data change: a 304 would be believed for ever
    key, entity, edges = next(iter(world.alliances)), BY_NAME["alliance"], Memory().edges(esi, budget)
    (new,) = entity.sync(entity, [Job("alliance", key)], edges)
    assert isinstance(new, Done)
    esi.clock.advance(3601)
    monkeypatch.setattr(base, "wants_whole", lambda _: True)
    (again,) = entity.sync(entity, [Job("alliance", key, etag=new.etag)], edges)
    assert isinstance(again, Done)
    assert again.rows
    assert [request.headers.get("if-none-match") for request in esi.log] == [None, None]


@pytest.mark.parametrize(("cache_s", "every"), [(3600.0, 24), (86_400.0, 10), (300.0, 288)])
def test_each_tenth_look_or_one_a_day_is_whole_whichever_is_later(cache_s: float, every: int) -> None:
    looks = every * 400
    whole = sum(base.wants_whole(Route("/x/{id}", cache_s=cache_s)) for _ in range(looks))
    assert 0.7 * 400 < whole < 1.3 * 400


@pytest.mark.parametrize(("expires_s", "due"), [(None, True), (-1, True), (60, False)])
def test_a_job_is_due_when_it_was_never_asked_or_has_expired(expires_s: float | None, due: bool) -> None:
    expires_at = None if expires_s is None else dt.datetime.now(dt.UTC) + dt.timedelta(seconds=expires_s)
    assert is_due(Job("character", 1, expires_at=expires_at)) is due


# -- asking in bulk


def spread(keys: list[int], count: int) -> set[int]:
    """So many of the keys, far from each other."""
    return {keys[(place * len(keys)) // count + 7] for place in range(count)}


@pytest.mark.parametrize("count", [1, 2, 10])
def test_halving_finds_exactly_the_bad_ids_among_a_thousand(
    crowd: World, crowded: FakeEsi, budget: Budget, count: int
) -> None:
    keys = list(crowd.characters)
    crowd.deleted_characters = spread(keys, count)
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, keys)
    assert got.error is None
    assert set(got.bad) == crowd.deleted_characters
    answered = [row["character_id"] for answer in got.answers for row in answer.body]
    assert len(answered) == len(set(answered)) == 1000 - count
    assert crowded.count(status=404) <= count * (math.ceil(math.log2(1000)) + 2)


@pytest.mark.parametrize("place", [0, 1, 499, 500, 998, 999])
def test_one_bad_id_costs_no_more_than_its_bisection_wherever_it_stands(
    crowd: World, crowded: FakeEsi, budget: Budget, place: int
) -> None:
    keys = list(crowd.characters)
    crowd.deleted_characters = {keys[place]}
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, keys)
    assert got.bad == [keys[place]]
    assert crowded.count(status=404) <= 2 * math.ceil(math.log2(1000)) + 2
    assert len(crowded.log) <= 2 * math.ceil(math.log2(1000)) + 2


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_halving_finds_the_bad_ids_when_all_are_bad(crowd: World, crowded: FakeEsi, budget: Budget, size: int) -> None:
    keys = list(crowd.characters)[:size]
    crowd.deleted_characters = set(keys)
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, keys)
    assert (got.bad, got.answers, got.error) == (keys, [], None)


def test_halving_nothing_asks_nothing(crowded: FakeEsi, budget: Budget) -> None:
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, [])
    assert (got.answers, got.bad, got.error, crowded.log) == ([], [], None, [])


def test_good_ids_are_one_request(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, list(crowd.characters))
    assert (len(got.answers), got.bad, len(crowded.log)) == (1, [], 1)


def test_an_outage_in_the_middle_is_told_and_what_was_found_before_stands(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys = list(crowd.characters)[:8]
    left = [{"character_id": key, "corporation_id": 98000001} for key in keys[:4]]
    for what in ({"status": 404}, {"json": left}, {"status": 503}):
        crowded.faults.add(AFFILIATION.path, times=1, **what)
    crowd.deleted_characters = {keys[5], keys[7]}
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, keys)
    # The whole is refused, the left half is answered, the right one (its twin) is known to be bad and halved: 503, as for
    # a sick id in it. So they are asked alone.
    assert got.error is None
    assert got.answers[0].body == left
    assert got.bad == [keys[5], keys[7]]
    asked = [tuple(keys), tuple(keys[:4]), tuple(keys[4:6]), (keys[4],), tuple(keys[6:]), (keys[6],), (keys[7],)]
    assert [request.ids for request in crowded.log if request.ids != (keys[5],)] == asked


def test_one_sick_id_in_a_batch_costs_a_few_requests_and_the_others_are_answered(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys = list(crowd.characters)[:1000]
    for sick in (keys[0], keys[-1], keys[333]):
        crowd.sick_ids = {sick}
        before = len(crowded.log)
        got = Halving(Client(crowded.base_url, budget), AFFILIATION, keys)
        assert (got.error, got.bad) == (None, [sick])
        answered = {row["character_id"] for answer in got.answers for row in answer.body}
        assert answered == set(keys) - {sick}
        assert len(crowded.log) - before < 30


@pytest.mark.parametrize(("what", "most"), [("sick_ids", 30), ("deleted_characters", 90)])
def test_a_batch_with_many_bad_ids_is_not_halved_to_the_end(
    crowd: World, crowded: FakeEsi, budget: Budget, what: str, most: int
) -> None:
    # Given a tenth of the ids that spoil a batch: to find each costs several errors, and alone each costs one
    keys, entity, memory = list(crowd.characters)[:400], BY_NAME["character"], Memory()
    bad = set(keys[::10])
    setattr(crowd, what, bad)
    results = list(entity.sync(entity, [Job("character", key) for key in keys], memory.edges(crowded, budget)))
    # Then few are found and remembered, nobody has failed, and who was not answered is left to its own route
    assert crowded.count(AFFILIATION.path) - crowded.count(AFFILIATION.path, status=200) <= most
    assert memory.kept
    assert memory.kept <= bad
    assert [one.id for one in results if isinstance(one, Done) and one.unfinished] == keys


def test_a_bulk_route_that_fails_at_whatever_is_asked_is_found_out_by_five_requests(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    crowded.faults.add(AFFILIATION.path, status=500)
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, list(crowd.characters))
    assert isinstance(got.error, Held)
    assert (len(crowded.requests(AFFILIATION.path)), got.bad, got.answers) == (5, [], [])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_that_is_about_no_id_is_not_halved(crowd: World, crowded: FakeEsi, budget: Budget, status: int) -> None:
    crowded.faults.add(AFFILIATION.path, status=status)
    got = Halving(Client(crowded.base_url, budget), AFFILIATION, list(crowd.characters))
    assert got.error is not None
    assert (len(crowded.log), got.bad) == (1, [])


def test_many_new_characters_are_known_in_part_after_two_requests(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    keys, entity = list(crowd.characters), BY_NAME["character"]
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    assert [request.path for request in crowded.log] == [AFFILIATION.path, NAMES.path]
    assert [result.id for result in results if isinstance(result, Done)] == keys
    for result in results:
        assert isinstance(result, Done)
        affiliation, name = result.rows
        body = crowd.characters[result.id]
        wanted = {one: body.get(one) for one in ("corporation_id", "alliance_id", "faction_id")}
        assert affiliation == Row(Character, {"id": result.id, **wanted}, guard="checked_at")
        assert name == Row(Character, {"id": result.id, "name": body["name"]})
        assert result.unfinished
        assert result.checked_at is not None


def test_a_deleted_character_in_a_batch_is_remembered_and_left_to_its_own_route(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys, entity, memory = list(crowd.characters), BY_NAME["character"], Memory()
    crowd.deleted_characters = {keys[77]}
    results = list(entity.sync(entity, [Job("character", key) for key in keys], memory.edges(crowded, budget)))
    assert memory.kept == {keys[77]}
    (bad,) = [one for one in results if isinstance(one, Done) and one.id == keys[77]]
    assert (bad.rows, bad.unfinished) == ((), True)
    crowded.clear_log()
    list(entity.sync(entity, [Job("character", key) for key in keys], memory.edges(crowded, budget)))
    assert [request.status for request in crowded.log] == [200, 200]
    assert all(keys[77] not in request.ids for request in crowded.log)


def test_a_fresh_affiliation_is_not_asked_again(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    now, entity = dt.datetime.now(dt.UTC), BY_NAME["character"]
    later = now + dt.timedelta(hours=9)
    jobs = [Job("character", key, checked_at=now, expires_at=later) for key in crowd.characters]
    results = list(entity.sync(entity, jobs, Memory().edges(crowded, budget)))
    assert crowded.log == []
    assert all(isinstance(one, Done) and not one.rows and not one.unfinished for one in results)


def test_an_outage_of_the_bulk_route_is_booked_on_no_character(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    crowded.faults.add(AFFILIATION.path, status=503)
    entity, memory, results = BY_NAME["character"], Memory(), list[object]()
    with pytest.raises(Held):
        results += entity.sync(entity, [Job("character", key) for key in crowd.characters], memory.edges(crowded, budget))
    assert (results, memory.kept) == ([], set())


def test_an_id_that_an_affiliation_leaves_out_is_left_to_its_own_route(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys, entity, memory = list(crowd.characters)[:20], BY_NAME["character"], Memory()
    crowded.faults.add(AFFILIATION.path, json=[{"character_id": key, "corporation_id": 98000001} for key in keys[1:]])
    results = list(entity.sync(entity, [Job("character", key) for key in keys], memory.edges(crowded, budget)))
    assert memory.kept == {keys[0]}
    assert [one.id for one in results if isinstance(one, Done) and not one.rows] == keys[:1]


def test_an_affiliation_that_is_empty_bans_nobody_from_batches(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    # An empty list for good ids is an outage rather than news of a thousand.
    entity, memory = BY_NAME["character"], Memory()
    crowded.faults.add(AFFILIATION.path, json=[])
    list(entity.sync(entity, [Job("character", key) for key in crowd.characters], memory.edges(crowded, budget)))
    assert memory.kept == set()


@pytest.mark.parametrize("left", [1, 500, 899])
def test_an_affiliation_that_lacks_many_bans_nobody_from_batches(
    crowd: World, crowded: FakeEsi, budget: Budget, left: int
) -> None:
    keys, entity, memory = list(crowd.characters), BY_NAME["character"], Memory()
    crowded.faults.add(AFFILIATION.path, json=[{"character_id": key, "corporation_id": 98000001} for key in keys[:left]])
    results = list(entity.sync(entity, [Job("character", key) for key in keys], memory.edges(crowded, budget)))
    assert memory.kept == set()
    assert {one.id for one in results if isinstance(one, Done)} == set(keys)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_bulk_route_that_refuses_whatever_is_asked_bans_nobody_and_costs_few_errors(
    crowd: World, crowded: FakeEsi, budget: Budget, status: int
) -> None:
    # Given characters of which half are known with their details
    keys, entity, memory = list(crowd.characters), BY_NAME["character"], Memory()
    now = dt.datetime.now(dt.UTC)
    long_ago, later = now - dt.timedelta(days=1), now + dt.timedelta(hours=9)
    jobs = [Job("character", key) for key in keys[:500]]
    jobs += [Job("character", key, checked_at=long_ago, expires_at=later) for key in keys[500:]]
    for route in (AFFILIATION, NAMES):
        crowded.faults.add(route.path, status=status)
    results = list(entity.sync(entity, jobs, memory.edges(crowded, budget)))
    # Then nobody is taken for bad: who is due is left to its own route, and the others wait for the next attempt
    assert memory.kept == set()
    assert [one.id for one in results if isinstance(one, Done)] == keys[:500]
    failed = [one for one in results if isinstance(one, Failed)]
    assert [one.job.id for one in failed] == keys[500:]
    assert all(isinstance(one.error, EsiUnavailable) for one in failed)
    assert len(crowded.log) <= 120


@pytest.mark.parametrize("status", [400, 404, 422])
def test_of_a_few_that_a_bulk_route_refuses_all_nobody_is_left_out_of_batches_for_long(
    crowd: World, crowded: FakeEsi, budget: Budget, status: int
) -> None:
    # Given a few characters, of whom nobody is answered: it may be about the route
    entity, memory, now = BY_NAME["character"], Memory(), dt.datetime.now(dt.UTC)
    known = {"checked_at": now - dt.timedelta(hours=2), "expires_at": now + dt.timedelta(hours=9)}
    jobs = [Job("character", key, **known) for key in list(crowd.characters)[:9]]
    crowded.faults.add(AFFILIATION.path, status=status)
    list(entity.sync(entity, jobs, memory.edges(crowded, budget)))
    assert set(memory.kept_s.values()) == {1800.0}
    # And where one other is answered, it is about them
    crowded.faults.clear()
    crowd.deleted_characters = {jobs[0].id}
    memory = Memory()
    list(entity.sync(entity, jobs, memory.edges(crowded, budget)))
    assert memory.kept_s == {jobs[0].id: 21 * 86_400.0}
    # And who makes them fail may be well again soon
    crowd.deleted_characters, crowd.sick_ids, memory = set(), {jobs[5].id}, Memory()
    list(entity.sync(entity, jobs, memory.edges(crowded, budget)))
    assert memory.kept_s == {jobs[5].id: 86_400.0}


def test_batches_of_known_ids_that_are_refused_one_after_the_other_tell_that_the_route_is_away(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys, client = list(crowd.characters), Client(crowded.base_url, budget)
    crowded.faults.add(AFFILIATION.path, status=404)
    halves = [Halving(client, AFFILIATION, keys[place : place + 3], known=True) for place in range(0, 30, 3)]
    assert [isinstance(one.error, Held) for one in halves] == [False] * 4 + [True] * 6
    assert [one.bad for one in halves[4:]] == [[]] * 6


def test_a_search_for_bad_ids_that_is_cut_off_before_any_was_accepted_bans_nobody(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    entity, memory = BY_NAME["character"], Memory()
    crowded.faults.add(AFFILIATION.path, times=14, status=404)
    crowded.faults.add(AFFILIATION.path, status=503)
    list(entity.sync(entity, [Job("character", key) for key in crowd.characters], memory.edges(crowded, budget)))
    assert crowded.count(status=404) == 14
    assert memory.kept == set()


WRONG_ROWS = [
    {"character_id": None, "corporation_id": 98000001},
    {"character_id": "7", "corporation_id": 98000001},
    {"corporation_id": 98000001},
    7,
]


@pytest.mark.parametrize("wrong", WRONG_ROWS, ids=str)
def test_one_wrong_row_of_an_affiliation_does_not_fail_the_others(
    crowd: World, crowded: FakeEsi, budget: Budget, wrong: object
) -> None:
    keys, entity = list(crowd.characters)[:20], BY_NAME["character"]
    good = [{"character_id": key, "corporation_id": 98000001} for key in keys[1:]]
    crowded.faults.add(AFFILIATION.path, json=[wrong, *good])
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    assert {one.id for one in results if isinstance(one, Done) and one.rows} >= set(keys[1:])


def test_a_row_with_a_wrong_corporation_fails_that_character_alone(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    keys, entity = list(crowd.characters)[:20], BY_NAME["character"]
    rows_ = [{"character_id": key, "corporation_id": 98000001 if key != keys[0] else "x"} for key in keys]
    crowded.faults.add(AFFILIATION.path, json=rows_)
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    failed = [one for one in results if isinstance(one, Failed)]
    assert [one.job.id for one in failed] == [keys[0]]
    assert str(failed[0].error) == "affiliation: field 'corporation_id' has the value 'x'"


@pytest.mark.parametrize("wrong", [{"id": None, "name": "x", "category": "character"}, {"id": 7}, 7], ids=str)
def test_one_wrong_row_of_the_names_does_not_fail_the_affiliations(
    crowd: World, crowded: FakeEsi, budget: Budget, wrong: object
) -> None:
    keys, entity = list(crowd.characters)[:20], BY_NAME["character"]
    crowded.faults.add(NAMES.path, json=[wrong])
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    assert [one.id for one in results if isinstance(one, Done) and one.rows] == keys


def test_an_outage_of_the_names_does_not_fail_the_affiliations(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    keys, entity = list(crowd.characters)[:20], BY_NAME["character"]
    crowded.faults.add(NAMES.path, status=503)
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    assert [one.id for one in results if isinstance(one, Done) and one.rows] == keys


def test_the_name_of_what_is_no_character_is_not_taken(crowd: World, crowded: FakeEsi, budget: Budget) -> None:
    keys, entity = list(crowd.characters)[:20], BY_NAME["character"]
    crowded.faults.add(NAMES.path, json=[{"id": key, "name": "x", "category": "corporation"} for key in keys])
    results = list(entity.sync(entity, [Job("character", key) for key in keys], Memory().edges(crowded, budget)))
    assert all(isinstance(one, Done) and len(one.rows) == 1 for one in results)


def test_a_few_due_characters_are_asked_one_by_one_and_the_others_in_bulk(
    crowd: World, crowded: FakeEsi, budget: Budget
) -> None:
    keys, entity = list(crowd.characters)[:5], BY_NAME["character"]
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=9)
    jobs = [Job("character", key, expires_at=later if place < 2 else None) for place, key in enumerate(keys)]
    list(entity.sync(entity, jobs, Memory().edges(crowded, budget)))
    assert [request.path for request in crowded.log] == [*(f"/characters/{key}" for key in keys[2:]), AFFILIATION.path]
    assert crowded.log[-1].ids == tuple(keys[:2])
