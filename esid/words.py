"""English that is the same everywhere: `1 id`, `2,000 ids`, and the words by which people call an entity."""

from __future__ import annotations

#: Entity -> what it is called for short. In the plural, and in capitals, each is understood as well.
_SHORT = {"alliance": ("alli",), "corporation": ("corp",), "character": ("char",), "killmail": ("kill", "km")}
#: Lists of ids -> what tables for people call them.
_LISTS = {
    "alliances": "alliance list",
    "alliance_corporations": "alliance member lists",
    "npccorps": "NPC corporation list",
}
_ENTITIES = {word: name for name, short in _SHORT.items() for word in (name, *short)}


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts, in the singular or the plural.

    Args:
        many: the plural where an s does not make it.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def plural(entity: str) -> str:
    """`alliances` for `alliance`."""
    return f"{entity}s"


def entity(word: str) -> str:
    """The entity that somebody means who writes `Alliances`, `corp` or `kms`; any other word as it is."""
    lower = word.strip().lower()
    return _ENTITIES.get(lower) or _ENTITIES.get(lower.removesuffix("s")) or word


def called(entity: str) -> str:
    """What tables for people call an entity: by its name, or in words where it is a list."""
    return _LISTS.get(entity, entity)
