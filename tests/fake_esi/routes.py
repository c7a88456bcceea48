"""The routes: which body each gives, how long it may be cached, and which bucket pays for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.fake_esi import fixtures, shapes
from tests.fake_esi.clock import next_daily_expiry
from tests.fake_esi.content import Freshness
from tests.fake_esi.fixtures import Fixture
from tests.fake_esi.world import Body, World

MAX_IDS = 1000
DAILY = -1
_MAX_ID = 2**63 - 1


class EsiError(Exception):
    """Makes the route answer `status` with `{"error": message}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Question:
    """What a route needs to know: the pieces of its path, the shape's date, the body of a POST."""

    params: tuple[str, ...]
    schema_date: str
    body: bytes


Answerer = Callable[[World, Question], object]


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path; `ttl_s` is DAILY for 11:05 and None for no cache; dates newest first."""

    method: str
    pattern: re.Pattern[str]
    answer: Answerer
    ttl_s: int | None = None
    group: str | None = None
    schema_dates: tuple[str, ...] = ()

    def freshness(self, now: float) -> Freshness | None:
        """The validity of an answer made at `now`, None where the route has no cache headers."""
        if self.ttl_s is None:
            return None
        made = int(now)
        if self.ttl_s == DAILY:
            return Freshness(made, next_daily_expiry(now), weak=True)
        return Freshness(made, made + self.ttl_s)

    def schema_date(self, compatibility_date: str) -> str:
        """The newest shape of this route that the compatibility date allows."""
        return next((each for each in self.schema_dates if each <= compatibility_date), shapes.OLDEST)


def parse_ids(body: bytes) -> tuple[int, ...]:
    """The ids of a POST body: 1 to 1000 unique positive integers, else EsiError 400."""
    try:
        ids = json.loads(body)
    except ValueError:
        raise EsiError(400, "Invalid JSON in request body") from None
    if not isinstance(ids, list) or not all(type(each) is int and 0 < each <= _MAX_ID for each in ids):
        raise EsiError(400, "ids must be positive integers")
    if not 1 <= len(ids) <= MAX_IDS:
        raise EsiError(400, f"between 1 and {MAX_IDS} ids must be given")
    if len(set(ids)) != len(ids):
        raise EsiError(400, "ids must be unique")
    return tuple(ids)


def _id(text: str, first: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and first <= int(text) <= _MAX_ID):
        raise EsiError(400, f"failed to coerce value '{text}' into a positive integer id")
    return int(text)


def _alliances(world: World, _question: Question) -> object:
    return [each for each in list(world.alliances) if each not in world.closed_alliances]


def _alliance(world: World, question: Question) -> object:
    return _found(world.alliances, _id(question.params[0]), "Alliance not found")


def _alliance_corporations(world: World, question: Question) -> object:
    alliance_id = _id(question.params[0])
    _found(world.alliances, alliance_id, "Alliance not found")
    return [] if alliance_id in world.closed_alliances else world.alliance_corporations.get(alliance_id, [])


def _npc_corporations(world: World, _question: Question) -> object:
    return world.npc_corporations


def _corporation(world: World, question: Question) -> object:
    body = _found(world.corporations, _id(question.params[0]), "Corporation not found")
    return body if question.schema_date == shapes.CORPORATION_DATE else shapes.old_corporation(body)


def _character(world: World, question: Question) -> object:
    body = _living_character(world, _id(question.params[0]))
    return body if question.schema_date == shapes.CHARACTER_DATE else shapes.old_character(body)


def _killmail(world: World, question: Question) -> object:
    killmail_id, killmail_hash = _id(question.params[0]), question.params[1]
    if not re.fullmatch("[0-9a-fA-F]{40}", killmail_hash):
        raise EsiError(400, "killmail_hash must be 40 hexadecimal digits")
    body = world.killmails.get((killmail_id, killmail_hash))
    if body is None:
        raise EsiError(422, "Invalid killmail_id and/or killmail_hash")
    return body


def _status(world: World, _question: Question) -> object:
    return world.status


def _affiliation(world: World, question: Question) -> object:
    return [_affiliation_of(each, _living_character(world, each)) for each in parse_ids(question.body)]


def _affiliation_of(character_id: int, body: Body) -> Body:
    keys = ("alliance_id", "corporation_id", "faction_id")
    return {"character_id": character_id} | {key: body[key] for key in keys if key in body}


def _names(world: World, question: Question) -> object:
    return [_name(world, each) for each in parse_ids(question.body)]


def _name(world: World, entity_id: int) -> Body:
    kinds = {"alliance": world.alliances, "corporation": world.corporations, "character": world.characters}
    for category, bodies in kinds.items():
        if entity_id in bodies and entity_id not in world.deleted_characters:
            return {"category": category, "id": entity_id, "name": bodies[entity_id]["name"]}
    raise EsiError(404, "Ensure all IDs are valid before resolving.")


def _living_character(world: World, character_id: int) -> Body:
    if character_id in world.deleted_characters:
        raise EsiError(404, "Character has been deleted!")
    return _found(world.characters, character_id, "Character not found")


def _found(bodies: dict[int, Body], entity_id: int, message: str) -> Body:
    body = bodies.get(entity_id)
    if body is None:
        raise EsiError(404, message)
    return body


def _nowhere(_world: World, _question: Question) -> object:
    raise EsiError(404, "Requested route does not exist")


def _get(path: str, answer: Answerer, ttl_s: int, group: str | None = None, *dates: str) -> Route:
    return Route("GET", _pattern(path), answer, ttl_s, group, dates)


def _post(path: str, answer: Answerer) -> Route:
    return Route("POST", _pattern(path), answer)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(path.replace("{}", "([^/]+)") + "/?")


def _fixture(name: str, fixture: Fixture) -> Route:
    def answer(world: World, question: Question) -> object:
        if fixture.id is not None and _id(question.params[0], first=0) != fixture.id:
            raise EsiError(404, "Not found")
        return world.bodies[name]

    return _get(fixture.route, answer, DAILY if fixture.ttl_s is None else fixture.ttl_s, fixture.group)


_NOWHERE = Route("", re.compile(""), _nowhere)
_ROUTES = (
    _get("/characters/{}", _character, 86400, None, shapes.CHARACTER_DATE),
    _get("/corporations/npccorps", _npc_corporations, DAILY),
    _get("/corporations/{}", _corporation, 3600, None, shapes.CORPORATION_DATE),
    _get("/alliances/{}", _alliance, 3600),
    _get("/alliances/{}/corporations", _alliance_corporations, 3600),
    _get("/alliances", _alliances, 3600),
    _get("/killmails/{}/{}", _killmail, 2592000, "killmail"),
    _get("/status", _status, 30, "status"),
    _post("/characters/affiliation", _affiliation),
    _post("/universe/names", _names),
    *(_fixture(name, one) for name, one in fixtures.BY_NAME.items()),
)


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route for a method and a path without its query, and the pieces of the path it takes."""
    for route in _ROUTES:
        if route.method == method and (match := route.pattern.fullmatch(path)):
            return route, match.groups()
    return _NOWHERE, ()
