"""A daemon finds a part of a world by itself."""

from __future__ import annotations

from tests.fake_esi import World

PEOPLE = ("ceo_id", "creator_id")


def reachable(world: World) -> World:
    """The part of a world that can be discovered: a corporation outside every alliance may be named by nobody."""
    corporations = {key for ids in world.alliance_corporations.values() for key in ids} | set(world.npc_corporations)
    for body in world.alliances.values():
        corporations |= {body["creator_corporation_id"], body.get("executor_corporation_id")}
    characters = {body["creator_id"] for body in world.alliances.values()}
    while True:
        found = {body.get(name) for key, body in world.corporations.items() if key in corporations for name in PEOPLE}
        homes = {world.characters[key]["corporation_id"] for key in found | characters if key in world.characters}
        if homes <= corporations and found <= characters:
            break
        characters |= found
        corporations |= homes
    world.corporations = {key: body for key, body in world.corporations.items() if key in corporations}
    world.characters = {key: body for key, body in world.characters.items() if key in characters}
    return world
