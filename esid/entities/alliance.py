"""Alliances: the list of the active ones, details, member corporations. A closed alliance keeps its row."""

from __future__ import annotations

from esid.entities.base import Entity, parse_ids, parse_row
from esid.entities.columns import Id, Text, Time
from esid.entities.ids import seen_alliance, seen_corporation
from esid.esi.routes import LARGEST_LIST, Route
from esid.store.model import EntityTable


class Alliance(EntityTable):
    """GET /alliances/{id}."""

    name = Text()
    ticker = Text()
    date_founded = Time()
    creator_corporation_id = Id(to="corporation")
    creator_id = Id(to="character")
    #: NULL when the alliance is closed.
    executor_corporation_id = Id(to="corporation", null=True)
    faction_id = Id(null=True)

    class Meta:
        table_name = "alliances"


ALLIANCE = Entity(
    "alliance",
    "alliance",
    Route("/alliances/{id}"),
    parse_row(Alliance, lists=("alliance_corporations",)),
    (Alliance,),
)
#: There are 3,533 active alliances, and CCP's specification caps the list at 5,000.
ALLIANCES = Entity("alliances", "alliance", Route("/alliances", largest=LARGEST_LIST), parse_ids(seen_alliance), most=10_000)
#: CCP's specification caps this one at 1,000.
ALLIANCE_CORPORATIONS = Entity(
    "alliance_corporations",
    "alliance",
    Route("/alliances/{id}/corporations", largest=LARGEST_LIST),
    parse_ids(seen_corporation),
    most=5_000,
)
