"""English that is the same everywhere: `1 id`, `2,000 ids`, and the words by which people call an entity."""

from __future__ import annotations

from esid.catalogue import LANES

_PLURALS = {lane.name: lane.plural for lane in LANES}
#: What people type -> the lane that they mean. In the plural, and in capitals, each is understood as well.
_LANES = {word: lane.name for lane in LANES for word in (lane.name, lane.plural, *lane.words)}
#: Lists of ids -> what tables for people call them.
_LISTS = {
    "alliances": "alliance list",
    "alliance_corporations": "alliance member lists",
    "npccorps": "NPC corporation list",
}


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts, in the singular or the plural.

    Args:
        many: the plural where an s does not make it.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def plural(entity: str) -> str:
    """`alliances` for `alliance`."""
    return _PLURALS.get(entity) or f"{entity}s"


def entity(word: str) -> str:
    """The entity that somebody means who writes `Alliances`, `corp` or `kms`; any other word as it is."""
    lower = word.strip().lower()
    return _LANES.get(lower) or _LANES.get(lower.removesuffix("s")) or word


def called(entity: str) -> str:
    """What tables for people call an entity: by its name, in words."""
    return _LISTS.get(entity) or entity.replace("_", " ")
