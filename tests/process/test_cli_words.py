"""What each command says and does, on the database and the queue of the embedded default and of the stack at scale."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from esid import __version__
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Failure, Seen, utc_text
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon
from tests.tools.stacks import STACKS, Stack
from tests.tools.terminals import Terminal
from tests.tools.waiting import wait_until

on_sqlite = pytest.mark.parametrize("stack", STACKS[:1], indirect=True)
on_main_stacks = pytest.mark.parametrize("stack", STACKS[:2], indirect=True)
COMMANDS = (
    "run",
    "enqueue",
    "sync",
    "import",
    "heal",
    "status",
    "schedule",
    "purge",
    "dead",
    "show",
    "migrate",
    "config",
    "version",
    "help",
)
HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def esid(tmp_path: Path) -> Daemon:
    """`esid` without a setting, in an empty home directory."""
    home = tmp_path / "home"
    home.mkdir()
    return Daemon({}, directory=home)


@pytest.fixture
def store(daemon: Daemon, stack: Stack) -> Iterator[Store]:
    """The daemon's database, with the schema in it."""
    daemon.ok("migrate")
    opened = Store(stack.database_url, pool_size=2)
    yield opened
    opened.close()


def numbers(first: int, count: int) -> list[str]:
    """So many ids, as a person types them."""
    return [str(key) for key in range(first, first + count)]


def messages(daemon: Daemon) -> dict[str, int]:
    """Entity -> messages that wait."""
    pending = json.loads(daemon.ok("status", "--json"))["queues"]["pending"]
    return {name.rpartition(".")[2]: count for name, count in pending.items() if count}


def letters(daemon: Daemon, *filters: str) -> list[dict[str, Any]]:
    """The dead letters that fit."""
    found: list[dict[str, Any]] = json.loads(daemon.ok("dead", "list", "--json", *filters))
    return found


def work_off(daemon: Daemon, store: Store, *entities: str) -> None:
    """Let a daemon do everything that is open for these entities, and stop it."""
    daemon.start("--actors", ",".join(entities))
    wait_until(lambda: not ledger.is_open(store, entities), 20, f"the end of {entities}: {daemon.log}", every_s=0.05)
    assert daemon.stop() == 0


# -- enqueue


@on_main_stacks
@pytest.mark.quick_on(STACKS[1])
def test_enqueue_says_what_became_of_each_id(daemon: Daemon, world: World, store: Store) -> None:
    # Given two alliances of which one is in the queue already
    first, second, *_ = map(str, world.alliances)
    assert daemon.ok("enqueue", "alliance", first) == "alliance: 1 queued\n"

    assert daemon.ok("enqueue", "alliance", first, second, second) == "alliance: 1 queued, 1 already pending\n"
    again = daemon.ok("enqueue", "alliance", first, second, "--json")
    assert json.loads(again) == {"queued": 0, "pending": 2, "fresh": 0}

    # When they have been asked
    work_off(daemon, store, "alliance")

    # Then their answers are good for an hour, and a new id is none of them
    text = daemon.ok("enqueue", "alliance", first, second, "99999999")
    assert text == "alliance: 1 queued, 2 still fresh (ESI's cache time is not over)\n"
    assert json.loads(daemon.ok("enqueue", "alliance", first, "99999999", "--json")) == {
        "queued": 0,
        "pending": 1,
        "fresh": 1,
    }


def test_enqueue_without_a_daemon_says_that_the_ids_are_kept(esid: Daemon) -> None:
    ran = esid.set_up().run("enqueue", "character", "95000001")

    assert (ran.code, ran.out) == (0, "character: 1 queued\n")
    assert ran.err == "esid: no daemon is running here; it is kept until `esid run` is started\n"


def test_a_sync_that_finds_nothing_due_says_nothing_of_a_daemon(esid: Daemon) -> None:
    ran = esid.set_up().run("sync", "characters")
    assert (ran.code, ran.out, ran.err) == (0, "characters: everything is fresh or queued\n", "")
    # What was queued before is kept all the same
    esid.ok("enqueue", "character", "95000001")
    assert "it is kept until `esid run` is started" in esid.run("sync", "characters").err


