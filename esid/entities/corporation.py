"""Corporations of players and NPCs, in both shapes of ESI's answer (before and since 2026-07-21)."""

from __future__ import annotations

from esid.entities.columns import Flag, Id, Integer, Number, Text, Time
from esid.entities.flows import each, listing
from esid.esi.decode import Fields
from esid.esi.routes import LARGEST_LIST, Route
from esid.store.model import EntityTable


def _tax_rate(fields: Fields) -> float | None:
    """`tax_rate` is a fraction, `tax_rates.isk` a percentage; 12 decimals keep 5.6 % from becoming 0.05599999999999999."""
    rates = fields.object("tax_rates", optional=True)
    if rates is None:
        fraction: float | None = fields.number("tax_rate", optional=True)
        return fraction
    percent = rates.number("isk", optional=True)
    return None if percent is None else round(percent / 100, 12)


class Corporation(EntityTable):
    """GET /corporations/{id}."""

    name = Text()
    ticker = Text()
    member_count = Integer()
    ceo_id = Id(to="character", null=True)
    creator_id = Id(to="character", null=True)
    date_founded = Time(null=True)
    description = Text(null=True)
    alliance_id = Id(to="alliance", null=True)
    faction_id = Id(of=("enlisted_faction_id", "faction_id"), null=True)
    home_station_id = Id(null=True)
    shares = Integer(null=True)
    #: A fraction from 0 to 1, whichever shape ESI sent.
    tax_rate = Number(of=("tax_rates", "tax_rate"), read=_tax_rate, null=True)
    url = Text(null=True)
    war_eligible = Flag(null=True)
    state = Text(null=True)
    type = Text(null=True)
    friendly_fire = Text(null=True)

    class Meta:
        table_name = "corporations"


CORPORATION = each("corporation", "corporation", Route("/corporations/{id}"), Corporation, unused=("palette",))
#: There are 283, and CCP's specification caps the list at 500.
NPCCORPS = listing(
    "npccorps",
    "corporation",
    Route("/corporations/npccorps", cache_s=86_400.0, largest=LARGEST_LIST, is_daily=True),
    of="corporation",
    most=2_000,
)
