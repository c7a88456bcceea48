"""The oracle's half of a comparison: what the tables must hold for a world, row for row and field for field."""

from __future__ import annotations

import datetime as dt
from typing import Any

from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.entities.killmail import Attacker, Killmail, KillmailItem
from esid.store.connection import Store
from tests.fake_esi import World

_STAMPS = {"created_at", "updated_at"}


def table(store: Store, model: Any) -> dict[Any, dict[str, Any]]:
    """Key -> row of one table, without our own stamps."""
    primary = model._meta.primary_key
    names = getattr(primary, "field_names", None) or (primary.name,)
    with store.connection():
        rows = list(model.select().dicts())
    plain = [{name: value for name, value in row.items() if name not in _STAMPS} for row in rows]
    return {tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]: row for row in plain}


def time(text: str | None) -> dt.datetime | None:
    """An ESI time as the tables hold it."""
    return dt.datetime.fromisoformat(text) if text else None


def alliances(world: World) -> dict[int, dict[str, Any]]:
    """The table `alliances`."""
    names = ("name", "ticker", "creator_corporation_id", "creator_id", "executor_corporation_id", "faction_id")
    return {
        key: {"id": key, "date_founded": time(body["date_founded"]), **{name: body.get(name) for name in names}}
        for key, body in world.alliances.items()
    }


def corporations(world: World) -> dict[int, dict[str, Any]]:
    """The table `corporations`, from bodies in the new shape."""
    names = (
        "name", "ticker", "member_count", "ceo_id", "creator_id", "description", "alliance_id", "home_station_id",
        "shares", "url", "war_eligible", "state", "type", "friendly_fire",
    )  # fmt: skip
    return {
        key: {
            "id": key,
            **{name: body.get(name) for name in names},
            "date_founded": time(body.get("date_founded")),
            "faction_id": body.get("enlisted_faction_id"),
            "tax_rate": round(body["tax_rates"]["isk"] / 100, 12),
        }
        for key, body in world.corporations.items()
    }


def characters(world: World) -> dict[int, dict[str, Any]]:
    """The table `characters`."""
    names = (
        "name", "corporation_id", "alliance_id", "faction_id", "bloodline_id", "race_id", "gender", "security_status",
        "description",
    )  # fmt: skip
    return {
        key: {
            "id": key,
            **{name: body.get(name) for name in names},
            "birthday": time(body["birthday"]),
            "title": body.get("corporation_title"),
        }
        for key, body in world.characters.items()
    }


def killmail(key: int, hash_: str, body: dict[str, Any]) -> dict[str, Any]:
    """One row of `killmails`."""
    victim = body["victim"]
    position = victim.get("position") or {}
    row = {
        "id": key,
        "hash": hash_,
        "killmail_time": time(body["killmail_time"]),
        "solar_system_id": body["solar_system_id"],
        "moon_id": body.get("moon_id"),
        "war_id": body.get("war_id"),
        "victim_ship_type_id": victim["ship_type_id"],
        "victim_damage_taken": victim["damage_taken"],
        "attacker_count": len(body["attackers"]),
    }
    row |= {f"victim_{name}": victim.get(name) for name in ("character_id", "corporation_id", "alliance_id", "faction_id")}
    row |= {f"victim_position_{axis}": position.get(axis) for axis in "xyz"}
    unknown = ("total_value", "destroyed_value", "dropped_value", "fitted_value", "points", "npc", "solo", "awox")
    return row | dict.fromkeys(unknown)


def attackers(key: int, body: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """Rows of `attackers` of one killmail."""
    names = (
        "character_id", "corporation_id", "alliance_id", "faction_id", "ship_type_id", "weapon_type_id", "damage_done",
        "final_blow", "security_status",
    )  # fmt: skip
    return {
        (key, seq): {"killmail_id": key, "seq": seq, **{name: one.get(name) for name in names}}
        for seq, one in enumerate(body["attackers"])
    }


def items(key: int, body: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """Rows of `killmail_items` of one killmail, walked depth first."""
    names = ("item_type_id", "flag", "quantity_dropped", "quantity_destroyed", "singleton")
    rows: dict[tuple[int, int], dict[str, Any]] = {}

    def walk(nested: list[dict[str, Any]], parent_seq: int | None) -> None:
        for one in nested:
            seq = len(rows)
            values = {name: one.get(name) for name in names}
            rows[key, seq] = {"killmail_id": key, "seq": seq, "parent_seq": parent_seq, **values}
            walk(one.get("items", []), seq)

    walk(body["victim"].get("items", []), None)
    return rows


def assert_equal(store: Store, world: World) -> None:
    """Every table of entities holds exactly what the world says."""
    for model, wanted in (
        (Alliance, alliances(world)),
        (Corporation, corporations(world)),
        (Character, characters(world)),
        (Killmail, {key: killmail(key, hash_, body) for (key, hash_), body in world.killmails.items()}),
        (Attacker, {k: v for (key, _), body in world.killmails.items() for k, v in attackers(key, body).items()}),
        (KillmailItem, {k: v for (key, _), body in world.killmails.items() for k, v in items(key, body).items()}),
    ):
        found = table(store, model)
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        assert not differing, f"{model.__name__} {differing[0]}: {found.get(differing[0])} != {wanted[differing[0]]}"
        assert found.keys() == wanted.keys(), f"{model.__name__}: not in the world: {found.keys() - wanted.keys()}"
