"""Corporations of players and NPCs, in both shapes of ESI's answer (before and since 2026-07-21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peewee import BigIntegerField, BooleanField, DoubleField, TextField

from esid.entities.base import Entity, done, parse_ids
from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.esi.decode import Fields
from esid.esi.routes import LARGEST_LIST, Route
from esid.store.model import Done, EntityTable, Job, Row, UtcField

if TYPE_CHECKING:
    from esid.esi.answers import Answer


class Corporation(EntityTable):
    """GET /corporations/{id}."""

    name = TextField()
    ticker = TextField()
    member_count = BigIntegerField()
    ceo_id = BigIntegerField(null=True)
    creator_id = BigIntegerField(null=True)
    date_founded = UtcField(null=True)
    description = TextField(null=True)
    alliance_id = BigIntegerField(null=True)
    faction_id = BigIntegerField(null=True)
    home_station_id = BigIntegerField(null=True)
    shares = BigIntegerField(null=True)
    #: A fraction from 0 to 1, whichever shape ESI sent.
    tax_rate = DoubleField(null=True)
    url = TextField(null=True)
    war_eligible = BooleanField(null=True)
    state = TextField(null=True)
    type = TextField(null=True)
    friendly_fire = TextField(null=True)

    class Meta:
        table_name = "corporations"


_KNOWN = frozenset(Corporation._meta.fields) | {"enlisted_faction_id", "tax_rates", "palette"}


def parse(job: Job, answer: Answer) -> Done:
    """One corporation. Its CEO, creator and alliance become known."""
    fields = Fields(f"corporation {job.id}", answer.body)
    values = {
        "id": job.id,
        "name": fields.text("name"),
        "ticker": fields.text("ticker"),
        "member_count": fields.integer("member_count"),
        "ceo_id": fields.id("ceo_id", optional=True),
        "creator_id": fields.id("creator_id", optional=True),
        "date_founded": fields.time("date_founded", optional=True),
        "description": fields.text("description", optional=True),
        "alliance_id": fields.id("alliance_id", optional=True),
        "faction_id": _faction(fields),
        "home_station_id": fields.id("home_station_id", optional=True),
        "shares": fields.integer("shares", optional=True),
        "tax_rate": _tax_rate(fields),
        "url": fields.text("url", optional=True),
        "war_eligible": fields.flag("war_eligible", optional=True),
        "state": fields.text("state", optional=True),
        "type": fields.text("type", optional=True),
        "friendly_fire": fields.text("friendly_fire", optional=True),
    }
    seen = [
        *seen_character(values["ceo_id"]),
        *seen_character(values["creator_id"]),
        *seen_alliance(values["alliance_id"]),
    ]
    return done(job, answer, [Row(Corporation, values)], seen, fields.unknown(_KNOWN))


def _faction(fields: Fields) -> Any:
    name = "enlisted_faction_id" if fields.has("enlisted_faction_id") else "faction_id"
    return fields.id(name, optional=True)


def _tax_rate(fields: Fields) -> float | None:
    """`tax_rate` is a fraction, `tax_rates.isk` a percentage; 12 decimals keep 5.6 % from becoming 0.05599999999999999."""
    rates = fields.object("tax_rates", optional=True)
    if rates is None:
        fraction: float | None = fields.number("tax_rate", optional=True)
        return fraction
    percent = rates.number("isk", optional=True)
    return None if percent is None else round(percent / 100, 12)


CORPORATION = Entity("corporation", "corporation", Route("/corporations/{id}"), parse, (Corporation,))
#: There are 283, and CCP's specification caps the list at 500.
NPCCORPS = Entity(
    "npccorps",
    "corporation",
    Route("/corporations/npccorps", cache_s=86_400.0, largest=LARGEST_LIST),
    parse_ids(seen_corporation),
    most=2_000,
)
