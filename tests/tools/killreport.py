"""The database of a killreport: the tables and columns that we read, and rows as that program writes them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from tests.fake_esi import World
from tests.fake_feed import Mail
from tests.tools.mirror import time

_STAMPS = "created_at TIMESTAMP(3) NOT NULL DEFAULT now(), updated_at TIMESTAMP(3) NOT NULL DEFAULT now()"
_PEOPLE = "character_id INT, corporation_id INT, alliance_id INT, faction_id INT"
TABLES = {
    "alliances": "id INT PRIMARY KEY, name TEXT NOT NULL, ticker TEXT NOT NULL, date_founded TIMESTAMP(3) NOT NULL, "
    "creator_corporation_id INT NOT NULL, creator_id INT NOT NULL, executor_corporation_id INT, faction_id INT, "
    f"corporation_count INT NOT NULL DEFAULT 0, member_count INT NOT NULL DEFAULT 0, {_STAMPS}",
    "corporations": "id INT PRIMARY KEY, name TEXT NOT NULL, ticker TEXT NOT NULL, member_count INT NOT NULL, "
    "ceo_id INT NOT NULL, creator_id INT NOT NULL, date_founded TIMESTAMP(3), description TEXT, alliance_id INT, "
    f"faction_id INT, home_station_id INT, shares BIGINT, tax_rate DOUBLE PRECISION NOT NULL, url TEXT, {_STAMPS}",
    "characters": "id INT PRIMARY KEY, name TEXT NOT NULL, corporation_id INT NOT NULL, alliance_id INT, "
    "birthday TIMESTAMP(3) NOT NULL, bloodline_id INT NOT NULL, race_id INT NOT NULL, gender TEXT NOT NULL, "
    f"security_status DOUBLE PRECISION, description TEXT, title TEXT, faction_id INT, {_STAMPS}",
    "killmails": "killmail_id INT PRIMARY KEY, killmail_hash TEXT NOT NULL, killmail_time TIMESTAMP(3) NOT NULL, "
    "solar_system_id INT NOT NULL, total_value DOUBLE PRECISION, destroyed_value DOUBLE PRECISION, "
    f"dropped_value DOUBLE PRECISION, attacker_count INT, is_war_related BOOLEAN NOT NULL DEFAULT false, {_STAMPS}",
    "victims": f"killmail_id INT PRIMARY KEY, {_PEOPLE}, ship_type_id INT NOT NULL, damage_taken INT NOT NULL, "
    "position_x DOUBLE PRECISION, position_y DOUBLE PRECISION, position_z DOUBLE PRECISION, "
    "created_at TIMESTAMP(3) NOT NULL DEFAULT now()",
    "attackers": f"id BIGSERIAL PRIMARY KEY, killmail_id INT NOT NULL, {_PEOPLE}, ship_type_id INT, weapon_type_id INT, "
    f"damage_done INT NOT NULL, final_blow BOOLEAN NOT NULL, security_status DOUBLE PRECISION, {_STAMPS}",
    "killmail_items": "id BIGSERIAL PRIMARY KEY, killmail_id INT NOT NULL, item_type_id INT NOT NULL, flag INT NOT NULL, "
    "quantity_dropped INT, quantity_destroyed INT, singleton INT NOT NULL",
}
_PERSON = ("character_id", "corporation_id", "alliance_id")
_CORPORATION = ("name", "ticker", "member_count", "ceo_id", "creator_id", "description", "alliance_id", "home_station_id",
                "shares", "url")  # fmt: skip
_CHARACTER = ("name", "corporation_id", "alliance_id", "bloodline_id", "race_id", "gender", "security_status", "description")


class Killreport:
    """Its database on a PostgreSQL of ours, in a time zone that is not UTC."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        for name, columns in TABLES.items():
            self.run(f"CREATE TABLE {name} ({columns})")
        self.run("ALTER ROLE CURRENT_USER IN DATABASE " + self._connection.info.dbname + " SET timezone TO 'Asia/Tokyo'")

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> None:
        """Run one statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def fill(self, world: World, looked_at: dt.datetime) -> None:
        """All of a world, as its workers have written it at a time."""
        stamp = looked_at.astimezone(dt.UTC).replace(tzinfo=None)
        names = ("name", "ticker", "creator_corporation_id", "creator_id", "executor_corporation_id", "faction_id")
        self._insert("alliances", ("id", *names, "date_founded", "updated_at"), (
            (key, *(body.get(name) for name in names), _naive(body["date_founded"]), stamp)
            for key, body in world.alliances.items()
        ))  # fmt: skip
        self._insert("corporations", ("id", *_CORPORATION, "date_founded", "faction_id", "tax_rate", "updated_at"), (
            (key, *(body.get(name) for name in _CORPORATION), _naive(body.get("date_founded")),
             body.get("enlisted_faction_id"), round(body["tax_rates"]["isk"] / 100, 12), stamp)
            for key, body in storable(world).items()
        ))  # fmt: skip
        self._insert("characters", ("id", *_CHARACTER, "birthday", "title", "faction_id", "updated_at"), (
            (key, *(body.get(name) for name in _CHARACTER), _naive(body["birthday"]), body.get("corporation_title"),
             body.get("faction_id"), stamp)
            for key, body in world.characters.items()
        ))  # fmt: skip

    def add(self, mails: Iterable[Mail]) -> None:
        """Killmails as its stream worker writes them: without factions, moon, war and what lies in containers."""
        for mail in mails:
            body, victim = mail.body, mail.body["victim"]
            fought = body["attackers"]
            columns = ("killmail_id", "killmail_hash", "killmail_time", "solar_system_id", "total_value", "attacker_count")
            when = _naive(body["killmail_time"])
            self._insert("killmails", columns, [(mail.id, mail.hash, when, body["solar_system_id"], 5.0, len(fought))])
            columns = ("killmail_id", *_PERSON, "ship_type_id", "damage_taken", "position_x", "position_y", "position_z")
            position = victim.get("position") or {}
            self._insert("victims", columns, [(
                mail.id, *(victim.get(name) for name in (*_PERSON, "ship_type_id", "damage_taken")),
                *(position.get(axis) for axis in "xyz"),
            )])  # fmt: skip
            columns = (*_PERSON, "ship_type_id", "weapon_type_id", "damage_done", "final_blow", "security_status")
            # Its older releases made NULL of zero.
            self._insert("attackers", ("killmail_id", *columns), [
                (mail.id, *(one.get(name) for name in columns[:-1]), one["security_status"] or None) for one in fought
            ])  # fmt: skip
            columns = ("item_type_id", "flag", "quantity_dropped", "quantity_destroyed", "singleton")
            self._insert("killmail_items", ("killmail_id", *columns), [
                (mail.id, *(one.get(name) for name in columns)) for one in victim.get("items", ())
            ])  # fmt: skip

    def _insert(self, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        with self._connection.cursor() as cursor:
            execute_values(cursor, f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s", list(rows))


def storable(world: World) -> dict[int, Any]:
    """The corporations that it can store: with a CEO, and not at home in a structure, whose ids are longer than its INT."""
    return {
        key: body
        for key, body in world.corporations.items()
        if body.get("ceo_id") and body.get("creator_id") and (body.get("home_station_id") or 0) < 2**31
    }


def as_taken_over(mail: Mail) -> Mail:
    """What of a killmail stands there."""
    body = {name: value for name, value in mail.body.items() if name not in {"moon_id", "war_id"}}
    victim = {name: value for name, value in mail.body["victim"].items() if name != "faction_id"}
    if "items" in victim:
        victim["items"] = [{name: value for name, value in one.items() if name != "items"} for one in victim["items"]]
    attackers = [{name: value for name, value in one.items() if name != "faction_id"} for one in mail.body["attackers"]]
    return Mail(mail.id, mail.hash, {**body, "victim": victim, "attackers": attackers})


def _naive(text: str | None) -> dt.datetime | None:
    found = time(text)
    return found.astimezone(dt.UTC).replace(tzinfo=None) if found else None
