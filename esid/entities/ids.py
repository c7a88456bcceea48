"""Which ids that stand in answers are asked for.

Ids are never guessed or counted through: CCP bans for that. Ranges: CCP's "ID ranges" and `esi-docs`: NPC corporations
1,000,000 to 1,999,999, NPC characters 3,000,000 to 3,999,999, factions 500,000 to 599,999; 1 is a placeholder.
"""

from __future__ import annotations

from esid.store.model import Seen

_FIRST_CORPORATION, _FIRST_CHARACTER, _FIRST_ALLIANCE = 1_000_000, 4_000_000, 1_000_000


def seen_character(key: int | None) -> list[Seen]:
    """A character that stood in an answer; NPCs and the placeholder become known and are not asked."""
    return [] if key is None else [Seen("character", key, asked=key >= _FIRST_CHARACTER)]


def seen_corporation(key: int | None) -> list[Seen]:
    """A corporation that stood in an answer, NPC corporations too."""
    return [] if key is None else [Seen("corporation", key, asked=key >= _FIRST_CORPORATION)]


def seen_alliance(key: int | None) -> list[Seen]:
    """An alliance that stood in an answer."""
    return [] if key is None else [Seen("alliance", key, asked=key >= _FIRST_ALLIANCE)]
