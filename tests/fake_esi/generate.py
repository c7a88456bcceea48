"""Random worlds whose parts fit together."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from tests.fake_esi import texts
from tests.fake_esi.world import Body, World

_ALLIANCE_IDS = range(99_000_000, 100_000_000)
_CORPORATION_IDS = range(98_000_000, 99_000_000)
_OLD_CHARACTER_IDS = range(90_000_000, 98_000_000)
_NEW_CHARACTER_IDS = range(2_112_000_000, 2_113_000_000)
_NPC_CORPORATION_IDS = range(1_000_002, 1_000_290)
_FACTIONS = (500001, 500002, 500003, 500004)
_STATIONS = (60003760, 60008494, 60011866, 1_035_466_617_946)
_FOUNDED = (datetime(2003, 5, 6, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))


class Generator:
    """Fills one world; the same seed and numbers give the same world.

    Promises: a corporation with a CEO is "active", has that CEO as a member and may be in an alliance; the
    few others are "closed" and in none. Every character is the CEO or the creator of a corporation as long
    as there are at most two characters per corporation. Each alliance has a corporation as long as there are
    enough of them. NPC corporations come on top of the player ones and name neither CEO nor creator.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)

    def fill(self, alliances: int, corporations: int, characters: int, npc_corporations: int) -> World:
        """Make that many of each (at least one corporation and one character) and return the world."""
        if corporations < 1 or characters < 1:
            raise ValueError("a world needs at least one corporation and one character")
        self._alliance_ids = self._rng.sample(_ALLIANCE_IDS, alliances)
        self._corporation_ids = self._rng.sample(_CORPORATION_IDS, corporations)
        self._character_ids = self._sample_characters(characters)
        self._ceo_count = self._count_ceos()
        self._place_corporations()
        self._place_characters()
        self._make_bodies()
        self._make_npc_corporations(npc_corporations)
        return self._world

    def _sample_characters(self, count: int) -> list[int]:
        old = self._rng.sample(_OLD_CHARACTER_IDS, count - count // 2)
        return old + self._rng.sample(_NEW_CHARACTER_IDS, count // 2)

    def _count_ceos(self) -> int:
        """One per corporation, less the closed ones: as many as leave every character a place."""
        corporations, characters = len(self._corporation_ids), len(self._character_ids)
        closed = min(corporations // 20, max(0, 2 * corporations - characters))
        return min(corporations - closed, characters)

    def _place_corporations(self) -> None:
        """The n-th corporation founds the n-th alliance; of the other active ones most join some."""
        self._alliance_of: dict[int, int] = {}
        for index, corporation_id in enumerate(self._corporation_ids[: self._ceo_count]):
            if index < len(self._alliance_ids):
                self._alliance_of[corporation_id] = self._alliance_ids[index]
            elif self._alliance_ids and self._chance(0.8):
                self._alliance_of[corporation_id] = self._rng.choice(self._alliance_ids)

    def _place_characters(self) -> None:
        """The n-th character leads the n-th corporation; the others are members and creators."""
        active = self._corporation_ids[: self._ceo_count]
        followers = self._character_ids[self._ceo_count :]
        self._corporation_of = dict(zip(self._character_ids, active, strict=False))
        self._corporation_of.update({each: self._rng.choice(active) for each in followers})
        self._creator_of = dict(zip(self._corporation_ids, followers, strict=False))
        self._faction_of = {each: self._rng.choice(_FACTIONS) for each in active if self._chance(0.1)}
        self._member_counts = dict.fromkeys(self._corporation_ids, 0)
        for corporation_id in self._corporation_of.values():
            self._member_counts[corporation_id] += 1

    def _make_bodies(self) -> None:
        world = self._world
        world.alliance_corporations = {each: [] for each in self._alliance_ids}
        for corporation_id, alliance_id in self._alliance_of.items():
            world.alliance_corporations[alliance_id].append(corporation_id)
        for number, each in enumerate(self._alliance_ids):
            world.alliances[each] = self._alliance(number, each)
        for number, each in enumerate(self._corporation_ids):
            world.corporations[each] = self._corporation(number, each)
        for number, each in enumerate(self._character_ids):
            world.characters[each] = self._character(number, each)

    def _alliance(self, number: int, alliance_id: int) -> Body:
        members = self._world.alliance_corporations[alliance_id]
        body = {
            "creator_corporation_id": self._rng.choice(members or self._corporation_ids),
            "creator_id": self._rng.choice(self._character_ids),
            "date_founded": self._moment(),
            "name": texts.name(self._rng, "Alliance", number),
            "ticker": texts.ticker(number),
        }
        if members and self._chance(0.95):
            body["executor_corporation_id"] = members[0]
        return self._now_and_then(body, 0.1, faction_id=self._rng.choice(_FACTIONS))

    def _corporation(self, number: int, corporation_id: int) -> Body:
        body = self._corporation_basics(number)
        body["member_count"] = self._member_counts[corporation_id]
        body["state"] = "active" if number < self._ceo_count else "closed"
        if number < self._ceo_count:
            body["ceo_id"] = self._character_ids[number]
        if corporation_id in self._creator_of:
            body["creator_id"] = self._creator_of[corporation_id]
        else:
            self._now_and_then(body, 0.9, creator_id=self._rng.choice(self._character_ids))
        if corporation_id in self._alliance_of:
            body["alliance_id"] = self._alliance_of[corporation_id]
        if corporation_id in self._faction_of:
            body["enlisted_faction_id"] = self._faction_of[corporation_id]
        self._now_and_then(body, 0.95, date_founded=self._moment())
        self._now_and_then(body, 0.5, url=self._rng.choice(("", "http://", "https://example.com/?a=1&b='")))
        return self._now_and_then(body, 0.7, palette=self._palette())

    def _corporation_basics(self, number: int) -> Body:
        rng = self._rng
        return {
            "description": texts.description(rng),
            "friendly_fire": rng.choice(("legal", "illegal")),
            "home_station_id": rng.choice(_STATIONS),
            "name": texts.name(rng, "Corporation", number),
            "shares": rng.choice((0, 1000, 9_000_000_000)),
            "tax_rates": {"isk": rng.choice((0.0, 10.0, 12.5)), "loyalty_point": rng.choice((0.0, 5.6))},
            "ticker": texts.ticker(number),
            "type": "player_owned",
            "war_eligible": self._chance(0.5),
        }

    def _palette(self) -> Body:
        palette = {"main_color": self._colour()}
        self._now_and_then(palette, 0.7, secondary_color=self._colour())
        return self._now_and_then(palette, 0.4, tertiary_color=self._colour())

    def _character(self, number: int, character_id: int) -> Body:
        rng = self._rng
        corporation_id = self._corporation_of[character_id]
        body = {
            "achievement_score": rng.choice((0, rng.randrange(1, 100_000))),
            "birthday": self._moment(),
            "bloodline_id": rng.randrange(1, 15),
            "corporation_id": corporation_id,
            "gender": rng.choice(("male", "female")),
            "name": texts.name(rng, "Character", number),
            "race_id": rng.choice((1, 2, 4, 8)),
        }
        if corporation_id in self._alliance_of:
            body["alliance_id"] = self._alliance_of[corporation_id]
        if corporation_id in self._faction_of:
            body["faction_id"] = self._faction_of[corporation_id]
        if self._chance(0.9):
            body["security_status"] = 0.0 if self._chance(0.1) else round(rng.uniform(-10, 10), 1)
        self._now_and_then(body, 0.8, description=texts.description(rng))
        self._now_and_then(body, 0.3, corporation_title=rng.choice(("", "<b>Diplomat</b>", "Chef d'état")))
        return self._now_and_then(body, 0.2, character_title_id=self._uuid())

    def _make_npc_corporations(self, count: int) -> None:
        ids = self._rng.sample(_NPC_CORPORATION_IDS, count)
        for npc_id in ids:
            body = self._corporation_basics(npc_id)
            body.update(type="npc_owned", state="active", member_count=0, name=f"NPC Corporation {npc_id}")
            self._world.corporations[npc_id] = body
        self._world.npc_corporations = ids

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _now_and_then(self, body: Body, probability: float, **fields: object) -> Body:
        """Add the fields to the body with that probability."""
        if self._chance(probability):
            body.update(fields)
        return body

    def _moment(self) -> str:
        first, last = (int(each.timestamp()) for each in _FOUNDED)
        return datetime.fromtimestamp(self._rng.randrange(first, last), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _colour(self) -> str:
        return f"#{self._rng.randrange(1 << 24):06x}"

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
