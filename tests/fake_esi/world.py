"""What the fake ESI knows: plain dictionaries of bodies in their newest shape."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.fake_esi import fixtures

Body = dict[str, Any]


def _status() -> Body:
    return {"players": 32697, "server_version": "3145366", "start_time": "2026-09-29T11:01:58Z", "vip": False}


def _bodies() -> dict[str, Any]:
    return {name: copy.deepcopy(one.body) for name, one in fixtures.BY_NAME.items()}


@dataclass
class World:
    """The entities that the fake answers with; a test may change them at any time.

    A change shows in answers once the cached answer has expired, as on ESI. Closed alliances are kept in
    `alliances` and named in `closed_alliances`: they answer, list no corporation, and are in no list. Deleted
    characters need no body.
    """

    alliances: dict[int, Body] = field(default_factory=dict)
    alliance_corporations: dict[int, list[int]] = field(default_factory=dict)
    corporations: dict[int, Body] = field(default_factory=dict)
    npc_corporations: list[int] = field(default_factory=list)
    characters: dict[int, Body] = field(default_factory=dict)
    killmails: dict[tuple[int, str], Body] = field(default_factory=dict)
    closed_alliances: set[int] = field(default_factory=set)
    deleted_characters: set[int] = field(default_factory=set)
    #: Whatever asks for one of these, alone or in a batch, is answered 500, as ESI does it with some ids for days.
    sick_ids: set[int] = field(default_factory=set)
    #: The same for one path alone: path -> ids.
    sick_at: dict[str, set[int]] = field(default_factory=dict)
    status: Body = field(default_factory=_status)
    #: What the fixtures answer: entity -> body.
    bodies: dict[str, Any] = field(default_factory=_bodies)

    @classmethod
    def generate(
        cls, alliances: int, corporations: int, characters: int, seed: int = 1, *, npc_corporations: int = 0
    ) -> World:
        """A consistent random world with this many player entities; see tests.fake_esi.generate."""
        from tests.fake_esi.generate import Generator  # the generator builds on this module

        return Generator(cls(), seed).fill(alliances, corporations, characters, npc_corporations)
