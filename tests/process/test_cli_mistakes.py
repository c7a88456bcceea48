"""What a new user types wrong: one line with cause and cure, the documented exit code, nothing left behind, no secret."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi
from tests.tools.daemon import Daemon, Ran
from tests.tools.ports import free_ports
from tests.tools.servers import Postgres, PrivatePostgres, Rabbitmq
from tests.tools.stacks import Stack
from tests.tools.waiting import wait_until

USAGE, DATA, NO_DATABASE, UNAVAILABLE, OURS, BUSY, NOT_PERMITTED, SETTINGS = 2, 65, 66, 69, 70, 75, 77, 78
#: A password that stands nowhere else.
PLANTED = "pl4nted-Pa55"
#: `esid run` wants to know whom to ask; nobody listens there.
NO_ESI = {"ESI_BASE_URL": "http://127.0.0.1:1"}
ENQUEUE = ("enqueue", "character", "95000001")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home directory, which is the working directory too."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def esid(home: Path) -> Daemon:
    """`esid` as it is after the installation: not one setting."""
    return Daemon({}, directory=home, is_set_up=True)


Attempt = Callable[..., Ran]


@pytest.fixture
def attempt(home: Path) -> Attempt:
    """One command that needs nothing but itself."""

    def run(*arguments: str, **settings: str) -> Ran:
        return Daemon({**NO_ESI, **settings}, directory=home, is_set_up=True).run(*arguments)

    return run


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[str]:
    """The name of an empty PostgreSQL database."""
    name = postgres.create_database()
    yield name
    postgres.drop_database(name)


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """One line on standard error with all of the words, and that exit code."""
    lines = ran.err.splitlines()
    assert len(lines) == 1, ran
    assert lines[0].startswith("esid: "), ran
    assert [word for word in words if word not in lines[0]] == [], ran
    assert ran.code == code, ran
    assert ran.out == "", ran


def assert_untouched(home: Path, *but: str) -> None:
    """Nothing has been made in the home directory."""
    assert {str(path.relative_to(home)) for path in home.rglob("*")} - set(but) == set()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file with that text and mode."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


# -- what is typed after `esid`


TYPED: list[tuple[str, list[str]]] = [
    ("stats", ["'stats'", "did you mean status?"]),
    ("--jsn", ["--jsn", "did you mean --json?"]),
    ("--versoin", ["--versoin", "did you mean --version?"]),
    ("enqeue character 1", ["did you mean enqueue?"]),
    ("version --verbose", ["--verbose"]),
    ("run --procesess 2", ["--procesess", "did you mean --processes?"]),
    ("status --jsn", ["--jsn", "did you mean --json?"]),
    ("status --watc", ["--watc", "did you mean --watch?"]),
    ("run --proc 2", ["--proc", "did you mean --processes?"]),
    ("run --processes 0", ["--processes '0'", "1 to 64"]),
    ("run --processes many", ["--processes 'many'", "1 to 64"]),
    ("run --threads 0", ["--threads '0'", "1 to 256"]),
    ("run --actors alliance,pilot", ["--actors", "alliance, corporation, character, killmail"]),
    ("run --actors charakters", ["--actors", "did you mean character?"]),
    ("run --json", ["`esid run` prints no JSON"]),
    ("--json migrate", ["`esid migrate` prints no JSON"]),
    ("help stats", ["did you mean status?"]),
    ("enqueue charakters 1", ["'charakters'", "did you mean character?"]),
    ("enqueue character 1,,2", ["''", "whole number"]),
    (
        "enqueue corporation https://zkillboard.com/character/1/",
        ["a link to the character 1, and corporations are asked for"],
    ),
    ("enqueue character https://zkillboard.com/system/1/", ["is not an id", "https://zkillboard.com/character/ID/"]),
    ("enqueue character https://evil.com/character/1/", ["is not an id"]),
    ("show alliance https://zkillboard.com/kill/1/", ["a link to the killmail 1, and alliances are asked for"]),
    ("enqueue character", ["ID"]),
    ("enqueue character -", ["no ids were given"]),
    ("enqueue killmail 12345", ["'12345'", "ID:HASH"]),
    ("enqueue killmail 12345:", ["ID:HASH"]),
    ("enqueue killmail 12345:abcdef", ["'12345:abcdef'", "40 hexadecimal digits"]),
    (f"enqueue killmail 12345:{'x' * 40}", ["40 hexadecimal digits"]),
    (f"enqueue killmail x:{'a' * 40}", ["'x'", "whole number"]),
    ("sync charakter", ["'charakter'", "did you mean characters?"]),
    ("sync alliances charakters", ["'charakters'", "did you mean characters?"]),
    ("sync killmails", ["`esid import killmails`", "`esid heal`"]),
    ("show alliance abc", ["'abc'", "whole number"]),
    ("dead retry", ["--all"]),
    ("dead drop", ["--all"]),
    ("dead rety 1", ["did you mean retry?"]),
    ("dead 77", ["`esid dead show 77`"]),
    ("dead show first", ["'first'", "no number of a dead letter", "`esid dead list`"]),
    ("dead list --entity pilot", ["'pilot'"]),
    ("dead list --since yesterday", ["'yesterday'", "2d"]),
    ("dead list --since 2026-13-45", ["'2026-13-45'"]),
    ("dead list --since 999999d", ["'999999d'"]),
    ("dead list --since 0001-01-01T00:00+05:00", ["'0001-01-01T00:00+05:00'", "2d"]),
    ("import killmails --from 9999-12-31", ["'9999-12-31'", "no day of EVE"]),
    ("import killmails --source esi --from 1999-12-31", ["'1999-12-31'", "no day of EVE"]),
    ("import killmails --from 2099-12-31", ["'2099-12-31'", "has not ended yet"]),
    ("import killmails --from 2007-12-31 --to 2099-01-01", ["--to '2099-01-01'", "has not ended yet"]),
    ("import killmails 2026-11-20", ["--from DAY", "--dir PATH"]),
    ("import killmails --from=", ["--from ''", "is not a day"]),
    ("heal --since gestern", ["'gestern'", "2d"]),
    ("heal --since 2099-01-01", ["'2099-01-01'", "has not ended yet"]),
    ("heal --since=", ["--since ''", "2d"]),
    ("purge charcter --yes", ["'charcter'", "did you mean character?"]),
    ("purge", ["--yes"]),
]
NO_IDS = ["abc", "-5", "1e9", "0", "1.5", "٣", "../", "1; DROP TABLE x", str(2**63), "", "0x10", "9" * 5000]


@pytest.mark.parametrize(("typed", "words"), TYPED)
def test_what_cannot_be_meant_is_one_line_that_says_so(attempt: Attempt, home: Path, typed: str, words: list[str]) -> None:
    ran = attempt(*typed.split())

    assert_refused(ran, USAGE, *words)
    assert_untouched(home)


@pytest.mark.parametrize("typed", NO_IDS)
def test_what_is_no_id_is_refused_before_anything_is_touched(attempt: Attempt, home: Path, typed: str) -> None:
    ran = attempt("enqueue", "character", typed)

    assert_refused(ran, USAGE, "is not an id", "whole number")
    assert_untouched(home)


@pytest.mark.parametrize("last", ["x", "-1", "95000001:"])
def test_of_a_list_whose_last_id_is_wrong_nothing_is_queued(esid: Daemon, home: Path, last: str) -> None:
    good = [str(95_000_000 + place) for place in range(2000)]

    assert_refused(esid.run("enqueue", "character", *good, last), USAGE, repr(last))
    where = "standard input, line 2,001: "
    assert_refused(esid.run("enqueue", "character", "-", stdin="\n".join([*good, last])), USAGE, repr(last), where)
    assert_untouched(home)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("character_id,name\n95000001,Bob\n", "cut -d, -f1 FILE | tail -n +2"),
        ('"Name";"ID"\n"Bob";"95000001"\n', "cut -d';' -f2 FILE | tail -n +2 | tr -d '\"'"),
        ("95000001\tBob\n", "cut -f1 FILE"),
        ("characterID\n95000001\n", "tail -n +2 FILE"),
    ],
)
def test_a_table_on_standard_input_is_told_how_its_ids_are_taken_out(home: Path, esid: Daemon, text: str, cure: str) -> None:
    command = "esid enqueue character -"
    assert_refused(esid.run(*command.split()[1:], stdin=text), USAGE, "standard input, line 1: ", f": {cure} | {command}")
    # What it says is right
    write(home / "FILE", text)
    ran = subprocess.run(cure, shell=True, cwd=home, capture_output=True, check=True)
    assert ran.stdout == b"95000001\n"


@pytest.mark.parametrize("text", ["Bob, Alice\n", "Bob\n", "1 2 nobody\n"])
def test_what_is_no_table_gets_no_advice_on_tables(esid: Daemon, text: str) -> None:
    ran = esid.run("enqueue", "character", "-", stdin=text)
    assert_refused(ran, USAGE, "standard input, line 1: ")
    assert "table" not in ran.err


def test_bytes_that_are_no_text_are_no_ids(esid: Daemon, home: Path) -> None:
    # Given a locale like de_DE.UTF-8, in which Python reads standard input strictly
    environment = {**esid.environment, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "esid", "enqueue", "character", "-"]
    done = subprocess.run(
        command, env=environment, cwd=home, input=b"95000001\n\xff\xfe\n", capture_output=True, check=False
    )

    assert_refused(Ran(done.returncode, done.stdout.decode(), done.stderr.decode()), USAGE)
    assert_untouched(home)


# -- standard streams


@pytest.mark.parametrize("typed", ["config", "--help", "schedule", "purge charcter"])
def test_who_reads_no_further_is_no_error(esid: Daemon, typed: str) -> None:
    # Given a pipe whose reader has gone, and a buffered standard output as it is by default
    esid.set_up()
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "esid", *typed.split()]
    done = subprocess.run(
        command, env=esid.environment, cwd=esid.directory, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    wanted = (USAGE, 1) if "purge" in typed else (0, 0)
    assert (done.returncode, len(done.stderr.splitlines())) == wanted, done.stderr


def test_an_error_is_told_also_where_who_reads_has_gone(esid: Daemon) -> None:
    # Given a command that has something to print, and fails after that
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys; from esid.cli import main; main._attempt = lambda _: print(1) or (69, 'it is away'); "
        "sys.exit(main.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=esid.environment,
        cwd=esid.directory,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (UNAVAILABLE, b"esid: it is away\n")


def test_who_reads_neither_output_nor_errors_has_the_exit_code(esid: Daemon) -> None:
    # Given `esid … 2>&1 | reader`, and a reader that has gone
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "esid", "purge", "charcter"]
    done = subprocess.run(command, env=esid.environment, cwd=esid.directory, stdout=writer, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == USAGE


def test_a_standard_output_that_is_full_is_one_line(esid: Daemon) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "esid", "config"]
        done = subprocess.run(
            command, env=esid.environment, cwd=esid.directory, stdout=full, stderr=subprocess.PIPE, check=False
        )
    words = b"esid: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (NOT_PERMITTED, words)


@pytest.mark.parametrize(("typed", "words"), [("enqueue character -", "closed"), ("purge", "--yes")])
def test_a_closed_standard_input_is_one_line(esid: Daemon, typed: str, words: str) -> None:
    command = f"exec {sys.executable} -m esid {typed} <&-"
    done = subprocess.run(["sh", "-c", command], env=esid.environment, cwd=esid.directory, capture_output=True, check=False)
    assert_refused(Ran(done.returncode, done.stdout.decode(), done.stderr.decode()), USAGE, words)


# -- settings


def test_without_a_contact_the_real_esi_is_not_asked(esid: Daemon, home: Path) -> None:
    assert_refused(esid.run("run"), SETTINGS, "ESI_CONTACT", "ESI_CONTACT=you@your.domain")

    # No request leaves without the budget's file, and not even its directory is there
    assert_untouched(home)


WRONG: list[tuple[str, str, list[str]]] = [
    ("DATABASE_URL", "mysql://root@127.0.0.1/esid", ["postgresql://", "sqlite://"]),
    ("DATABASE_URL", "127.0.0.1:5432/esid", ["postgresql://"]),
    ("DATABASE_URL", "postgresql://esid@127.0.0.1:port/esid", ["postgresql://"]),
    ("DATABASE_URL", "postgresql://esid@127.0.0.1:5432", ["names no database"]),
    ("DATABASE_URL", "sqlite://", ["sqlite://"]),
    ("DATABASE_URL", "sqlite://esid.db", ["sqlite:///"]),
    ("DATABASE_URL", "sqlite:/esid.db", ["sqlite:///"]),
    ("RABBITMQ_URL", "http://127.0.0.1:15672", ["amqp://"]),
    ("ESI_BASE_URL", "http://169.254.169.254", ["ESID_ALLOW_INSECURE_BASE_URL=1"]),
    ("ESI_BASE_URL", "file:///etc/passwd", ["https://"]),
    ("ESI_BASE_URL", "https://esi.evetech.net/latest", ["scheme and host alone"]),
    ("ESI_CONTACT", "me", ["mail address or a URL"]),
    ("ESI_MAX_RPS", "fast", ["'fast'", "number"]),
    ("WORKER_TYPES", "CHARAKTERS", ["did you mean character?"]),
    ("ESID_THREADS", "0", ["1 to 256"]),
    ("ESID_HTTP_LISTEN", "8580", ["127.0.0.1:8580"]),
    ("ESID_SCHEDULE_ALLIANCES", "hourly", ["'hourly'", "10m"]),
    ("ESID_SCHEDULE_ALLIANCES", "61 * * * *", ["crontab"]),
    ("ESID_THREDS", "4", ["did you mean ESID_THREADS?"]),
    ("ESID_0123456789", "4", ["`esid config`"]),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_wrong_setting_is_named_with_its_cure(
    attempt: Attempt, home: Path, name: str, value: str, words: list[str]
) -> None:
    ran = attempt(*ENQUEUE, **{name: value})

    assert_refused(ran, SETTINGS, *words)
    assert_untouched(home)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("DB_NAME=esid\nESID_THREADS=lots\n", ["ESID_THREADS", ".env line 2", "1 to 256"]),
        ("DB_NAME=esid\nESID_THREDS=1\n", ["ESID_THREDS", ".env line 2", "did you mean ESID_THREADS?"]),
        ("DB_NAME=esid\n'\n", [".env line 2", "NAME=value"]),
    ],
)
def test_a_mistake_in_the_env_file_is_named_with_its_line(esid: Daemon, home: Path, lines: str, words: list[str]) -> None:
    write(home / ".env", lines)

    assert_refused(esid.run("status"), SETTINGS, *words)
    assert_untouched(home, ".env")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"DB_NAME=\xff\xfe\n")])
def test_an_env_file_that_cannot_be_read_is_named(esid: Daemon, home: Path, make: Any) -> None:
    make(home / ".env")

    assert_refused(esid.run("status"), SETTINGS, ".env")
    assert_untouched(home, ".env")


@pytest.mark.parametrize(
    "line",
    [
        f"DB_PASSWORD={PLANTED}",
        f"DATABASE_URL=postgresql://esid:{PLANTED}@127.0.0.1:1/esid",
        f"RABBITMQ_URL='amqp://esid:{PLANTED}@127.0.0.1:1/%2F'",
    ],
)
def test_an_env_file_with_a_password_that_all_can_read_is_refused(esid: Daemon, home: Path, line: str) -> None:
    write(home / ".env", line + "\n", 0o644)

    ran = esid.run("config")

    assert_refused(ran, SETTINGS, ".env", "chmod 600")
    assert PLANTED not in ran.err


# -- servers that are not there, or do not let us in


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001"])
def test_a_postgresql_that_is_not_there_is_unavailable(esid: Daemon, command: str) -> None:
    (port,) = free_ports(1)
    for url in (f"postgresql://esid@127.0.0.1:{port}/esid", "postgresql://esid@no-such-host.invalid/esid"):
        ran = esid.run(*command.split(), DATABASE_URL=url, **NO_ESI)

        assert_refused(ran, UNAVAILABLE, url, "cannot be reached", "is DATABASE_URL or DB_* right?")


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001"])
def test_a_postgresql_that_refuses_says_what_to_check(
    esid: Daemon, postgres: Postgres, postgres_database: str, command: str
) -> None:
    for url in (
        postgres.password_url(postgres_database, password=PLANTED),
        postgres.password_url("no_such_database"),
        postgres.url(postgres_database).replace("//esid@", "//nobody@"),
    ):
        ran = esid.run(*command.split(), DATABASE_URL=url, **NO_ESI)

        assert_refused(ran, SETTINGS, "refused us", "DATABASE_URL")
        assert PLANTED not in ran.err
        assert ran.err.count("FATAL") == 1


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001"])
def test_a_rabbitmq_that_is_not_there_is_unavailable_within_10_s(esid: Daemon, home: Path, command: str) -> None:
    (port,) = free_ports(1)
    for address, cause in ((f"127.0.0.1:{port}", "Connection refused"), ("no-such-host.invalid", "not known")):
        settings = {"RABBITMQ_URL": f"amqp://guest:{PLANTED}@{address}/%2F", "ESID_DATA_DIR": str(home / address)}
        ran = esid.set_up(**settings).run(*command.split(), timeout_s=10, **settings, **NO_ESI)

        assert_refused(ran, UNAVAILABLE, "cannot reach RabbitMQ", address, cause, "is it running?")
        assert PLANTED not in ran.err


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001"])
def test_a_rabbitmq_that_refuses_says_what_to_check(esid: Daemon, home: Path, rabbitmq: Rabbitmq, command: str) -> None:
    for url in (rabbitmq.url.replace(":guest@", f":{PLANTED}@"), rabbitmq.url.replace("%2F", "nowhere")):
        directory = str(home / url[-3:])
        esid.set_up(ESID_DATA_DIR=directory)
        ran = esid.run(*command.split(), timeout_s=10, RABBITMQ_URL=url, ESID_DATA_DIR=directory, **NO_ESI)

        assert_refused(ran, SETTINGS, "refused us", "RABBITMQ_URL")
        assert PLANTED not in ran.err


def test_a_postgresql_that_is_something_else_is_unavailable(esid: Daemon, rabbitmq: Rabbitmq) -> None:
    url = f"postgresql://esid@127.0.0.1:{rabbitmq.port}/esid"

    assert_refused(esid.run("status", DATABASE_URL=url), UNAVAILABLE, url)


def test_a_rabbitmq_that_says_nothing_is_unavailable_within_10_s(esid: Daemon) -> None:
    # Given a port that accepts and never answers, as a web server or a broker that hangs does
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        ran = esid.set_up().run(
            "enqueue", "character", "95000001", timeout_s=10, RABBITMQ_URL=f"amqp://guest:guest@{address}/%2F"
        )

    assert_refused(ran, UNAVAILABLE, address)


# -- addresses, files and directories


@pytest.mark.parametrize("query", ["foo=1", "heartbeat=abc", "connection_attempts=0", "ssl_options=x"])
def test_a_rabbitmq_url_that_cannot_be_read_is_refused(esid: Daemon, query: str) -> None:
    url = f"amqp://guest:{PLANTED}@127.0.0.1:1/%2F?{query}"
    ran = esid.set_up().run("enqueue", "character", "95000001", RABBITMQ_URL=url)

    assert_refused(ran, SETTINGS, "RABBITMQ_URL", "cannot be read")
    assert PLANTED not in ran.err


def test_a_port_in_use_is_said_at_once(esid: Daemon, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        assert_refused(esid.run("run", ESID_HTTP_LISTEN=address, **NO_ESI), UNAVAILABLE, address, "ESID_HTTP_LISTEN", "off")
    assert_untouched(home, ".local", ".local/share", ".local/share/esid", ".local/share/esid/esid.db.lock")


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_a_data_directory_that_cannot_be_made_is_not_permitted(esid: Daemon, home: Path, command: str) -> None:
    file = write(home / "file", "a regular file")
    for directory in (file, file / "data"):
        ran = esid.run(*command.split(), ESID_DATA_DIR=str(directory), **NO_ESI)

        assert_refused(ran, NOT_PERMITTED, str(directory), "ESID_DATA_DIR")
    assert_untouched(home, "file")


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_budget_that_cannot_be_opened_is_not_permitted(esid: Daemon, home: Path, command: str) -> None:
    # Given a budget that is no file of ours, as after one command as another user
    esid.set_up(ESID_DATA_DIR=str(home / "data"))
    (home / "data" / "budget-default").mkdir(parents=True)

    ran = esid.run(command, ESID_DATA_DIR=str(home / "data"), **NO_ESI)

    assert_refused(ran, NOT_PERMITTED, "budget-default", "ESID_DATA_DIR")


def test_a_directory_is_no_database_file(esid: Daemon, home: Path) -> None:
    (home / "esid.db").mkdir()

    assert_refused(esid.run("status", DATABASE_URL=f"sqlite:///{home / 'esid.db'}"), NOT_PERMITTED, "esid.db")


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001", "status", "migrate"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(esid: Daemon, home: Path, command: str) -> None:
    file = write(home / "notes.txt", "Milk, eggs, a new alliance.\n" * 200)
    before = file.read_bytes()

    ran = esid.run(*command.split(), DATABASE_URL=f"sqlite:///{file}", **NO_ESI)

    assert_refused(ran, DATA, "notes.txt", "no database")
    assert file.read_bytes() == before


def test_a_damaged_database_is_refused_and_left_as_it_is(esid: Daemon, home: Path) -> None:
    # Given a database most of whose pages hold noise
    file = home / "esid.db"
    url = f"sqlite:///{file}"
    esid.ok("migrate", DATABASE_URL=url)
    damaged = file.read_bytes()[:4096] + os.urandom(file.stat().st_size - 4096)
    file.write_bytes(damaged)

    assert_refused(esid.run("status", DATABASE_URL=url), DATA, "esid.db", "damaged")
    assert file.read_bytes() == damaged


# -- schemas


@pytest.mark.parametrize("command", ["run", "enqueue character 95000001"])
@pytest.mark.parametrize(
    ("change", "words"), [("number + 1000", ["newer"]), ("-number", ["run `esid migrate`"])], ids=["newer", "older"]
)
def test_a_schema_of_another_program_is_refused_and_left_as_it_is(
    esid: Daemon, database_url: str, store: Store, command: str, change: str, words: list[str]
) -> None:
    store.run(lambda: store.rows(f"UPDATE schema_migrations SET number = {change}"))
    before = content(store)

    ran = esid.run(*command.split(), DATABASE_URL=database_url, ESI_COMPATIBILITY_DATE="2026-01-01", **NO_ESI)

    assert_refused(ran, DATA, "schema", *words)
    assert content(store) == before


def test_migrate_does_not_touch_a_newer_schema(esid: Daemon, database_url: str, store: Store) -> None:
    store.run(lambda: store.rows("UPDATE schema_migrations SET number = number + 1000"))
    before = content(store)

    assert_refused(esid.run("migrate", DATABASE_URL=database_url), DATA, "newer")
    assert content(store) == before


def test_tables_of_somebody_else_are_refused_and_left_as_they_are(esid: Daemon, database_url: str) -> None:
    # Given a database in which another program has a table of a name that esid uses
    with closing(Store(database_url)) as store:
        store.run(lambda: store.rows("CREATE TABLE corporations (id BIGINT PRIMARY KEY, mine TEXT)"))
        store.run(lambda: store.rows("INSERT INTO corporations VALUES (1, 'precious')"))
        for command in ("migrate", "status"):
            ran = esid.run(command, DATABASE_URL=database_url)

            # Then it does not claim that waiting helps
            if command == "migrate":
                assert_refused(ran, DATA, "corporations", "belongs to another program", "a database of its own")
            else:
                assert_refused(ran, NO_DATABASE, "holds no tables of esid", "--env-file")
        assert store.database.get_tables() == ["corporations"]
        with store.connection():
            assert store.rows("SELECT mine FROM corporations") == [("precious",)]


def content(store: Store) -> list[Any]:
    """Everything that a command could have written."""
    with store.connection():
        tables = sorted(store.database.get_tables())
        return [(table, sorted(map(repr, store.rows(f"SELECT * FROM {table}")))) for table in tables]


# -- a second daemon


def test_a_second_daemon_on_one_file_names_the_first(esid: Daemon) -> None:
    esid.settings |= NO_ESI
    try:
        esid.start()
        ran = esid.run("run")

        assert_refused(ran, BUSY, f"pid {esid.process.pid} since 20")
        assert esid.stop() == 0
    finally:
        esid.end()


def test_a_second_daemon_on_one_file_is_refused_from_another_data_directory_too(esid: Daemon, home: Path) -> None:
    # Given two daemons that are told of one file, and of different directories for everything else
    esid.settings |= {**NO_ESI, "DATABASE_URL": f"sqlite:///{home / 'shared' / 'esid.db'}", "ESID_DATA_DIR": str(home / "1")}
    second = Daemon({**esid.settings, "ESID_DATA_DIR": str(home / "2")}, directory=home)
    try:
        esid.start()
        with suppress(subprocess.TimeoutExpired):
            ran = second.run("run", timeout_s=30)
            assert_refused(ran, BUSY, f"pid {esid.process.pid} since 20")
            return
        pytest.fail("the second daemon has started")
    finally:
        esid.end()


# -- secrets


PASSWORDS: dict[str, dict[str, str]] = {
    "part": {"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_PASSWORD": PLANTED},
    "awkward part": {"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_PASSWORD": f"@/:{PLANTED}%?"},
    "url": {"DATABASE_URL": f"postgresql://esid:{PLANTED}@127.0.0.1:1/esid"},
    "capital scheme": {"DATABASE_URL": f"PostgreSQL://esid:{PLANTED}@127.0.0.1:1/esid"},
    "at": {"DATABASE_URL": f"postgresql://esid:p@{PLANTED}@127.0.0.1:1/esid"},
    "slash": {"DATABASE_URL": f"postgresql://esid:4711/{PLANTED}@127.0.0.1:1/esid"},
    "hash": {"DATABASE_URL": f"postgresql://esid:a#{PLANTED}@127.0.0.1:1/esid"},
    "query": {"DATABASE_URL": f"postgresql://127.0.0.1:1/esid?user=esid&password={PLANTED}"},
    "rabbitmq": {"RABBITMQ_URL": f"amqp://guest:{PLANTED}@127.0.0.1:1/%2F"},
    "rabbitmq slash": {"RABBITMQ_URL": f"amqp://guest:1/{PLANTED}@127.0.0.1:1/%2F"},
}


@pytest.mark.parametrize("command", ["config", "status"])
@pytest.mark.parametrize("way", PASSWORDS)
def test_no_password_is_printed_whichever_way_it_is_written(attempt: Attempt, way: str, command: str) -> None:
    ran = attempt(command, **PASSWORDS[way])

    assert PLANTED not in ran.out + ran.err


def test_a_daemon_and_its_commands_never_show_a_password(
    postgres: Postgres, rabbitmq: Rabbitmq, esi: FakeEsi, tmp_path: Path
) -> None:
    # Given a daemon with passwords that are right, and a status server
    name = postgres.create_database()
    (port,) = free_ports(1)
    stack = Stack("", postgres.password_url(name), rabbitmq.url, "secrets")
    address = {"ESI_BASE_URL": esi.base_url, "ESID_HTTP_LISTEN": f"127.0.0.1:{port}", "ESID_LOG_LEVEL": "DEBUG"}
    daemon = Daemon({**stack.environment(tmp_path / "data"), **address})
    try:
        daemon.start()
        shown = [daemon.ok(*command.split()) for command in ("config", "config --json", "status", "status --json")]
        shown += [get(port, "/status"), command_lines(daemon)]

        # When its database goes away under it
        postgres.drop_database(name)
        wait_until(lambda: name in get(port, "/readyz"), 20, "an error of the database")
        wait_until(lambda: "database.away" in daemon.log, 40, lambda: daemon.log)
        refused = daemon.run("status").err
        assert "refused us" in refused
        shown += [get(port, "/readyz"), get(port, "/status"), refused]
        daemon.stop()

        # Then nothing that anybody can read holds one of the passwords
        shown.append(daemon.log)
        assert [text for text in shown if PrivatePostgres.password in text or ":guest@" in text] == []
    finally:
        daemon.end()
        postgres.drop_database(name)


def get(port: int, path: str) -> str:
    """What the status server answers, whatever its status."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            return stream.read().decode()


def command_lines(daemon: Daemon) -> str:
    """What everybody on the machine can read about the daemon's processes."""
    assert daemon.process
    pids = [daemon.process.pid, *daemon.children().values()]
    assert len(pids) >= 3
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pids)
