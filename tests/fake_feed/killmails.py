"""Random killmails in ESI's shape, with everything that real ones have: nobody, NPCs, zeros, nested items, no position."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Mail:
    """One killmail: its id, its hash, ESI's body."""

    id: int
    hash: str
    body: Body

    @property
    def day(self) -> dt.date:
        """The day of the killmail."""
        return dt.date.fromisoformat(self.body["killmail_time"][:10])


def generate(first_id: int, count: int, day: dt.date, seed: int = 1, *, people: int = 300) -> list[Mail]:
    """So many killmails of one day with ids from the first on; the same arguments give the same killmails."""
    rng = random.Random(f"{seed} {day} {first_id}")
    mails = []
    for key in range(first_id, first_id + count):
        hash_ = hashlib.sha1(f"{seed} {key}".encode()).hexdigest()
        mails.append(Mail(key, hash_, _body(rng, key, day, people)))
    return mails


def _body(rng: random.Random, key: int, day: dt.date, people: int) -> Body:
    second = rng.randrange(86_400)
    attackers = [_attacker(rng, people) for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 30)))]
    attackers[rng.randrange(len(attackers))]["final_blow"] = True
    body: Body = {
        "attackers": attackers,
        "killmail_id": key,
        "killmail_time": f"{day}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z",
        "solar_system_id": rng.randrange(30_000_001, 30_005_000),
        "victim": {
            **_person(rng, people),
            "damage_taken": rng.choice((0, rng.randrange(1, 10**9))),
            "items": [_item(rng, 0) for _ in range(rng.choice((0, 1, 4, 40)))],
            "position": {axis: rng.uniform(-1e13, 1e13) for axis in "xyz"},
            "ship_type_id": rng.randrange(582, 60_000),
        },
    }
    if rng.random() < 0.1:
        body["war_id"] = rng.randrange(1, 700_000)
    if rng.random() < 0.1:
        body["moon_id"] = rng.randrange(40_000_001, 40_400_000)
    if rng.random() < 0.1:
        del body["victim"][rng.choice(("items", "position"))]
    return body


def _person(rng: random.Random, people: int) -> Body:
    number = rng.randrange(people)
    person = {"character_id": 90_000_000 + number, "corporation_id": 98_000_000 + number // 10}
    return person | ({"alliance_id": 99_000_000 + number // 50} if number % 3 else {"faction_id": 500_001})


def _attacker(rng: random.Random, people: int) -> Body:
    attacker: Body = {"damage_done": rng.randrange(0, 50_000), "final_blow": False}
    attacker["security_status"] = rng.choice((0, 5, -10, 0.0, rng.uniform(-10, 5)))
    kind = rng.random()
    if kind < 0.05:
        return attacker
    if kind < 0.15:
        return attacker | {"corporation_id": 1_000_125, "faction_id": 500_024, "ship_type_id": 47_723}
    return attacker | _person(rng, people) | {"ship_type_id": rng.randrange(582, 60_000), "weapon_type_id": 3186}


def _item(rng: random.Random, depth: int) -> Body:
    item: Body = {
        "flag": rng.randrange(5, 180),
        "item_type_id": rng.randrange(18, 60_000),
        rng.choice(("quantity_dropped", "quantity_destroyed")): rng.randrange(1, 10_000),
        "singleton": rng.choice((0, 0, 2)),
    }
    if depth < 2 and rng.random() < 0.03:
        item["items"] = [_item(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    return item
