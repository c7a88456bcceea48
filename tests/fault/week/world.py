"""A world that changes, and all that it ever was: what the tables may hold follows from when they were asked."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.entities.killmail import Attacker, Killmail, KillmailItem
from esid.store import model
from esid.store.connection import Store
from tests.fake_esi import World
from tests.fake_feed import Mail, Publisher, generate
from tests.tools import mirror

#: What `POST /characters/affiliation` tells, so that it may be newer than the rest of a character.
AFFILIATION = ("corporation_id", "alliance_id", "faction_id")
TABLES: dict[str, Any] = {
    "alliance": Alliance, "corporation": Corporation, "character": Character, "killmail": Killmail, "attacker": Attacker,
    "item": KillmailItem,
}  # fmt: skip
Row = dict[str, Any]
#: (table, key) of a row.
Place = tuple[str, Any]


class Changing:
    """The world, its feed of killmails, and every row that was ever true."""

    def __init__(self, dice: random.Random, now: dt.datetime) -> None:
        self.dice = dice
        self.world = World.generate(8, 60, 80, seed=dice.randrange(10**6), npc_corporations=3)
        self.feed = Publisher()
        #: Seconds by which the clock of the feed is ahead.
        self.feed_ahead_s = 0.0
        #: Killmails that a person asks for, as no feed tells of them.
        self.asked: list[tuple[int, str]] = []
        self._past: dict[Place, list[tuple[dt.datetime, Row]]] = defaultdict(list)
        self._number = 0
        self._uploaded_at = 0.0
        self._born: dict[int, dt.datetime] = {}
        self.look(now)

    # -- what happens

    def change(self, now: dt.datetime) -> None:
        """Something happens in it."""
        happens: Sequence[Callable[[dt.datetime], None]] = (
            self._a_corporation_changes, self._a_corporation_changes, self._a_corporation_moves, self._a_character_changes,
            self._a_character_moves, self._a_corporation_is_founded, self._an_alliance_is_founded,
            self._an_alliance_is_closed, self._a_character_is_deleted, self._a_killmail, self._a_killmail,
            self._a_killmail_of_somebody_new, self._a_value_is_worked_out_anew,
        )  # fmt: skip
        self.dice.choice(happens)(now)
        self.look(now)

    def look(self, now: dt.datetime) -> None:
        """Remember what is true from now on."""
        for place, row in self._rows():
            versions = self._past[place]
            if not versions or versions[-1][1] != row:
                versions.append((now, row))

    def _a_corporation_changes(self, _: dt.datetime) -> None:
        body = self.world.corporations[self.dice.choice(list(self.world.corporations))]
        body["member_count"] += 1
        body["description"] = f"changed {self._next()} times"

    def _a_corporation_moves(self, now: dt.datetime) -> None:
        key = self.dice.choice([key for key in self._corporations() if not self._is_young(key, now)])
        self._join(key, self.dice.choice([*self._alliances(), None]))

    def _a_character_changes(self, _: dt.datetime) -> None:
        body = self.world.characters[self.dice.choice(self._living())]
        body["security_status"] = round(self.dice.uniform(-10, 5), 3)
        body["corporation_title"] = f"title {self._next()}"

    def _a_character_moves(self, _: dt.datetime) -> None:
        key = self.dice.choice(self._living())
        self._work_for(key, self.dice.choice(self._corporations()))

    def _a_corporation_is_founded(self, now: dt.datetime) -> None:
        template, key = self.world.corporations[self._corporations()[0]], 98_990_000 + self._next()
        self._born[key] = now
        ceo = self._new_character(key)
        self.world.corporations[key] = {
            **template, "name": f"New {key}", "ceo_id": ceo, "creator_id": ceo, "alliance_id": None, "member_count": 1,
        }  # fmt: skip
        self._join(key, self.dice.choice(self._alliances()))

    def _an_alliance_is_founded(self, now: dt.datetime) -> None:
        old = [key for key in self._corporations() if not self._is_young(key, now)]
        key, corporation = 99_990_000 + self._next(), self.dice.choice(old)
        self._born[key] = now
        self.world.alliance_corporations[key] = []
        self.world.alliances[key] = {
            "name": f"New {key}", "ticker": "NEW", "date_founded": "2026-11-25T00:00:00Z",
            "creator_corporation_id": corporation, "creator_id": self.world.corporations[corporation]["ceo_id"],
            "executor_corporation_id": corporation,
        }  # fmt: skip
        self._join(corporation, key)

    def _an_alliance_is_closed(self, now: dt.datetime) -> None:
        members = self.world.alliance_corporations
        old = [key for key in self._alliances() if not any(self._is_young(one, now) for one in (key, *members[key]))]
        if len(old) < 4:
            return
        key = self.dice.choice(old)
        for corporation in list(self.world.alliance_corporations[key]):
            self._join(corporation, None)
        self.world.alliances[key].pop("executor_corporation_id", None)
        self.world.closed_alliances.add(key)

    def _a_character_is_deleted(self, now: dt.datetime) -> None:
        """One that leads nobody, and that nobody has changed since it must have been seen."""
        leaders = {body.get("ceo_id") for body in self.world.corporations.values()}
        quiet = [key for key in self._living() if key not in leaders and self._is_old(("character", key), now)]
        if quiet and len(self.world.deleted_characters) < 5:
            self.world.deleted_characters.add(self.dice.choice(quiet))

    def _a_killmail(self, now: dt.datetime) -> None:
        mail = self._mail(now)
        if self.dice.random() < 0.3:
            self.asked.append((mail.id, mail.hash))
        else:
            self._publish(mail, now)

    def _a_killmail_of_somebody_new(self, now: dt.datetime) -> None:
        self._publish(self._mail(now, self._new_character(self.dice.choice(self._corporations()))), now)

    def _a_value_is_worked_out_anew(self, now: dt.datetime) -> None:
        """By a clock that is right: of two files about one killmail the one uploaded later stands."""
        if self.feed.values and not self.feed_ahead_s and now.timestamp() > self._uploaded_at + 120:
            mail = self.feed.mails[self.dice.choice(list(self.feed.values))]
            self.feed._clock = int(now.timestamp())
            self.feed.reissue(mail)

    # -- parts

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _is_young(self, key: int, now: dt.datetime) -> bool:
        """Whether nobody may know of it yet, so that it had better stay where it is listed."""
        return key in self._born and now - self._born[key] < dt.timedelta(hours=30)

    def _living(self) -> list[int]:
        return [key for key in self.world.characters if key not in self.world.deleted_characters]

    def _alliances(self) -> list[int]:
        return [key for key in self.world.alliances if key not in self.world.closed_alliances]

    def _corporations(self) -> list[int]:
        """Those of players that are led by somebody."""
        return [key for key, body in self.world.corporations.items() if body.get("ceo_id")]

    def _new_character(self, corporation: int) -> int:
        key = 2_119_000_000 + self._next()
        self.world.characters[key] = {
            "name": f"Newcomer {key}", "birthday": "2026-11-25T00:00:00Z", "bloodline_id": 1, "race_id": 1, "gender": "male",
            "corporation_id": corporation,
        }  # fmt: skip
        self._work_for(key, corporation)
        return key

    def _work_for(self, key: int, corporation: int) -> None:
        body, employer = self.world.characters[key], self.world.corporations.get(corporation, {})
        body["corporation_id"] = corporation
        for name, source in (("alliance_id", "alliance_id"), ("faction_id", "enlisted_faction_id")):
            body.pop(name, None)
            if employer.get(source):
                body[name] = employer[source]

    def _join(self, key: int, alliance: int | None) -> None:
        """A corporation joins an alliance, and leaves the one before it."""
        world, body = self.world, self.world.corporations[key]
        if (old := body.pop("alliance_id", None)) is not None:
            world.alliance_corporations[old].remove(key)
        if alliance is not None:
            body["alliance_id"] = alliance
            world.alliance_corporations[alliance].append(key)
        for member in self._living():
            if world.characters[member]["corporation_id"] == key:
                self._work_for(member, key)

    def _mail(self, now: dt.datetime, victim: int | None = None) -> Mail:
        (made,) = generate(140_000_000 + self._next(), 1, now.date())
        body = made.body
        for one in (body["victim"], *body["attackers"]):
            if "character_id" in one:
                self._name(one, self.dice.choice(self._living()))
            elif "corporation_id" in one:
                one["corporation_id"] = self.dice.choice(self.world.npc_corporations)
        if victim is not None:
            self._name(body["victim"], victim)
        self.world.killmails[made.id, made.hash] = body
        return made

    def _name(self, one: Row, key: int) -> None:
        person = self.world.characters[key]
        for name in ("alliance_id", "faction_id"):
            one.pop(name, None)
        one |= {"character_id": key, "corporation_id": person["corporation_id"]}
        if "alliance_id" in person:
            one["alliance_id"] = person["alliance_id"]

    def _publish(self, mail: Mail, now: dt.datetime) -> None:
        self._uploaded_at = now.timestamp()
        self.feed._clock = int(self._uploaded_at + self.feed_ahead_s)
        self.feed.publish(mail)

    # -- what the tables must hold

    def differences(self, store: Store, since: Callable[[Place, bool], dt.datetime]) -> Iterator[str]:
        """What stands in the tables, or does not, though nothing that was true since then says so.

        Args:
            since: of a row, and of the affiliation of a character (True), the earliest time that it may speak of.
        """
        model.database.initialize(store.database)
        found = {(name, key): row for name, table in TABLES.items() for key, row in mirror.table(store, table).items()}
        yield from (f"{place} is in no world" for place in found.keys() - self._past.keys())
        for place, versions in sorted(self._past.items(), key=lambda item: str(item[0])):
            for is_affiliation in (False, True)[: 1 + (place[0] == "character")]:
                begin = since(place, is_affiliation)
                names = _names(place[0], versions[0][1], is_affiliation)
                allowed = [_values(row, names) for row in _in_force(versions, begin)]
                row = found.get(place)
                # An alliance whose list alone names it may have been sick so lately that the list was not asked since.
                listed_by = ("alliance", versions[0][1].get("alliance_id") or 0)
                if row is None and versions[0][0] > min(begin, since(listed_by, False)):
                    continue
                if row is None or _values(row, names) not in allowed:
                    shown = None if row is None else _values(row, names)
                    yield f"{place}: {dict(zip(names, shown or (), strict=False))}, allowed {allowed}, {versions[-1][0]}"

    def _is_old(self, place: Place, now: dt.datetime) -> bool:
        return now - self._past[place][-1][0] > dt.timedelta(days=2)

    def _rows(self) -> Iterator[tuple[Place, Row]]:
        world = self.world
        for name, rows in (
            ("alliance", mirror.alliances(world)),
            ("corporation", mirror.corporations(world)),
            ("character", mirror.characters(world)),
        ):
            yield from (((name, key), row) for key, row in rows.items())
        for (key, hash_), body in world.killmails.items():
            is_new = ("killmail", key) not in self._past
            yield ("killmail", key), mirror.killmail(key, hash_, body) | self.feed.values.get(key, {})
            if is_new:
                yield from ((("attacker", place), row) for place, row in mirror.attackers(key, body).items())
                yield from ((("item", place), row) for place, row in mirror.items(key, body).items())


def _names(table: str, row: Row, is_affiliation: bool) -> list[str]:
    """The columns that are told together."""
    return [name for name in row if table != "character" or name == "id" or (name in AFFILIATION) == is_affiliation]


def _values(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _in_force(versions: Sequence[tuple[dt.datetime, Row]], since: dt.datetime) -> list[Row]:
    """What was true at any time since then."""
    ends = [*(at for at, _ in versions[1:]), dt.datetime.max.replace(tzinfo=dt.UTC)]
    return [row for (_, row), end in zip(versions, ends, strict=True) if end > since]