@on_main_stacks
@pytest.mark.quick_on(STACKS[1])
def test_ids_that_are_pending_make_no_second_message(daemon: Daemon) -> None:
    ids = numbers(98_000_000, 45)
    daemon.set_up().ok("enqueue", "corporation", *ids)
    before = messages(daemon)

    daemon.ok("enqueue", "corporation", *ids, "-", stdin="\n".join(ids))

    assert messages(daemon) == before == {"corporation": 3}


@on_main_stacks
def test_ten_thousand_ids_from_standard_input_are_accepted_within_10_s(daemon: Daemon, store: Store) -> None:
    # Given ids as people have them: in lines, in columns, with blank lines and a second time
    ids = numbers(2_112_000_000, 10_000)
    text = "\r\n\n" + "\n".join(ids[:5000]) + "\n" + "\t".join(ids[5000:]) + "  \n"

    assert daemon.ok("enqueue", "character", "-", stdin=text, timeout_s=10) == "character: 10,000 queued\n"
    assert (
        daemon.ok("enqueue", "character", "-", stdin=text, timeout_s=10) == "character: 0 queued, 10,000 already pending\n"
    )

    assert ledger.counts(store) == {"character": {"pending": 10_000}}
    assert messages(daemon) == {"character": 10}


def test_a_killmail_is_asked_by_id_and_hash_in_either_case(esid: Daemon) -> None:
    assert esid.set_up().ok("enqueue", "killmail", "-", stdin=f"1:{HASH}\n2:{HASH.upper()}\n") == "killmail: 2 queued\n"

    assert json.loads(esid.run("show", "killmail", "2", "--json").out)["job"]["argument"] == HASH


@on_sqlite
def test_enqueue_that_waits_ends_with_1_when_ids_have_failed(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given a running daemon, and two ids of which ESI knows one
    esi.latency_s = 0.2
    known = str(next(iter(world.alliances)))
    daemon.start("--actors", "alliance", "--no-scheduler")

    ran = daemon.run("enqueue", "alliance", known, "99999999", "--wait")

    assert (ran.code, ran.err.splitlines()[-1]) == (1, "1 id failed; `esid dead list` says why")
    assert ran.err.startswith("esid: waiting until 2 ids are done\n")
    # One that had failed before fails again
    ran = daemon.run("enqueue", "alliance", "99999999", "--wait")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "1 id failed; `esid dead list` says why")
    # And what has failed or waits beside those that were asked for is not theirs
    ledger.request(store, [Seen("alliance", 99999998)])
    ledger.defer(store, "alliance", [99999998], 3600.0)
    assert daemon.run("enqueue", "alliance", known, "--wait").code == 0
    assert daemon.stop() == 0


@on_sqlite
def test_the_bar_of_waiting_ends_at_100_percent_on_a_line_of_its_own(daemon: Daemon, world: World, store: Store) -> None:
    daemon.start("--actors", "alliance", "--no-scheduler")
    ids = list(map(str, world.alliances))[:3]
    for typed, result in ((["enqueue", "alliance", *ids], "alliance: 3 queued"), (["sync", "alliances"], "alliances: ")):
        command = [sys.executable, "-m", "esid", *typed, "--wait"]
        with Terminal(command, daemon.environment, daemon.directory) as terminal:
            assert terminal.wait(60) == 0
        first, bar = terminal.seen.rstrip().split("\r\n")
        assert first.startswith(result)
        assert f"[{'#' * 30}] 100 %  " in bar.rpartition("\r\x1b[K")[2]
    assert daemon.stop() == 0


@on_sqlite
def test_who_stops_waiting_has_a_line_of_his_own(daemon: Daemon, store: Store) -> None:
    command = [sys.executable, "-m", "esid", "enqueue", "alliance", "99000006", "--wait"]
    with Terminal(command, daemon.environment, daemon.directory) as terminal:
        wait_until(lambda: "0 of 1" in terminal.read(), 20, lambda: terminal.seen)
        terminal.press("\x03")
        assert terminal.wait() == 130
    assert terminal.seen.endswith("\r\n")


