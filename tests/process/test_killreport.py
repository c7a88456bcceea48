"""The rows of a killreport become ours: as a beginning that ESI and archives confirm, never over what is newer."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from esid import clock
from esid.cli.parser import Grammar
from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.errors import SchemaMismatch, SourceUnavailable
from esid.feeds.killreport import CONFIRM_S, Copied, Takeover
from esid.store import killreport as theirs_tables
from esid.store import ledger, migrate, takeover
from esid.store.connection import Store
from esid.store.ledger import due
from esid.store.model import Done, Row, utc_time
from tests.fake_esi import FakeEsi, World
from tests.fake_feed import generate
from tests.fake_feed.publisher import archive
from tests.tools import mirror
from tests.tools.daemon import ROOT, Daemon
from tests.tools.discovery import reachable
from tests.tools.killmail_tables import assert_equal, everything
from tests.tools.killreport import Killreport, as_taken_over, storable
from tests.tools.servers import Postgres, PrivatePgbouncer
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.work import wait_for_sync

PAGE = (ROOT / "docs" / "from-killreport.md").read_text(encoding="utf-8")
DAY = dt.date(2026, 3, 1)
LONG_AGO = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


@pytest.fixture
def killreport(postgres: Postgres) -> Iterator[Killreport]:
    """Its database, with no rows."""
    name = postgres.create_database()
    made = Killreport(postgres.url(name))
    yield made
    made.close()
    postgres.drop_database(name)


@pytest.fixture
def esid(database_url: str, tmp_path: Path) -> Daemon:
    """`esid` on an empty database."""
    return Daemon({"DATABASE_URL": database_url, "ESID_DATA_DIR": str(tmp_path / "data")})


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """That database, with the schema in it."""
    opened = Store(database_url, pool_size=4)
    migrate.migrate(opened)
    yield opened
    opened.close()


def take_over(esid: Daemon, killreport: Killreport) -> dict[str, dict[str, Any]]:
    """What the command says of each table."""
    found = json.loads(esid.ok("import", "killreport", "--from-url", killreport.url, "--json"))
    return {one["table"]: one for one in found}


def test_all_rows_are_there_and_every_id_is_asked(esid: Daemon, store: Store, killreport: Killreport, world: World) -> None:
    # Given a killreport with alliances, corporations, characters and killmails
    mails = generate(120_000_000, 300, DAY)
    killreport.fill(world, LONG_AGO)
    killreport.add(mails)

    # When they are taken over
    out = esid.ok("import", "killreport", "--from-url", killreport.url)

    # Then every row is as it stands there
    assert "killmails     300 read, 300 new" in out
    assert mirror.table(store, Alliance) == mirror.alliances(world)
    assert mirror.table(store, Character) == mirror.characters(world)
    unknown = dict.fromkeys(("war_eligible", "state", "type", "friendly_fire"))
    corporations = mirror.corporations(world)
    assert mirror.table(store, Corporation) == {key: corporations[key] | unknown for key in storable(world)}
    assert_equal(store, [as_taken_over(mail) for mail in mails])

    # And all of them, and who stands on the killmails, are known and not fresh; killmails are asked for a day later
    counts = ledger.counts(store)
    assert set(counts["alliance"]) == set(counts["corporation"]) == {"pending"}
    assert counts["character"]["pending"] >= len(world.characters)
    assert counts["killmail"] == {"completed": 300}
    again = utc_time((ledger.job(store, "killmail", mails[0].id) or {})["next_at"])
    assert again is not None
    assert abs((again - clock.now()).total_seconds() - CONFIRM_S) < 120
    assert due.by_schedule(store, "killmail", 10) == []

    # And once more is harmless
    before = everything(store)
    again_said = take_over(esid, killreport)
    assert {name: (one["new"], one["newer"], one["kept"]) for name, one in again_said.items()} == {
        name: (0, 0, one["read"]) for name, one in again_said.items()
    }
    assert again_said["killmails"]["read"] == 300
    assert everything(store) == before


def test_the_newer_row_wins(esid: Daemon, store: Store, killreport: Killreport, world: World) -> None:
    # Given one character that we have looked at since, and one at which killreport did
    killreport.fill(world, LONG_AGO)
    ours, theirs, *_ = sorted(world.characters)
    for key, at in ((ours, LONG_AGO + dt.timedelta(days=1)), (theirs, LONG_AGO - dt.timedelta(days=1))):
        row = Row(Character, {"id": key, "name": "by ESI", "corporation_id": 98_000_000})
        ledger.finish(store, "character", [Done(key, (row,), checked_at=at, expires_at=at)])
    store.run(lambda: store.rows("UPDATE characters SET updated_at = '2026-02-01 00:00:00.000000+00:00'"))

    said = take_over(esid, killreport)["characters"]

    assert (said["new"], said["newer"], said["kept"]) == (len(world.characters) - 2, 1, 1)
    found = mirror.table(store, Character)
    assert found[ours]["name"] == "by ESI"
    assert found[theirs] == mirror.characters(world)[theirs]
    # And a time to come is no newer than now: the next import finds what the last one has written
    killreport.run("UPDATE characters SET updated_at = '2100-01-01', name = 'from the future' WHERE id = %s", (theirs,))
    assert take_over(esid, killreport)["characters"]["newer"] == 1
    assert mirror.table(store, Character)[theirs]["name"] == "from the future"


def test_what_stands_here_of_a_killmail_stays(esid: Daemon, store: Store, killreport: Killreport, tmp_path: Path) -> None:
    # Given a day of which an archive has brought the half, whole
    mails = generate(120_000_000, 100, DAY)
    folder = tmp_path / "archives"
    folder.mkdir()
    path = folder / f"killmails-{DAY}.tar.bz2"
    path.write_bytes(archive(mails[:50]))
    esid.ok("import", "killmails", "--dir", str(folder))
    killreport.add(mails)

    # When the rest is taken over, ours are as they were
    said = take_over(esid, killreport)["killmails"]
    assert (said["new"], said["kept"]) == (50, 50)
    assert_equal(store, [*mails[:50], *map(as_taken_over, mails[50:])])

    # And when the archive has all of them, they are whole, and ESI need not be asked
    path.write_bytes(archive(mails))
    esid.ok("import", "killmails", "--dir", str(folder))
    assert_equal(store, mails)
    assert (ledger.job(store, "killmail", mails[99].id) or {})["next_at"] is None
    with store.connection():
        assert store.rows("SELECT COUNT(*) FROM sync_jobs WHERE entity_type = 'killmail' AND next_at IS NOT NULL") == [(0,)]


def test_a_killmail_that_is_not_all_there_is_asked_of_esi(esid: Daemon, store: Store, killreport: Killreport) -> None:
    # Given killmails that lack their victim, an attacker or a hash that ESI knows; and one by the hand of CCP
    mails = generate(120_000_000, 10, DAY)
    killreport.add(mails)
    killreport.run("DELETE FROM victims WHERE killmail_id = %s", (mails[0].id,))
    killreport.run("DELETE FROM attackers WHERE killmail_id = %s", (mails[1].id,))
    killreport.run("UPDATE killmails SET attacker_count = attacker_count + 1 WHERE killmail_id = %s", (mails[2].id,))
    killreport.run("UPDATE killmails SET killmail_hash = 'abc' WHERE killmail_id = %s", (mails[3].id,))
    killreport.run("UPDATE killmails SET killmail_hash = 'CCP VERIFIED' WHERE killmail_id = %s", (mails[4].id,))
    killreport.run("UPDATE killmails SET attacker_count = NULL WHERE killmail_id = %s", (mails[5].id,))

    ran = esid.run("import", "killreport", "--from-url", killreport.url)

    # Then ESI is asked for what it can be asked for, and the exit code says that one is lost
    assert ran.code == 1, ran
    assert "killmails     10 read, 6 new, 3 incomplete, ESI is asked, 1 left out" in ran.out
    for mail in mails[:3]:
        job = ledger.job(store, "killmail", mail.id)
        assert job
        assert (job["status"], job["argument"]) == ("pending", mail.hash)
    assert ledger.job(store, "killmail", mails[3].id) is None
    # ESI cannot be asked for what it has no hash of
    assert (ledger.job(store, "killmail", mails[4].id) or {})["next_at"] is None


def test_npcs_are_left_out(esid: Daemon, store: Store, killreport: Killreport, world: World) -> None:
    killreport.fill(world, LONG_AGO)
    killreport.run("UPDATE characters SET id = 3019491 WHERE id = %s", (min(world.characters),))
    said = take_over(esid, killreport)["characters"]
    assert (said["new"], said["left_out"]) == (len(world.characters) - 1, 1)
    assert ledger.job(store, "character", 3_019_491) is None


@pytest.mark.parametrize("table", ["characters", "killmails"])
def test_an_import_that_was_interrupted_goes_on_where_it_stopped(
    store: Store, killreport: Killreport, world: World, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    # Given small batches, and a killreport that goes away after some
    mails = generate(120_000_000, 40, DAY)
    killreport.fill(world, LONG_AGO)
    killreport.add(mails)
    theirs = theirs_tables.Killreport(killreport.url)
    read_rows, calls = theirs._rows, list[str]()

    def go_away(sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        if f"FROM {table} " in sql:
            calls.append(sql)
            if len(calls) == 3:
                raise SourceUnavailable("gone")
        return read_rows(sql, parameters)

    monkeypatch.setattr(theirs, "_rows", go_away)

    def run() -> dict[str, Copied]:
        run = Takeover(store, theirs)
        run._batch_size = 10
        return {one.table: one for one in run.run()}

    with pytest.raises(SourceUnavailable):
        run()
    # When it is there again
    said = run()

    # Then what was taken over is not read again, and nothing is missing
    read = {"alliances": 0, "corporations": 0, "characters": 0, "killmails": 40}
    whole = {"characters": len(world.characters), "killmails": 40}
    read[table] = whole[table] - 20
    assert {name: one.read for name, one in said.items()} == read
    assert mirror.table(store, Character) == mirror.characters(world)
    assert_equal(store, [as_taken_over(mail) for mail in mails])
    # And the next one looks at everything again
    assert run()["characters"].read == len(world.characters)
    theirs.close()


def test_a_takeover_ends_between_two_batches_when_a_newer_program_has_migrated(
    store: Store, killreport: Killreport, world: World
) -> None:
    killreport.fill(world, LONG_AGO)
    theirs = theirs_tables.Killreport(killreport.url)
    book = "INSERT INTO schema_migrations (number, name, applied_at) VALUES (99, 'x', '2030-01-01 00:00:00+00:00')"
    tables = Takeover(store, theirs).run()
    assert next(tables).table == "alliances"
    store.change(book, ())
    with closing(theirs), pytest.raises(SchemaMismatch, match="newer than this program"):
        next(tables)
    # And the next release goes on where it was
    assert takeover.place(store, f"{theirs.name} alliances") == max(world.alliances)
    assert takeover.place(store, f"{theirs.name} corporations") == 0
    assert mirror.table(store, Corporation) == {}


@pytest.mark.quick_on(STACKS[0])
def test_a_daemon_brings_what_was_taken_over_up_to_date(
    stack: Stack, esi: FakeEsi, world: World, killreport: Killreport, tmp_path: Path
) -> None:
    # Given what killreport knew long ago, when everything had another name
    reachable(world)
    killreport.fill(world, LONG_AGO)
    for name in ("alliances", "corporations", "characters"):
        killreport.run(f"UPDATE {name} SET name = 'old'")
    daemon = Daemon({**stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    take_over(daemon, killreport)

    # When a daemon runs on it
    store = Store(stack.database_url, pool_size=2)
    try:
        daemon.start()
        wait_for_sync(daemon, store)
        assert daemon.stop() == 0
        # Then the tables are the world
        mirror.assert_equal(store, world)
    finally:
        daemon.end()
        store.close()


@pytest.mark.quick_on(STACKS[0])
def test_esi_makes_whole_what_killreport_lacks_a_day_later(
    stack: Stack, esi: FakeEsi, world: World, killreport: Killreport, tmp_path: Path
) -> None:
    # Given killmails without moon, war, factions and items in containers, which are due
    mails = generate(120_000_000, 60, DAY)
    world.killmails.update({(mail.id, mail.hash): mail.body for mail in mails})
    killreport.add(mails)
    daemon = Daemon({**stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"})
    take_over(daemon, killreport)
    store = Store(stack.database_url, pool_size=2)
    due_now = (
        "UPDATE sync_jobs SET next_at = '2026-03-03 00:00:00.000000+00:00' WHERE next_at IS NOT NULL RETURNING entity_id"
    )
    assert len(store.run(lambda: store.rows(due_now))) == 60

    # When a daemon works on killmails
    try:
        daemon.start("--actors", "killmail")
        is_open = "entity_type = 'killmail' AND (status <> 'completed' OR next_at IS NOT NULL)"
        count = f"SELECT COUNT(*) FROM sync_jobs WHERE {is_open}"
        wait_until(lambda: store.change(count, ()) == [(0,)], 60, lambda: daemon.log[-3000:])
        assert daemon.stop() == 0
    finally:
        daemon.end()
    # Then they are whole, and each was asked for once
    assert_equal(store, mails)
    assert esi.count(method="GET") == 60
    store.close()


@pytest.mark.parametrize("way", ["url", "file"])
def test_a_password_is_read_from_a_file_and_never_from_the_command_line(
    tmp_path: Path, postgres: Postgres, killreport: Killreport, way: str
) -> None:
    esid = Daemon({"ESID_DATA_DIR": str(tmp_path / "data")})
    url = postgres.password_url(killreport.url.rsplit("/", 1)[1]) + "?schema=public&connection_limit=2&sslmode=prefer"
    path = tmp_path / "killreport.env"
    path.write_text(f'# its settings\nDATABASE_URL="{url}"\nEVE_CLIENT_SECRET=$x\n')
    ran = esid.run("import", "killreport", "--from-url", url if way == "url" else str(path))
    assert postgres.password not in ran.out + ran.err
    if way == "file":
        assert ran.code == 0
        typed = ("import", "killreport", "--from-url", "/dev/stdin")
        assert esid.run(*typed, stdin=f"DATABASE_URL={url}\nRABBITMQ_URL\n").code == 0
        path.write_text(f"DATABASE_URL={url.replace(postgres.password, 'not-the-password')}\n")
        ran = esid.run("import", "killreport", "--from-url", str(path))
        assert (ran.code, ran.err.count("\n")) == (78, 1)
        assert "not-the-password" not in ran.err
        assert "password authentication failed" in ran.err
    else:
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "backend/.env" in ran.err
        assert not (tmp_path / "data").exists()


SECRET = "s3cret"
#: What stands in a file, or was typed, with a password in it in every way that people find.
LEAKS = (
    f"postgresql://u:{SECRET}/x@h:1/killreport", f"postgresql://u:a@{SECRET}@127.0.0.1/killreport",
    f"u:{SECRET}@h/killreport", f"host=h password={SECRET} dbname=x", f"prisma+postgres://h/?api_key={SECRET}",
    f"postgresql://h/x?user=u&PASSWORD={SECRET}", f"POSTGRESQL://u:{SECRET}@127.0.0.1:1/x",
    f"postgresql://u:{SECRET}@127.0.0.1:1/x?foo=1", f"postgresql://u@127.0.0.1:1/x?passwd={SECRET}",
    f"postgresql://u:%zz{SECRET}@127.0.0.1:1/x",
)  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_no_part_of_an_address_with_a_password_is_printed(tmp_path: Path, leak: str) -> None:
    esid = Daemon({"ESID_DATA_DIR": str(tmp_path / "data")})
    path = tmp_path / "killreport.env"
    path.write_text(f"DATABASE_URL='{leak}'\n")
    for typed, codes in ((["--from-url", leak], {2, 78}), ([leak], {2, 78}), (["--from-url", str(path)], {69, 78})):
        ran = esid.run("import", "killreport", *typed)
        assert SECRET not in ran.out + ran.err
        assert ran.code in codes, ran
        assert ran.err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_what_is_no_killreport_is_one_line_and_nothing_is_written(
    tmp_path: Path, postgres: Postgres, killreport: Killreport
) -> None:
    esid = Daemon({"ESID_DATA_DIR": str(tmp_path / "data")})
    (tmp_path / "empty.env").write_text("A=b\n")
    (tmp_path / "open.env").write_text('A=b\nDATABASE_URL="postgresql://h/x\n')
    killreport.run("ALTER TABLE victims RENAME TO former_victims")
    killreport.add([])
    name = killreport.url.rsplit("/", 1)[1]
    for code, words, typed in (
        (2, "--from-url", []),
        (2, "has no line DATABASE_URL", ["--from-url", str(tmp_path / "empty.env")]),
        (2, "nor a file", ["--from-url", str(tmp_path / "absent.env")]),
        (2, "nor a file", ["--from-url", str(tmp_path)]),
        (2, "nor a file", ["--from-url", "x" * 300]),
        (78, "open.env line 2: cannot be read", ["--from-url", str(tmp_path / "open.env")]),
        (2, "begins with postgresql://", ["--from-url", "mysql://esid@127.0.0.1/x"]),
        (78, "write postgresql://user@host:5432/killreport", ["--from-url", "postgresql://esid@127.0.0.1"]),
        (78, "take this parameter away", ["--from-url", "postgresql://esid@127.0.0.1/x?foo=1"]),
        (69, "is it running", ["--from-url", "postgresql://esid@127.0.0.1:1/x"]),
        (78, "check user, password and name", ["--from-url", postgres.url("no_such_database")]),
        (69, "is not the database of a killreport", ["--from-url", postgres.url("postgres")]),
        (69, "is not the database of a killreport", ["--from-url", killreport.url]),
        (69, "is not the database of a killreport", ["--from-url", f"{postgres.url(name)}?schema=prod"]),
        (2, "it has no --from and no --again", ["--from-url", killreport.url, "--from", "2026-05-01", "--again"]),
    ):
        ran = esid.run("import", "killreport", *typed)
        assert (ran.code, ran.err.count("\n")) == (code, 1), ran
        assert words in ran.err
    assert not (tmp_path / "data").exists()
    ran = esid.run("import", "killmails", "--from-url", killreport.url)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "`esid import killreport" in ran.err
    # A second address is refused, and so is what stands behind killmails
    for typed in (
        ("killreport", killreport.url, "--from-url", killreport.url),
        ("killmails", f"postgresql://u:{SECRET}@h/x"),
    ):
        ran = esid.run("import", *typed)
        assert (ran.code, ran.err.count("\n"), SECRET in ran.err) == (2, 1, False), ran


def test_the_address_needs_no_name(esid: Daemon, killreport: Killreport, tmp_path: Path) -> None:
    killreport.add(generate(120_000_000, 5, DAY))
    path = tmp_path / "killreport.env"
    path.write_text(f"DATABASE_URL={killreport.url}\n")
    for typed, new in ((str(path), 5), (killreport.url, 0)):
        found = json.loads(esid.ok("import", "killreport", typed, "--json"))
        assert {one["table"]: one for one in found}["killmails"]["new"] == new


def test_a_database_of_esid_is_no_killreport(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url(postgres.create_database())
    Daemon({"DATABASE_URL": url}).ok("migrate")
    ran = Daemon({"ESID_DATA_DIR": str(tmp_path / "data")}).run("import", "killreport", "--from-url", url)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is a database of esid" in ran.err
    assert not (tmp_path / "data").exists()


def test_a_killreport_behind_a_pooler_is_taken_over(
    esid: Daemon, store: Store, postgres: Postgres, killreport: Killreport
) -> None:
    killreport.add(generate(120_000_000, 5, DAY))
    with PrivatePgbouncer(postgres, "transaction") as pooler:
        url = f"{pooler.url(killreport.url.rsplit('/', 1)[1])}?pgbouncer=true&connection_limit=1"
        found = json.loads(esid.ok("import", "killreport", "--from-url", url, "--json"))
    assert {one["table"]: one for one in found}["killmails"]["new"] == 5


def test_rows_that_cannot_be_rows_of_ours_are_left_out_and_the_rest_is_taken(
    esid: Daemon, store: Store, killreport: Killreport, world: World
) -> None:
    # Given rows without what each has, a time that cannot be, and a killmail without a hash
    mails = generate(120_000_000, 5, DAY)
    killreport.fill(world, LONG_AGO)
    killreport.add(mails)
    killreport.run("ALTER TABLE alliances ALTER name DROP NOT NULL, ALTER updated_at DROP NOT NULL")
    killreport.run("ALTER TABLE attackers ALTER damage_done DROP NOT NULL")
    first, *_, last = sorted(world.alliances)
    killreport.run("UPDATE alliances SET name = NULL WHERE id = %s", (first,))
    killreport.run("UPDATE alliances SET updated_at = NULL WHERE id = %s", (last,))
    killreport.run("UPDATE attackers SET damage_done = NULL WHERE killmail_id = %s", (mails[0].id,))
    killreport.run("UPDATE killmails SET killmail_hash = '' WHERE killmail_id = %s", (mails[1].id,))

    # When they are taken over, twice
    for new in (3, 0):
        ran = esid.run("import", "killreport", "--from-url", killreport.url, "--json")
        tables = {one["table"]: one for one in json.loads(ran.out)}
        assert (ran.code, tables["alliances"]["left_out"], tables["killmails"]["new"]) == (1, 1, new)
        assert [one.split(":")[0] for one in tables["killmails"]["named"]] == [f"killmail {mails[1].id}"]

    # Then the rest is there, and ESI is asked for what was left out
    with store.connection():
        assert {key for (key,) in store.rows("SELECT id FROM alliances")} == set(world.alliances) - {first}
    assert ledger.states(store, "alliance", [first]) == [(first, "pending")]
    assert ledger.states(store, "killmail", [mails[0].id]) == [(mails[0].id, "pending")]


def test_an_import_that_goes_on_names_what_was_left_out_before(
    store: Store, killreport: Killreport, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a killmail without a hash among the first ones, and one among the last ones, between which killreport goes away
    mails = generate(120_000_000, 40, DAY)
    killreport.add(mails)
    lost = [mails[1].id, mails[39].id]
    killreport.run("UPDATE killmails SET killmail_hash = '' WHERE killmail_id = ANY(%s)", (lost,))
    theirs = theirs_tables.Killreport(killreport.url)
    read, calls = theirs.killmails, list[int]()

    def go_away(after: int, limit: int) -> list[Any]:
        calls.append(after)
        if len(calls) == 3:
            raise SourceUnavailable("gone")
        return read(after, limit)

    monkeypatch.setattr(theirs, "killmails", go_away)

    def run() -> Copied:
        takeover = Takeover(store, theirs)
        takeover._batch_size = 10
        return list(takeover.run())[-1]

    with pytest.raises(SourceUnavailable):
        run()
    # When it goes on, then it tells of both
    said = run()
    assert (said.read, said.new, said.left_out) == (20, 19, 2)
    assert [line.split(":")[0] for line in said.named] == [f"killmail {key}" for key in lost]
    # And the next import, which looks at everything, of each once
    assert run().left_out == 2
    with store.connection():
        assert store.rows("SELECT name FROM memos WHERE name LIKE %s", ("takeover%",)) == []
    theirs.close()


def test_ctrl_c_does_not_wait_for_a_lock_on_the_other_database(
    killreport: Killreport, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who holds one of its tables, and a session that would wait for it for long
    monkeypatch.setattr(theirs_tables, "_SESSION", {"lock_timeout": "'300s'"})
    theirs = theirs_tables.Killreport(killreport.url)
    holder = psycopg2.connect(killreport.url)
    holder.cursor().execute("LOCK TABLE alliances IN ACCESS EXCLUSIVE MODE")
    waits = """SELECT count(*) FROM pg_stat_activity WHERE application_name = 'esid import' AND wait_event_type = 'Lock'
        AND datname = current_database()"""

    def interrupt() -> None:
        try:
            wait_until(is_waiting, 60, "it waits")
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: not is_waiting(), 60, "it waits no more")
            ended.append(True)
        finally:
            holder.rollback()

    def is_waiting() -> bool:
        watcher = psycopg2.connect(killreport.url)
        try:
            with watcher.cursor() as cursor:
                cursor.execute(waits)
                return bool(cursor.fetchone()[0])
        finally:
            watcher.close()

    ended, before = list[bool](), psycopg2.extensions.get_wait_callback()
    thread = threading.Thread(target=interrupt)
    thread.start()
    # When Ctrl-C comes, then it ends although the lock is still held
    try:
        with pytest.raises(KeyboardInterrupt):
            theirs.page("alliances", ("name",), 0, 10)
    finally:
        thread.join()
    assert ended == [True]
    # And what is written meanwhile may use COPY
    assert psycopg2.extensions.get_wait_callback() is before
    assert theirs.page("alliances", ("name",), 0, 10) == []
    theirs.close()
    holder.close()


def test_a_time_that_cannot_be_is_one_line(esid: Daemon, store: Store, killreport: Killreport, world: World) -> None:
    killreport.fill(world, LONG_AGO)
    killreport.run("UPDATE alliances SET date_founded = '0044-01-01 BC'")
    ran = esid.run("import", "killreport", "--from-url", killreport.url)
    assert (ran.code, ran.err.count("\n")) == (69, 1)
    assert "a value that cannot be read" in ran.err


def test_the_page_grants_what_the_import_needs_and_its_view_is_right(
    esid: Daemon, store: Store, postgres: Postgres, killreport: Killreport
) -> None:
    # Given a role that has what the page grants, and no more
    (grant,) = re.findall(r"^ +(GRANT SELECT ON .* TO )reader;$", PAGE, re.M)
    name = killreport.url.rsplit("/", 1)[1]
    killreport.add(generate(120_000_000, 5, DAY))
    killreport.run(f"CREATE ROLE {name}_reader")
    killreport.run(f"{grant} {name}_reader")
    killreport.run(f"ALTER DATABASE {name} SET role TO {name}_reader")

    # Then it is enough
    try:
        assert take_over(esid, killreport)["killmails"]["new"] == 5
    finally:
        killreport.run(f"DROP OWNED BY {name}_reader")
        killreport.run(f"ALTER DATABASE {name} RESET role")
        killreport.run(f"DROP ROLE {name}_reader")

    # And the view for old readers has its rows
    (view,) = re.findall(r"^    (create view .*?;)$", PAGE, re.M | re.S)
    store.run(lambda: store.rows(view.removesuffix(";")))
    with store.connection():
        found = store.rows("SELECT killmail_id, ship_type_id FROM victims ORDER BY killmail_id")
    assert found == [(mail.id, mail.body["victim"]["ship_type_id"]) for mail in generate(120_000_000, 5, DAY)]


def test_the_page_names_commands_that_exist() -> None:
    named = set(re.findall(r"`esid ([a-z]+)", PAGE))
    assert {"import", "sync", "enqueue"} <= named
    assert named <= set(Grammar().commands)
