"""Which ids that stand in answers are asked for.

Ids are never guessed or counted through: CCP bans for that. Ranges: CCP's "ID ranges" and `esi-docs`: NPC corporations
1,000,000 to 1,999,999, NPC characters 3,000,000 to 3,999,999, factions 500,000 to 599,999; 1 is a placeholder.
"""

from __future__ import annotations

from functools import partial

from esid.store.model import Seen

#: Placeholders and NPC characters become known, and are not asked.
_FIRST = {"alliance": 1_000_000, "corporation": 1_000_000, "character": 4_000_000}


def asked_from(entity: str) -> int:
    """The first id of this entity that is asked."""
    return _FIRST.get(entity, 0)


def seen(entity: str, key: int | None) -> list[Seen]:
    """An id that stood in an answer, where there was one."""
    return [] if key is None else [Seen(entity, key, asked=key >= asked_from(entity))]


seen_alliance, seen_corporation, seen_character = (partial(seen, entity) for entity in _FIRST)
