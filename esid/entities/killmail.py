"""Killmails: asked by id and hash, never changed again. Attackers and items stand in ESI's order."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from peewee import BigIntegerField, BooleanField, CompositeKey, DoubleField, TextField

from esid.entities.base import Entity, check_same, done
from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.esi.client import Answer
from esid.esi.decode import Fields
from esid.esi.routes import Route
from esid.store.model import Done, EntityTable, Job, Row, Seen, Table, UtcField

#: What a hash looks like; ESI knows no other.
HASH = re.compile(r"[0-9a-f]{40}", re.ASCII)


class Killmail(EntityTable):
    """GET /killmails/{id}/{hash}; the values come from zKillboard where they are known."""

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


_KNOWN = frozenset(
    {"attackers", "killmail_id", "killmail_time", "moon_id", "solar_system_id", "victim", "war_id"}
    # What archives and feeds add to the body.
    | {"killmail_hash", "http_last_modified"}
)


def parse(job: Job, answer: Answer) -> Done:
    """One killmail from ESI. It never expires."""
    fields = Fields(f"killmail {job.id}", answer.body)
    check_same("killmail", "killmail_id", fields.id("killmail_id"), job.id)
    rows, seen = killmail_rows(job.id, job.argument or "", fields)
    outcome = done(job, answer, rows, seen, fields.unknown(_KNOWN))
    return dataclasses.replace(outcome, expires_at=None)


def killmail_rows(key: int, hash_: str, fields: Fields) -> tuple[list[Row], list[Seen]]:
    """The rows of one body and the ids in it. Raises BadField."""
    victim = fields.object("victim")
    position = victim.object("position", optional=True)
    attackers = [_attacker(key, seq, one) for seq, one in enumerate(fields.objects("attackers"))]
    killmail = {
        "id": key,
        "hash": hash_,
        "killmail_time": fields.time("killmail_time"),
        "solar_system_id": fields.id("solar_system_id"),
        "moon_id": fields.id("moon_id", optional=True),
        "war_id": fields.id("war_id", optional=True),
        "victim_character_id": victim.id("character_id", optional=True),
        "victim_corporation_id": victim.id("corporation_id", optional=True),
        "victim_alliance_id": victim.id("alliance_id", optional=True),
        "victim_faction_id": victim.id("faction_id", optional=True),
        "victim_ship_type_id": victim.id("ship_type_id"),
        "victim_damage_taken": victim.integer("damage_taken"),
        **{f"victim_position_{axis}": position.number(axis) if position else None for axis in "xyz"},
        "attacker_count": len(attackers),
    }
    items = list(_items(key, victim))
    rows = [
        Row(Killmail, killmail),
        *(Row(Attacker, values) for values in attackers),
        *(Row(KillmailItem, values) for values in items),
    ]
    people = [{name.removeprefix("victim_"): value for name, value in killmail.items()}, *attackers]
    return rows, [one for person in people for one in _seen(person)]


def _attacker(key: int, seq: int, fields: Fields) -> dict[str, Any]:
    return {
        "killmail_id": key,
        "seq": seq,
        "character_id": fields.id("character_id", optional=True),
        "corporation_id": fields.id("corporation_id", optional=True),
        "alliance_id": fields.id("alliance_id", optional=True),
        "faction_id": fields.id("faction_id", optional=True),
        "ship_type_id": fields.id("ship_type_id", optional=True),
        "weapon_type_id": fields.id("weapon_type_id", optional=True),
        "damage_done": fields.integer("damage_done"),
        "final_blow": fields.flag("final_blow"),
        "security_status": fields.number("security_status"),
    }


def _items(key: int, victim: Fields) -> Iterator[dict[str, Any]]:
    """Every item, a container before its contents."""
    seq = 0
    waiting: list[tuple[int | None, Fields]] = [
        (None, item) for item in reversed(list(victim.objects("items", optional=True)))
    ]
    while waiting:
        parent_seq, fields = waiting.pop()
        yield {
            "killmail_id": key,
            "seq": seq,
            "parent_seq": parent_seq,
            "item_type_id": fields.id("item_type_id"),
            "flag": fields.integer("flag"),
            "quantity_dropped": fields.integer("quantity_dropped", optional=True),
            "quantity_destroyed": fields.integer("quantity_destroyed", optional=True),
            "singleton": fields.integer("singleton"),
        }
        waiting += [(seq, item) for item in reversed(list(fields.objects("items", optional=True)))]
        seq += 1


def _seen(person: dict[str, Any]) -> list[Seen]:
    return [
        *seen_character(person["character_id"]),
        *seen_corporation(person["corporation_id"]),
        *seen_alliance(person["alliance_id"]),
    ]


KILLMAIL = Entity(
    "killmail",
    "killmail",
    Route("/killmails/{id}/{argument}", cache_s=2_592_000.0, group="killmail"),
    parse,
    (Killmail, Attacker, KillmailItem),
)
