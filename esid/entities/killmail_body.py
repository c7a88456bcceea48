"""Reads the body of a killmail, from wherever it came, into rows. ESI's answers, feeds and archives pass through here.

Most fit the shape of a well-formed one (`killmail_shape`). Whatever does not is read again with `Fields`, which names what
is wrong, so both ways accept the same bodies and give the same rows. Facts: CCP's schema at 2026-08-18; attackers may
lack every id, victims may lack position and items, items nest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from msgspec.structs import astuple

from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.entities.killmail_shape import Killmail, of_value
from esid.errors import BadField
from esid.esi.decode import Fields
from esid.store.model import Seen

#: The columns of each table in the order of its tuples; the key comes first.
KILLMAIL_COLUMNS = (
    "id", "hash", "killmail_time", "solar_system_id", "moon_id", "war_id", "victim_character_id", "victim_corporation_id",
    "victim_alliance_id", "victim_faction_id", "victim_ship_type_id", "victim_damage_taken", "victim_position_x",
    "victim_position_y", "victim_position_z", "attacker_count",
)  # fmt: skip
ATTACKER_COLUMNS = (
    "killmail_id", "seq", "character_id", "corporation_id", "alliance_id", "faction_id", "ship_type_id", "weapon_type_id",
    "damage_done", "final_blow", "security_status",
)  # fmt: skip
ITEM_COLUMNS = (
    "killmail_id", "seq", "parent_seq", "item_type_id", "flag", "quantity_dropped", "quantity_destroyed", "singleton",
)  # fmt: skip

_KNOWN = frozenset(
    {"attackers", "killmail_id", "killmail_time", "moon_id", "solar_system_id", "victim", "war_id"}
    # What archives and feeds add to the body.
    | {"killmail_hash", "http_last_modified"}
)

Values = tuple[Any, ...]
#: Bytes of one killmail as JSON, with whatever a feed or an archive adds; the largest known has 302 kB.
LARGEST_KILLMAIL = 2 * 1024 * 1024
#: Attackers and items of one killmail: each attacker makes up to three ids known. The most in 83,000 were 603 and 756.
MOST_ATTACKERS, MOST_ITEMS = 10_000, 20_000


@dataclass(frozen=True, slots=True)
class Body:
    """One killmail as rows.

    Attributes:
        killmail, attackers, items: values in the order of the columns above.
        unknown: names of fields that nobody here knows.
    """

    killmail: Values
    attackers: list[Values]
    items: list[Values]
    unknown: tuple[str, ...] = ()

    @property
    def id(self) -> int:
        """The killmail's id."""
        return int(self.killmail[0])

    def people(self) -> list[Values]:
        """Character, corporation and alliance of everybody on it, None where somebody has none."""
        return [self.killmail[6:9], *(row[2:5] for row in self.attackers)]

    def seen(self) -> list[Seen]:
        """The same as ids that stood in an answer."""
        characters, corporations, alliances = map(set, zip(*self.people(), strict=True))
        return [
            *chain.from_iterable(map(seen_character, characters)),
            *chain.from_iterable(map(seen_corporation, corporations)),
            *chain.from_iterable(map(seen_alliance, alliances)),
        ]


def read(key: int, hash_: str, value: Any) -> Body:
    """The rows of one body.

    Args:
        key: the id that was asked for; the body must be about it.
        value: the decoded JSON.

    Raises:
        BadField: naming killmail, field and value.
    """
    shape = of_value(value)
    body = (shape and of_shape(key, hash_, shape)) or _field_by_field(key, hash_, Fields(f"killmail {key}", value))
    if not _KNOWN.issuperset(value):
        body = replace(body, unknown=tuple(Fields("", value).unknown(_KNOWN)))
    return body


def of_shape(key: int, hash_: str, shape: Killmail) -> Body | None:
    """The rows of one that has the shape; None where its time or its size has to be looked at more closely."""
    victim, time = shape.victim, _utc(shape.killmail_time)
    if time is None or len(shape.attackers) > MOST_ATTACKERS or len(victim.items or ()) > MOST_ITEMS:
        return None
    return Body(
        (
            key, hash_, time, shape.solar_system_id, shape.moon_id, shape.war_id, *astuple(victim)[:6],
            *astuple(victim.position), len(shape.attackers),
        ),
        [(key, seq, *astuple(one)) for seq, one in enumerate(shape.attackers)],
        [(key, seq, *astuple(one)) for seq, one in enumerate(victim.items or ())],
    )  # fmt: skip


def _utc(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text) if text[-1:] == "Z" else None
    except ValueError:
        return None


def _field_by_field(key: int, hash_: str, fields: Fields) -> Body:
    victim = fields.object("victim")
    attackers = [_attacker(key, seq, one) for seq, one in enumerate(fields.objects("attackers"))]
    killmail, items = _killmail(fields, victim), list(_items(key, victim))
    for name, rows, most in (("attackers", attackers, MOST_ATTACKERS), ("items", items, MOST_ITEMS)):
        if len(rows) > most:
            raise BadField(f"killmail {key}", name, f"{len(rows):,} of them, where {most:,} are plausible")
    return Body((key, hash_, *killmail, len(attackers)), attackers, items)


def _killmail(fields: Fields, victim: Fields) -> Values:
    """What stands between hash and number of attackers."""
    position = victim.object("position", optional=True)
    return (
        fields.time("killmail_time"),
        fields.id("solar_system_id"),
        fields.id("moon_id", optional=True),
        fields.id("war_id", optional=True),
        victim.id("character_id", optional=True),
        victim.id("corporation_id", optional=True),
        victim.id("alliance_id", optional=True),
        victim.id("faction_id", optional=True),
        victim.id("ship_type_id"),
        victim.integer("damage_taken"),
        *(position.number(axis) if position else None for axis in "xyz"),
    )


def _attacker(key: int, seq: int, fields: Fields) -> Values:
    return (
        key,
        seq,
        fields.id("character_id", optional=True),
        fields.id("corporation_id", optional=True),
        fields.id("alliance_id", optional=True),
        fields.id("faction_id", optional=True),
        fields.id("ship_type_id", optional=True),
        fields.id("weapon_type_id", optional=True),
        fields.integer("damage_done"),
        fields.flag("final_blow"),
        fields.number("security_status"),
    )


def _items(key: int, victim: Fields) -> Iterator[Values]:
    """Every item, a container before its contents; `seq` counts a depth-first walk."""
    seq = 0
    waiting: list[tuple[int | None, Fields]] = [
        (None, item) for item in reversed(list(victim.objects("items", optional=True)))
    ]
    while waiting:
        parent_seq, fields = waiting.pop()
        yield (
            key,
            seq,
            parent_seq,
            fields.id("item_type_id"),
            fields.integer("flag"),
            fields.integer("quantity_dropped", optional=True),
            fields.integer("quantity_destroyed", optional=True),
            fields.integer("singleton"),
        )
        waiting += [(seq, item) for item in reversed(list(fields.objects("items", optional=True)))]
        seq += 1
