"""Killmails: asked by id and hash, never changed again. Attackers and items stand in ESI's order."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from peewee import BigIntegerField, BooleanField, CompositeKey, DoubleField, TextField

from esid.entities.base import Entity, check_same, done
from esid.entities.killmail_body import ATTACKER_COLUMNS, ITEM_COLUMNS, KILLMAIL_COLUMNS, LARGEST_KILLMAIL, Body, read
from esid.esi.decode import Fields
from esid.esi.routes import Route
from esid.store.model import Done, EntityTable, Job, Row, Table, UtcField

if TYPE_CHECKING:
    from esid.esi.answers import Answer

#: What a hash looks like; ESI knows no other.
HASH = re.compile(r"[0-9a-f]{40}", re.ASCII)


class Killmail(EntityTable):
    """GET /killmails/{id}/{hash}. Values, points and flags are zKillboard's, where they are known."""

    hash = TextField()
    killmail_time = UtcField()
    solar_system_id = BigIntegerField()
    moon_id = BigIntegerField(null=True)
    war_id = BigIntegerField(null=True)
    victim_character_id = BigIntegerField(null=True)
    victim_corporation_id = BigIntegerField(null=True)
    victim_alliance_id = BigIntegerField(null=True)
    victim_faction_id = BigIntegerField(null=True)
    victim_ship_type_id = BigIntegerField()
    victim_damage_taken = BigIntegerField()
    victim_position_x = DoubleField(null=True)
    victim_position_y = DoubleField(null=True)
    victim_position_z = DoubleField(null=True)
    attacker_count = BigIntegerField()
    total_value = DoubleField(null=True)
    destroyed_value = DoubleField(null=True)
    dropped_value = DoubleField(null=True)
    fitted_value = DoubleField(null=True)
    points = BigIntegerField(null=True)
    npc = BooleanField(null=True)
    solo = BooleanField(null=True)
    awox = BooleanField(null=True)

    class Meta:
        table_name = "killmails"


class Attacker(Table):
    """One attacker; `seq` is the place in ESI's list, from 0. Nobody else's ids are sure to be there."""

    killmail_id = BigIntegerField()
    seq = BigIntegerField()
    character_id = BigIntegerField(null=True)
    corporation_id = BigIntegerField(null=True)
    alliance_id = BigIntegerField(null=True)
    faction_id = BigIntegerField(null=True)
    ship_type_id = BigIntegerField(null=True)
    weapon_type_id = BigIntegerField(null=True)
    damage_done = BigIntegerField()
    final_blow = BooleanField()
    security_status = DoubleField()

    class Meta:
        table_name = "attackers"
        primary_key = CompositeKey("killmail_id", "seq")


class KillmailItem(Table):
    """One item; `seq` is the place in a depth-first walk from 0, `parent_seq` that of the container it lay in."""

    killmail_id = BigIntegerField()
    seq = BigIntegerField()
    parent_seq = BigIntegerField(null=True)
    item_type_id = BigIntegerField()
    flag = BigIntegerField()
    quantity_dropped = BigIntegerField(null=True)
    quantity_destroyed = BigIntegerField(null=True)
    singleton = BigIntegerField()

    class Meta:
        table_name = "killmail_items"
        primary_key = CompositeKey("killmail_id", "seq")


#: The tables of a killmail with the columns that a body fills, in the order in which they are written.
SHAPES = ((Attacker, ATTACKER_COLUMNS), (Killmail, KILLMAIL_COLUMNS), (KillmailItem, ITEM_COLUMNS))


def parse(job: Job, answer: Answer) -> Done:
    """One killmail from ESI. It never expires, and says nothing of zKillboard's values (whose time `checked_at` is)."""
    check_same("killmail", "killmail_id", Fields(f"killmail {job.id}", answer.body).id("killmail_id"), job.id)
    body = read(job.id, job.argument or "", answer.body)
    outcome = done(job, answer, rows_of(body), body.seen(), body.unknown)
    return dataclasses.replace(outcome, expires_at=None, checked_at=None)


def rows_of(body: Body, values: dict[str, Any] | None = None) -> list[Row]:
    """The rows of one body.

    Args:
        values: zKillboard's columns, where they are known; the row says nothing of them otherwise.
    """
    killmail = dict(zip(KILLMAIL_COLUMNS, body.killmail, strict=True)) | (values or {})
    return [
        Row(Killmail, killmail, guard="checked_at"),
        *(Row(Attacker, dict(zip(ATTACKER_COLUMNS, one, strict=True))) for one in body.attackers),
        *(Row(KillmailItem, dict(zip(ITEM_COLUMNS, one, strict=True))) for one in body.items),
    ]


KILLMAIL = Entity(
    "killmail",
    "killmail",
    Route("/killmails/{id}/{argument}", cache_s=2_592_000.0, group="killmail", largest=LARGEST_KILLMAIL, is_lasting=True),
    parse,
    (Killmail, Attacker, KillmailItem),
    argument="hash",
)
