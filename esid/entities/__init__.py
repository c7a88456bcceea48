"""WHAT is mirrored: one page for each entity, and this list. A new entity is a page, a line here, a migration, a fixture."""

from esid import catalogue
from esid.entities.alliance import ALLIANCE, ALLIANCE_CORPORATIONS, ALLIANCES
from esid.entities.base import Entity
from esid.entities.character import AFFILIATION, CHARACTER, NAMES
from esid.entities.corporation import CORPORATION, NPCCORPS
from esid.entities.killmail import KILLMAIL
from esid.esi.routes import STATUS, Route

#: Every entity, lists before what they list.
ENTITIES: tuple[Entity, ...] = (
    ALLIANCES,
    NPCCORPS,
    ALLIANCE,
    ALLIANCE_CORPORATIONS,
    CORPORATION,
    CHARACTER,
    KILLMAIL,
)
#: Every route of ESI that is asked: the budget keeps a circuit for each.
ROUTES: tuple[Route, ...] = (STATUS, *(entity.route for entity in ENTITIES), AFFILIATION, NAMES)
BY_NAME = {entity.name: entity for entity in ENTITIES}

#: The entities with a row for each id: what `esid enqueue` and `esid show` name.
MIRRORED = tuple(entity for entity in ENTITIES if entity.own)

#: By lane what is there once, lists of ids and whole sets: what a full sync begins with.
LISTS = {lane: tuple(e for e in ENTITIES if e.lane == lane and e.is_single) for lane in catalogue.NAMES}
