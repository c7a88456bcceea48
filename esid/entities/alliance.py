"""Alliances: the list of the active ones, details, member corporations. A closed alliance keeps its row."""

from __future__ import annotations

from esid.entities.columns import Id, Text, Time
from esid.entities.flows import each, listing
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


ALLIANCE = each("alliance", "alliance", Route("/alliances/{id}"), Alliance, lists=("alliance_corporations",))
#: There are 3,533 active alliances, and CCP's specification caps the list at 5,000.
ALLIANCES = listing("alliances", "alliance", Route("/alliances", largest=LARGEST_LIST), of="alliance", most=10_000)
#: CCP's specification caps this one at 1,000.
ALLIANCE_CORPORATIONS = listing(
    "alliance_corporations",
    "alliance",
    Route("/alliances/{id}/corporations", largest=LARGEST_LIST),
    of="corporation",
    most=5_000,
)