@on_sqlite
def test_all_dead_letters_are_dropped_when_somebody_says_yes(daemon: Daemon, dead: dict[str, int]) -> None:
    command = [sys.executable, "-m", "esid", "dead", "drop", "--all"]
    for answer, code, left in (("n\n", 2, 3), ("y\n", 0, 0)):
        with Terminal(command, daemon.environment, daemon.directory) as terminal:
            wait_until(lambda: "[y/N]" in terminal.read(), 20, lambda: terminal.seen)
            terminal.press(answer)
            assert terminal.wait() == code
        assert "Drop 3 dead letters for good" in terminal.seen
        assert len(letters(daemon)) == left


# -- sync and purge


@on_main_stacks
@pytest.mark.quick_on(STACKS[0])
def test_a_purge_empties_our_queues_alone_and_the_next_sync_asks_again(
    request: pytest.FixtureRequest, daemon: Daemon, stack: Stack, store: Store
) -> None:
    # Given work in two of our queues, and somebody else's message beside it
    daemon.ok("enqueue", "character", *numbers(95_000_000, 30))
    daemon.ok("enqueue", "corporation", *numbers(98_000_000, 45))
    others = OtherQueue(stack, store, f"{daemon.settings['ESID_QUEUE_PREFIX']}2.character")

    # When one is purged, then all
    purged = daemon.ok("purge", "character", "--yes")
    assert purged == "character: 1 message deleted, 30 jobs wait for the next scheduled sync\n"
    assert messages(daemon) == {"corporation": 3}
    assert daemon.ok("purge", "--yes").splitlines() == [
        "alliance: 0 messages deleted, 0 jobs wait for the next scheduled sync",
        "corporation: 3 messages deleted, 45 jobs wait for the next scheduled sync",
        "character: 0 messages deleted, 0 jobs wait for the next scheduled sync",
        "killmail: 0 messages deleted, 0 jobs wait for the next scheduled sync",
    ]

    # Then ours are empty, the other is not, and what was purged is asked for again
    assert messages(daemon) == {}
    assert others.count() == 1
    assert json.loads(daemon.ok("sync", "characters", "--json")) == {"queued": {"character": 30}}
    assert daemon.ok("sync", "corporations") == "corporations: 46 jobs queued\n"
    assert daemon.ok("sync", "corporations") == "corporations: everything is fresh or queued\n"


class OtherQueue:
    """A queue of another program, with one message in it."""

    def __init__(self, stack: Stack, store: Store, name: str) -> None:
        self._stack, self._store, self._name = stack, store, name
        if stack.rabbitmq_url:
            self._on_channel(lambda channel: channel.queue_declare(name))
            self._on_channel(lambda channel: channel.basic_publish("", name, b"not yours"))
        else:
            row = (name, 0, 0.0, 0, "not yours")
            store.run(lambda: store.insert("messages", ("queue", "priority", "ready_at", "deliveries", "body"), [row]))

    def count(self) -> int:
        """Messages that are left."""
        if self._stack.rabbitmq_url:
            return self._on_channel(lambda channel: channel.queue_declare(self._name, passive=True)).method.message_count
        with self._store.connection():
            return self._store.rows("SELECT COUNT(*) FROM messages WHERE queue = %s", (self._name,))[0][0]

    def _on_channel(self, action: Any) -> Any:
        connection = pika.BlockingConnection(pika.URLParameters(self._stack.rabbitmq_url))
        try:
            return action(connection.channel())
        finally:
            connection.close()


# -- dead letters


