"""Alliances: the list of the active ones, details, member corporations. A closed alliance keeps its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peewee import BigIntegerField, TextField

from esid.entities.base import Entity, done, parse_ids
from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.esi.decode import Fields
from esid.esi.routes import LARGEST_LIST, Route
from esid.store.model import Done, EntityTable, Job, Row, Seen, UtcField

if TYPE_CHECKING:
    from esid.esi.answers import Answer


class Alliance(EntityTable):
    """GET /alliances/{id}."""

    name = TextField()
    ticker = TextField()
    date_founded = UtcField()
    creator_corporation_id = BigIntegerField()
    creator_id = BigIntegerField()
    #: NULL when the alliance is closed.
    executor_corporation_id = BigIntegerField(null=True)
    faction_id = BigIntegerField(null=True)

    class Meta:
        table_name = "alliances"


_KNOWN = frozenset(Alliance._meta.fields)


def parse(job: Job, answer: Answer) -> Done:
    """One alliance. Its corporations, executor and creators become known."""
    fields = Fields(f"alliance {job.id}", answer.body)
    values = {
        "id": job.id,
        "name": fields.text("name"),
        "ticker": fields.text("ticker"),
        "date_founded": fields.time("date_founded"),
        "creator_corporation_id": fields.id("creator_corporation_id"),
        "creator_id": fields.id("creator_id"),
        "executor_corporation_id": fields.id("executor_corporation_id", optional=True),
        "faction_id": fields.id("faction_id", optional=True),
    }
    seen = [
        Seen("alliance_corporations", job.id),
        *seen_corporation(values["executor_corporation_id"]),
        *seen_corporation(values["creator_corporation_id"]),
        *seen_character(values["creator_id"]),
    ]
    return done(job, answer, [Row(Alliance, values)], seen, fields.unknown(_KNOWN))


ALLIANCE = Entity("alliance", "alliance", Route("/alliances/{id}"), parse, (Alliance,))
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
