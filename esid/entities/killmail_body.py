"""Reads the body of a killmail, from wherever it came, into rows. ESI's answers, feeds and archives pass through here.

Most rows are read without `Fields`: where every value has exactly the type and range that the field must have, nothing
else can be said about it. Whatever is not so is read again with `Fields`, which names what is wrong, so both ways accept
the same bodies and give the same rows. Facts: CCP's schema at 2026-08-18; attackers may lack every id, victims may lack
position and items, items nest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.esi.decode import TOO_BIG, Fields
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

_MAYBE = (int, type(None))
_KILLMAIL_TYPES = frozenset((int, *maybe, int, int, float, float, float) for maybe in product(_MAYBE, repeat=6))
_ATTACKER_TYPES = frozenset((int, int, *ids, int, bool, float) for ids in product(_MAYBE, repeat=6))
_ITEM_TYPES = frozenset((int, int, type(None), int, int, *amounts, int) for amounts in product(_MAYBE, repeat=2))
_KNOWN = frozenset(
    {"attackers", "killmail_id", "killmail_time", "moon_id", "solar_system_id", "victim", "war_id"}
    # What archives and feeds add to the body.
    | {"killmail_hash", "http_last_modified"}
)

Values = tuple[Any, ...]


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
    unknown: tuple[str, ...]

    @property
    def id(self) -> int:
        """The killmail's id."""
        return int(self.killmail[0])

    def people(self) -> tuple[set[Any], set[Any], set[Any]]:
        """Characters, corporations and alliances on it; None is among them where somebody has none."""
        people = [self.killmail[6:9], *(row[2:5] for row in self.attackers)]
        characters, corporations, alliances = map(set, zip(*people, strict=True))
        return characters, corporations, alliances

    def seen(self) -> list[Seen]:
        """The same as ids that stood in an answer."""
        characters, corporations, alliances = self.people()
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
    fields = Fields(f"killmail {key}", value)
    victim = fields.object("victim")
    attackers = _plain_attackers(key, value.get("attackers"))
    if attackers is None:
        attackers = [_attacker(key, seq, one) for seq, one in enumerate(fields.objects("attackers"))]
    killmail = _plain_killmail(value, victim.value) or _killmail(fields, victim)
    items = _plain_items(key, victim.value.get("items"))
    if items is None:
        items = list(_items(key, victim))
    unknown = () if _KNOWN.issuperset(value) else tuple(fields.unknown(_KNOWN))
    return Body((key, hash_, *killmail, len(attackers)), attackers, items, unknown)


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


def _plain_killmail(value: dict[str, Any], victim: dict[str, Any]) -> Values | None:
    """The same, where every value is as it must be and the time is in UTC; None where `Fields` has to look."""
    get, of_victim = value.get, victim.get
    try:
        position, text = victim["position"], value["killmail_time"]
        ids = (
            value["solar_system_id"], get("moon_id"), get("war_id"), of_victim("character_id"), of_victim("corporation_id"),
            of_victim("alliance_id"), of_victim("faction_id"), victim["ship_type_id"],
        )  # fmt: skip
        rest = victim["damage_taken"], position["x"], position["y"], position["z"]
        if type(text) is not str or text[-1:] != "Z" or tuple(map(type, (*ids, *rest))) not in _KILLMAIL_TYPES:
            return None
        time = dt.datetime.fromisoformat(text)
    except (KeyError, TypeError, ValueError):
        return None
    numbers = rest[1:]
    is_plain = _are_ids(set(ids)) and _fit(rest[:1]) and min(numbers) > -1e300 and max(numbers) < 1e300
    return (time, *ids, *rest) if is_plain else None


def _plain_attackers(key: int, found: Any) -> list[Values] | None:
    """The rows, where every value is as it must be; None where `Fields` has to look."""
    if type(found) is not list or not found:
        return None
    try:
        rows = [
            (
                key, seq, (get := one.get)("character_id"), get("corporation_id"), get("alliance_id"), get("faction_id"),
                get("ship_type_id"), get("weapon_type_id"), one["damage_done"], one["final_blow"],
                float(status) if type(status := one["security_status"]) is int else status,
            )
            for seq, one in enumerate(found)
        ]  # fmt: skip
        if not _ATTACKER_TYPES.issuperset([tuple(map(type, row)) for row in rows]):
            return None
    except (AttributeError, KeyError, TypeError, OverflowError):
        return None
    columns = list(zip(*rows, strict=True))
    ids = set(chain.from_iterable(columns[2:8]))
    is_plain = _are_ids(ids) and _fit(columns[8]) and min(columns[10]) > -1e300 and max(columns[10]) < 1e300
    return rows if is_plain else None


def _plain_items(key: int, found: Any) -> list[Values] | None:
    """The rows, where every value is as it must be and no item lies in another; None where `Fields` has to look."""
    if type(found) is not list:
        return None
    if not found:
        return []
    try:
        rows = [
            (
                key, seq, one.get("items"), one["item_type_id"], one["flag"], one.get("quantity_dropped"),
                one.get("quantity_destroyed"), one["singleton"],
            )
            for seq, one in enumerate(found)
        ]  # fmt: skip
        if not _ITEM_TYPES.issuperset([tuple(map(type, row)) for row in rows]):
            return None
    except (AttributeError, KeyError, TypeError):
        return None
    columns = list(zip(*rows, strict=True))
    numbers = set(chain.from_iterable(columns[4:]))
    numbers.discard(None)
    return rows if _are_ids(set(columns[3])) and _fit(numbers) else None


def _are_ids(values: set[Any]) -> bool:
    values.discard(None)
    return not values or (min(values) > 0 and max(values) < TOO_BIG)


def _fit(values: Any) -> bool:
    return bool(min(values) >= -TOO_BIG and max(values) < TOO_BIG)


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