@pytest.fixture
def dead(daemon: Daemon, esi: FakeEsi, world: World, store: Store) -> dict[str, int]:
    """Three dead letters, reason -> id: ESI does not know one, refuses one, and answers one with a wrong type."""
    corporation = next(iter(world.corporations))
    esi.faults.add(f"/corporations/{corporation}", exact=True, json={**world.corporations[corporation], "name": 7})
    daemon.ok("enqueue", "alliance", "99999999")
    daemon.ok("enqueue", "corporation", str(corporation))
    daemon.ok("enqueue", "killmail", f"12345:{HASH}")
    daemon.start("--actors", "alliance,corporation,killmail", "--no-scheduler")
    wait_until(lambda: len(dead_letters.find(store, Filter())) == 3, 20, lambda: f"dead letters: {daemon.log}")
    assert daemon.stop() == 0
    return {"not_found": 99_999_999, "bad_field": corporation, "wrong_pair": 12345}


@on_sqlite
def test_dead_letters_are_listed_shown_and_dropped_by_filters(daemon: Daemon, dead: dict[str, int]) -> None:
    # Every letter says what it was and why it is dead
    assert {letter["reason"]: letter["entity_id"] for letter in letters(daemon)} == dead
    head, *rows = daemon.ok("dead", "list").splitlines()
    assert head.split() == ["number", "last", "entity", "id", "reason", "attempts", "count", "asked", "again", "message"]
    assert len(rows) == 3
    # Filters leave the others out, alone and together
    for filters, reasons in (
        (["--entity", "killmail"], {"wrong_pair"}),
        (["--reason", "not_found"], {"not_found"}),
        (["--since", "1h"], set(dead)),
        (["--since", "2099-01-01"], set()),
        (["--entity", "killmail", "--reason", "not_found"], set()),
    ):
        assert {letter["reason"] for letter in letters(daemon, *filters)} == reasons, filters
    # A filter that passes over all of them says what there is
    assert daemon.ok("dead", "list", "--reason", "nope").splitlines() == [
        "no such dead letters; there are:",
        "number  entity       reason",
        "1       alliance     not_found",
        "1       corporation  bad_field",
        "1       killmail     wrong_pair",
    ]
    (letter,) = letters(daemon, "--reason", "bad_field")
    shown = daemon.ok("dead", "show", str(letter["id"]))
    assert f"dead letter {letter['id']}" in shown
    assert "field 'name' has the value 7" in shown

    # A dropped one is gone, and dropping it again drops nothing, nor does one of two that is not there
    (other,) = letters(daemon, "--reason", "not_found")
    assert daemon.ok("dead", "drop", str(letter["id"])) == "1 dropped\n"
    gone = daemon.run("dead", "drop", str(letter["id"]))
    assert (gone.code, gone.out, gone.err) == (2, "", "esid: no such dead letter; `esid dead list` lists them\n")
    for verb in ("drop", "retry", "show"):
        gone = daemon.run("dead", verb, str(other["id"]), str(letter["id"]))
        assert (gone.code, gone.out) == (2, "")
        assert gone.err == f"esid: no such dead letter: {letter['id']}; `esid dead list` lists them\n"
    # What is more than was named is asked, and where nobody can answer nothing happens
    for which in ("--all", "--reason=not_found"):
        asked = daemon.run("dead", "drop", which)
        assert (asked.code, asked.out) == (2, "")
        assert "dead letter" in asked.err
        assert "--yes" in asked.err
    assert len(letters(daemon)) == 2
    assert json.loads(daemon.ok("dead", "drop", "--all", "--yes", "--json")) == {"count": 2}
    assert daemon.ok("dead", "drop", "--all") == "0 dropped\n"
    assert daemon.ok("dead", "list") == daemon.ok("dead") == "no dead letters\n"


@on_main_stacks
@pytest.mark.quick_on(STACKS[1])
def test_a_retry_of_dead_letters_has_one_effect_however_often_it_is_asked(
    daemon: Daemon, esi: FakeEsi, store: Store, dead: dict[str, int]
) -> None:
    # Given that one of the causes is gone
    esi.faults.clear()
    esi.clear_log()

    # When it is retried twice
    assert daemon.ok("dead", "retry", "--reason", "bad_field") == "1 put back into the queue\n"
    assert daemon.ok("dead", "retry", "--reason", "bad_field") == "0 put back into the queue\n"
    assert messages(daemon) == {"corporation": 1}
    daemon.start("--actors", "corporation", "--no-scheduler")
    wait_until(lambda: not ledger.is_open(store, ["corporation"]), 20, lambda: daemon.log)
    assert daemon.stop() == 0

    # Then it was asked once and is a row, and the others are as dead as before
    assert [request.path for request in esi.log] == [f"/corporations/{dead['bad_field']}"]
    assert json.loads(daemon.ok("show", "corporation", str(dead["bad_field"]), "--json"))["rows"]["corporations"]
    assert {letter["reason"] for letter in letters(daemon)} == {"not_found", "wrong_pair"}


@on_sqlite
def test_a_retried_letter_whose_cause_is_there_stays_one_letter(daemon: Daemon, store: Store, dead: dict[str, int]) -> None:
    (before,) = letters(daemon, "--entity", "killmail")

    daemon.ok("dead", "retry", str(before["id"]))
    daemon.start("--actors", "killmail", "--no-scheduler")
    wait_until(lambda: not ledger.is_open(store, ["killmail"]), 20, lambda: daemon.log)
    assert daemon.stop() == 0

    (after,) = letters(daemon, "--entity", "killmail")
    assert (after["id"], after["first_at"], after["reason"]) == (before["id"], before["first_at"], "wrong_pair")
    assert after["last_at"] > before["last_at"]


# -- show, config, version, migrate, help


@on_sqlite
def test_show_tells_everything_about_one_id(daemon: Daemon, world: World, store: Store) -> None:
    # Given an alliance and a killmail that are known, and one that nobody has asked for
    alliance, body = next(iter(world.alliances.items()))
    world.killmails[1, HASH] = {
        "killmail_id": 1,
        "killmail_time": "2007-12-05T13:37:00Z",
        "solar_system_id": 30000142,
        "attackers": [{"damage_done": 0, "final_blow": True, "security_status": 0.0}],
        "victim": {"ship_type_id": 670, "damage_taken": 0},
    }
    daemon.ok("enqueue", "alliance", str(alliance))
    daemon.ok("enqueue", "killmail", f"1:{HASH}")
    work_off(daemon, store, "alliance", "killmail")

    shown = json.loads(daemon.ok("show", "alliance", str(alliance), "--json"))
    assert shown["rows"]["alliances"][0]["name"] == body["name"]
    assert shown["job"]["status"] == "completed"
    assert body["name"] in daemon.ok("show", "alliance", str(alliance))
    shown = json.loads(daemon.ok("show", "killmail", f"1:{HASH}", "--json"))
    assert {table: len(rows) for table, rows in shown["rows"].items()} == {
        "killmails": 1,
        "attackers": 1,
        "killmail_items": 0,
    }

    unknown = daemon.run("show", "alliance", "99999999")
    assert unknown.code == 1
    assert unknown.out == "alliance 99999999 is not known; ask for it with `esid enqueue alliance 99999999`\n"
    unknown = daemon.run("show", "alliance", "99999999", "--json")
    assert (unknown.code, json.loads(unknown.out)) == (1, {"rows": {"alliances": []}, "job": None})


def test_the_hint_for_an_unknown_killmail_can_be_typed(esid: Daemon) -> None:
    ran = esid.set_up().run("show", "killmail", "12345")

    assert (ran.code, ran.err) == (1, "")
    assert ran.out == "killmail 12345 is not known; ask for it with `esid enqueue killmail 12345:HASH`\n"


@pytest.mark.parametrize("verb", ["show", "retry", "drop"])
def test_a_number_of_no_dead_letter_is_said(esid: Daemon, verb: str) -> None:
    ran = esid.set_up().run("dead", verb, "77")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "esid: no such dead letter; `esid dead list` lists them\n"


def test_config_shows_each_value_and_where_it_came_from(esid: Daemon) -> None:
    # Given settings in the environment and in `.env`, one in both, one empty, and a password
    (esid.directory / ".env").write_text(
        "# ours\n\nESID_THREADS=4\nESID_PROCESSES='2'\r\nexport DB_HOST=db.example\nDB_PASSWORD=s3cret\nESID_EGRESS=\n",
        encoding="utf-8",
    )
    (esid.directory / ".env").chmod(0o600)
    esid.settings |= {"ESID_THREADS": "8", "DB_HOST": ""}

    shown = json.loads(esid.ok("config", "--json"))

    assert {name: tuple(one.values()) for name, one in shown.items() if name in CONFIGURED} == CONFIGURED
    table = {line.split()[0]: line for line in esid.ok("config").splitlines()}
    assert "environment" in table["ESID_THREADS"]
    assert ".env line 4" in table["ESID_PROCESSES"]
    assert {"setting", *shown} == table.keys()


def test_config_in_a_narrow_terminal_keeps_every_value_whole(esid: Daemon) -> None:
    host = f"{'a' * 70}.example"
    folder = f"/data/{'b' * 100}"
    esid.settings |= {"DB_HOST": host, "ESID_DATA_DIR": folder}
    with Terminal([sys.executable, "-m", "esid", "config"], esid.environment, esid.directory) as terminal:
        assert terminal.wait() == 0
    lines = terminal.seen.splitlines()
    assert lines[0].split() == ["setting", "from", "value"]
    assert max(map(len, lines)) <= 80
    # What goes on in the next lines stands below its beginning
    at, begin = next(place for place, line in enumerate(lines) if line.startswith("DB_HOST ")), lines[0].index("value")
    more = itertools.takewhile(lambda line: line.startswith(" "), lines[at + 1 :])
    assert "".join(line[begin:] for line in (lines[at], *more)) == host
    assert folder in "".join(line[begin:] for line in lines)
    # Where nobody looks at columns, lines are as long as they are
    assert any(host in line for line in esid.ok("config").splitlines())


CONFIGURED = {
    "ESID_THREADS": ("8", "environment"),
    "ESID_PROCESSES": ("2", ".env line 4"),
    "DB_HOST": ("db.example", ".env line 5"),
    "DB_PASSWORD": ("***", ".env line 6"),
    "ESID_EGRESS": ("default", "default"),
    "ESI_MAX_RPS": ("50", "default"),
}


def test_migrate_sets_an_empty_database_up_and_then_has_nothing_to_do(esid: Daemon, database_url: str) -> None:
    esid.settings["DATABASE_URL"] = database_url

    assert esid.ok("migrate").startswith("applied 0001_")
    assert esid.ok("migrate") == "the schema is up to date\n"


def test_two_migrates_at_once_both_succeed_and_apply_each_migration_once(esid: Daemon, database_url: str) -> None:
    esid.settings["DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "esid", "migrate"]
    both = [
        subprocess.Popen(command, env=esid.environment, cwd=esid.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]

    ends = [(*process.communicate(timeout=30), process.returncode) for process in both]

    assert [(code, err) for _, err, code in ends] == [(0, b""), (0, b"")]
    applied = [line for out, _, _ in ends for line in out.decode().splitlines() if line.startswith("applied ")]
    assert sorted(applied) == sorted(set(applied))
    assert applied


@pytest.mark.parametrize("typed", ["version", "--version", "-V"])
def test_version_is_the_version(esid: Daemon, typed: str) -> None:
    assert esid.ok(typed) == f"esid {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example_of_it(esid: Daemon, command: str) -> None:
    assert f"example: esid {command}" in esid.ok(command, "--help")


def test_help_lists_every_command(esid: Daemon) -> None:
    lines = [line.split() for line in esid.ok("--help").splitlines()]

    assert {words[0] for words in lines if len(words) > 1 and words[0] in COMMANDS} == set(COMMANDS)
    assert not list(esid.directory.iterdir())


def test_help_may_be_asked_for_as_a_command(esid: Daemon) -> None:
    assert esid.ok("help") == esid.ok("--help")
    assert esid.ok("help", "dead") == esid.ok("help", "dead", "list") == esid.ok("dead", "--help")


def test_no_command_at_all_is_helped_and_is_not_done(esid: Daemon) -> None:
    for typed in ((), ("--json",)):
        ran = esid.run(*typed)
        assert (ran.code, ran.out, ran.err) == (2, "", esid.ok("--help"))
    assert not list(esid.directory.iterdir())


# -- words and links


def test_each_entity_has_the_names_that_people_give_it(esid: Daemon) -> None:
    for word, name in {
        "alliances": "alliance",
        "Corp": "corporation",
        "chars": "character",
        "CHARACTER": "character",
    }.items():
        assert esid.ok("enqueue", word, "99000006").startswith(f"{name}: ")
    assert esid.ok("enqueue", "kms", f"7:{HASH}") == "killmail: 1 queued\n"
    assert json.loads(esid.ok("show", "corporations", "99000006", "--json"))["job"]["status"] == "pending"
    assert esid.ok("sync", "corporation").startswith("corporations: ")
    assert esid.ok("sync", "alli").startswith("alliances: ")
    purged = esid.ok("purge", "killmails", "kill", "--yes")
    assert purged == "killmail: 1 message deleted, 1 job waits for the next scheduled sync\n"
    assert esid.ok("dead", "list", "--entity", "corps") == "no dead letters\n"


def test_several_syncs_are_asked_for_at_once(esid: Daemon) -> None:
    esid.set_up()
    started = json.loads(esid.ok("sync", "alliances", "chars", "--json"))
    assert list(started["queued"]) == ["alliance", "character"]


def test_the_dead_of_alliances_are_those_of_their_list_too(esid: Daemon, database_url: str) -> None:
    esid.settings["DATABASE_URL"] = database_url
    esid.ok("migrate")
    store = Store(database_url)
    failure, now = Failure("not_found", "gone"), dt.datetime.now(dt.UTC)
    for entity in ("alliance", "alliances", "corporation"):
        store.run(lambda entity=entity: dead_letters.add(store, entity, 1, failure, 1, now))
    store.close()

    assert {one["entity_type"] for one in letters(esid, "--entity", "alliances")} == {"alliance", "alliances"}
    assert {one["entity_type"] for one in letters(esid, "--entity", "alliance")} == {"alliance"}


@pytest.mark.parametrize(
    ("entity", "link"),
    [
        ("character", "https://zkillboard.com/character/123/"),
        ("character", "zkillboard.com/character/123/losses/page/2/"),
        ("character", "https://evewho.com/character/123"),
        ("character", "https://esi.evetech.net/latest/characters/123/?datasource=tranquility"),
        ("corporation", "https://zkillboard.com/corporation/123/"),
        ("corporation", "https://www.evewho.com/corporation/123"),
        ("alliance", "https://esi.evetech.net/alliances/123"),
        ("killmail", "https://zkillboard.com/kill/123/"),
        ("killmail", f"https://esi.evetech.net/latest/killmails/123/{HASH}/"),
    ],
)
def test_a_link_stands_for_its_id_wherever_an_id_is_taken(esid: Daemon, entity: str, link: str) -> None:
    esid.ok("enqueue", entity, f"123:{HASH}" if entity == "killmail" else "123")

    assert json.loads(esid.ok("show", entity, link, "--json"))["job"]["status"] == "pending"
    assert esid.ok("enqueue", entity, link) == f"{entity}: 0 queued, 1 already pending\n"


def test_json_may_stand_anywhere(esid: Daemon) -> None:
    for typed in ("--json enqueue character 5", "enqueue --json character 5", "enqueue character --json 5"):
        assert set(json.loads(esid.ok(*typed.split()))) == {"queued", "pending", "fresh"}
    for typed in (
        "--json dead",
        "dead --json",
        "dead --json list",
        "dead list --json",
        "dead --entity alliance --json list",
    ):
        assert json.loads(esid.ok(*typed.split())) == []
    # Options before words of which there may be none
    assert esid.run("dead", "--json", "show", "77").err == "esid: no such dead letter; `esid dead list` lists them\n"
    assert esid.ok("purge", "--yes", "alliance").startswith("alliance: 0 messages")


# -- standard input


def test_standard_input_is_taken_as_people_have_it(esid: Daemon) -> None:
    # Given a file of Windows with a mark, blanks, commas, semicolons, comments, links and one id twice
    text = (
        "\ufeff# our pilots\r\n95000001, 95000002;95000003\t95000001\r\n\r\n"
        "  # nobody\n95000004 # the director\nhttps://zkillboard.com/character/95000005/#top\n"
    )
    ran = esid.run("enqueue", "character", "-", stdin=text)
    assert (ran.code, ran.out) == (0, "character: 5 queued\n")
    assert ran.err.splitlines()[0] == "esid: 6 ids taken from standard input, 5 different"

    # And one of PowerShell, and one of one id
    done = subprocess.run(
        [sys.executable, "-m", "esid", "enqueue", "character", "95000008,95000009", "-"],
        env=esid.environment, cwd=esid.directory, input="95000006\r\n95000007\r\n".encode("utf-16"),
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b"character: 4 queued\n"
    assert "esid: 1 id taken from standard input\n" in esid.run("enqueue", "corp", "-", stdin="98000001").err


def test_who_types_ids_is_told_how_to_end(esid: Daemon) -> None:
    esid.set_up()
    with Terminal([sys.executable, "-m", "esid", "enqueue", "corp", "-"], esid.environment, esid.directory) as terminal:
        wait_until(lambda: "Ctrl-D" in terminal.read(), 20, lambda: terminal.seen)
        terminal.press("98000001, 98000002\n\x04")
        assert terminal.wait() == 0
    assert "corporation: 2 queued" in terminal.seen


# -- status


def fill(store: Store, count: int) -> None:
    """A ledger of so many characters that are up to date."""
    now = dt.datetime.now(dt.UTC)
    stamp, expires = utc_text(now), utc_text(now + dt.timedelta(days=1))
    columns = ("entity_type", "entity_id", "status", "retry_count", "created_at", "updated_at", "checked_at", "expires_at")
    rows = [("character", 90_000_000 + key, "completed", 0, stamp, stamp, stamp, expires) for key in range(count)]
    store.run(lambda: store.insert("sync_jobs", columns, rows))


def takes_less_longer(than_s: float, daemon: Daemon, *arguments: str) -> bool:
    """Whether a command takes at most so much longer than on an empty database.

    The best of each counts, in turns, of up to fifteen: the machine may be busy with other tests, and not all of the time.
    """

    def once(**changes: str) -> float:
        started = time.monotonic()
        daemon.ok(*arguments, **changes)
        return time.monotonic() - started

    daemon.set_up(DATABASE_URL=f"sqlite:///{daemon.directory / 'empty.db'}")
    full_s, empty_s = list[float](), list[float]()
    for _ in range(15):
        full_s.append(once())
        empty_s.append(once(DATABASE_URL=f"sqlite:///{daemon.directory / 'empty.db'}"))
        if len(full_s) >= 3 and min(full_s) - min(empty_s) < than_s:
            return True
    return False


@on_main_stacks
def test_status_takes_less_than_a_second_with_100_000_ids_and_knows_the_daemon(daemon: Daemon, store: Store) -> None:
    fill(store, 100_000)
    daemon.ok("enqueue", "corporation", *numbers(98_000_000, 25))

    # With no daemon
    text = daemon.ok("status")
    assert "not running" in text
    ledger_line = next(line for line in text.splitlines() if line.startswith("  character "))
    assert ledger_line.split()[1:5] == ["0", "0", "100,000", "0"]
    state = json.loads(daemon.ok("status", "--json"))
    assert (state["daemon"], state["version"], state["queues"]["reachable"]) == (None, __version__, True)
    assert state["ledger"]["character"] == {"pending": 0, "processing": 0, "completed": 100_000, "failed": 0}
    assert messages(daemon) == {"corporation": 2}

    # And with one that has nothing to do with it
    daemon.start("--actors", "alliance", "--no-scheduler")
    assert f"running, pid {daemon.process.pid} since 20" in daemon.ok("status")
    assert takes_less_longer(1.0, daemon, "status")
    assert daemon.stop() == 0
