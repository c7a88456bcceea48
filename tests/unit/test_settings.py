"""Settings: what is in force, where it came from, and what is refused and how.

`.env` files are real files; the environment is a dictionary.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from esid import clock, settings
from esid.errors import SettingsError
from esid.settings import TABLE, Settings, reading, table

PASSWORD = "s3cr3t-Tiger"
DEFAULTS: dict[str, Any] = {
    "ESI_CONTACT": "",
    "ESI_BASE_URL": "https://esi.evetech.net",
    "ESI_COMPATIBILITY_DATE": "2026-08-18",
    "ESI_MAX_RPS": 50.0,
    "ESI_MAX_IN_FLIGHT": 64,
    "ESI_ERROR_RESERVE": 10,
    "ESI_BUCKET_RESERVE": 2,
    "DATABASE_URL": "",
    "DB_HOST": "",
    "DB_PORT": 5432,
    "DB_USER": "esid",
    "DB_PASSWORD": "",
    "DB_NAME": "esid",
    "RABBITMQ_URL": "",
    "WORKER_TYPES": "",
    "ESID_DATA_DIR": "",
    "ESID_DATA_MODE": "private",
    "ESID_EGRESS": "default",
    "ESID_PROCESSES": 1,
    "ESID_THREADS": 16,
    "ESID_PREFETCH": 2,
    "ESID_QUEUE_PREFIX": "esid",
    "ESID_HTTP_LISTEN": "127.0.0.1:8580",
    "ESID_SCHEDULE_ALLIANCES": "10m",
    "ESID_SCHEDULE_CORPORATIONS": "10m",
    "ESID_SCHEDULE_CHARACTERS": "10m",
    "ESID_SCHEDULE_KILLMAILS": "1h",
    "ESID_SCHEDULE_AFFILIATIONS": "10m",
    "ESID_SCHEDULE_AUDIT": "1h",
    "ESID_SCHEDULE_SWEEP": "1m",
    "ESID_SCHEDULE_CLEAN_UP": "1d",
    "ESID_SCHEDULE_HEAL": "1d",
    "ESID_LOG_FORMAT": "text",
    "ESID_LOG_LEVEL": "INFO",
    "ESID_FEED_URL": "https://r2z2.zkillboard.com",
    "ESID_ARCHIVE_URL": "https://data.everef.net/killmails",
    "ESID_ZKILLBOARD_URL": "https://zkillboard.com",
    "ESID_CA_FILE": "",
    "ESID_ALLOW_INSECURE_BASE_URL": False,
}
NAMES = sorted(DEFAULTS)
ENTITIES = ("alliance", "corporation", "character", "killmail")


def read(**environ: str) -> Settings:
    """The settings of this environment, without a `.env`."""
    return settings.read(environ)


def refusal(environ: Mapping[str, str], env_file: Path | None = None) -> str:
    """What a person reads when these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        settings.read(environ, env_file)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def env_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a `.env` of these bytes or this text."""

    def write(content: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "my.env"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return write


# -- the table


def test_the_settings_have_exactly_the_fields_of_the_table() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == [setting.field for setting in TABLE] + ["origins", "warnings", "env_file", "https_proxy", "no_proxy"]


def test_the_table_has_exactly_the_names_of_the_design() -> None:
    assert sorted(setting.name for setting in TABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_its_default(name: str) -> None:
    got = read()
    assert getattr(got, name.lower()) == DEFAULTS[name]
    assert type(getattr(got, name.lower())) is type(DEFAULTS[name])
    assert got.origins[name] == "default"


def test_every_setting_has_a_unit_and_a_meaning() -> None:
    assert all(setting.unit and setting.help for setting in TABLE)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().esid_threads = 3  # type: ignore[misc]


# -- where a value comes from


def test_the_environment_beats_the_file_and_the_file_beats_the_default(env_file: Callable[..., Path]) -> None:
    path = env_file("# threads\n\nESID_THREADS=8\nESID_PROCESSES=4\n")
    got = settings.read({"ESID_THREADS": "9"}, path)
    assert (got.esid_threads, got.esid_processes, got.esid_prefetch) == (9, 4, 2)
    origins = [got.origins[name] for name in ("ESID_THREADS", "ESID_PROCESSES", "ESID_PREFETCH")]
    assert origins == ["environment", f"{path} line 4", "default"]


def test_the_file_of_the_working_directory_is_read() -> None:
    Path(".env").write_text("ESID_THREADS=7\n", encoding="utf-8")
    got = settings.read({})
    assert (got.esid_threads, got.origins["ESID_THREADS"]) == (7, ".env line 1")


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESID_THREADS", "6")
    assert settings.read().esid_threads == 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", ["", "  "], ids=["empty", "blank"])
def test_an_empty_value_means_the_default(name: str, empty: str) -> None:
    got = settings.read({name: empty})
    assert getattr(got, name.lower()) == DEFAULTS[name]
    assert got.origins[name] == "default"


def test_an_empty_environment_does_not_hide_the_file(env_file: Callable[..., Path]) -> None:
    got = settings.read({"ESID_THREADS": ""}, env_file("ESID_THREADS=8\n"))
    assert got.esid_threads == 8


def test_blanks_around_a_value_do_not_count() -> None:
    assert read(ESID_THREADS=" 8 ").esid_threads == 8


def test_the_last_of_two_lines_of_one_name_counts(env_file: Callable[..., Path]) -> None:
    path = env_file("ESID_THREADS=8\nESID_THREADS=9\n")
    got = settings.read({}, path)
    assert (got.esid_threads, got.origins["ESID_THREADS"]) == (9, f"{path} line 2")


# -- names that nobody knows


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    text = refusal({"ESID_TREADS": "4"})
    assert "unknown setting ESID_TREADS in the environment" in text
    assert "did you mean ESID_THREADS?" in text


def test_an_unknown_name_that_is_near_to_none_is_refused_with_the_way_to_the_list() -> None:
    assert "`esid config` lists the known ones" in refusal({"ESID_XYZZY_42_QQQQ": "4"})


def test_an_unknown_name_in_the_file_is_refused_with_its_line(env_file: Callable[..., Path]) -> None:
    path = env_file("ESID_THREADS=4\nESID_PROCESES=2\n")
    text = refusal({}, path)
    assert str(path) in text
    assert "line 2" in text
    assert "did you mean ESID_PROCESSES?" in text


def test_an_unknown_name_of_the_esi_family_is_a_warning() -> None:
    (warning,) = read(ESI_MAX_RPSS="4").warnings
    assert "ESI_MAX_RPSS in the environment is ignored" in warning
    assert "did you mean ESI_MAX_RPS?" in warning


def test_known_names_and_those_of_others_make_no_warning() -> None:
    assert read(ESI_MAX_RPS="4", PATH="/bin", DB_SCHEMA="x", RABBITMQ_VHOST="y").warnings == ()


@pytest.mark.parametrize(("name", "end"), [("charakter", "; did you mean character?"), ("zzz", "")])
def test_the_nearest_name_is_named_only_where_one_is_near(name: str, end: str) -> None:
    assert settings.nearest(name, ENTITIES) == end


# -- values

INTEGERS = {
    "ESI_MAX_IN_FLIGHT": (1, 1000),
    "ESI_ERROR_RESERVE": (1, 99),
    "ESI_BUCKET_RESERVE": (0, 50),
    "DB_PORT": (1, 65535),
    "ESID_PROCESSES": (1, 64),
    "ESID_THREADS": (1, 256),
    "ESID_PREFETCH": (1, 16),
}
NO_INTEGER = ["1.0", "1e3", "0x10", "1_0", "+4", "-1", "4 4", "four", "True", "٤", "４", "9" * 5000, "²"]


@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_a_whole_number_is_taken_up_to_both_ends_of_its_range(name: str) -> None:
    for value in INTEGERS[name]:
        assert getattr(settings.read({name: str(value), "DB_HOST": "db"}), name.lower()) == value


@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_a_whole_number_outside_its_range_is_refused_with_the_range(name: str) -> None:
    low, high = INTEGERS[name]
    for value in (low - 1, high + 1):
        text = refusal({name: str(value)})
        assert text.startswith(f"{name} (environment): '{value}'")
        assert f"from {low} to {high}" in text


@pytest.mark.parametrize("value", NO_INTEGER)
def test_what_is_no_whole_number_is_refused(value: str) -> None:
    assert "a whole number from 1 to 256" in refusal({"ESID_THREADS": value})


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.5", 0.5), ("50", 50.0), ("10000", 10000.0)])
def test_a_number_is_read(text: str, value: float) -> None:
    assert read(ESI_MAX_RPS=text).esi_max_rps == value


@pytest.mark.parametrize("text", ["-1", "10000.1", "nan", "inf", "-inf", "fast", "1,5", "0x10", "1_0", "٤", "４"])
def test_what_is_no_number_is_refused(text: str) -> None:
    assert "a number from 0 to 10000" in refusal({"ESI_MAX_RPS": text})


def test_a_flag_is_0_or_1() -> None:
    assert read(ESID_ALLOW_INSECURE_BASE_URL="1").esid_allow_insecure_base_url is True
    assert read(ESID_ALLOW_INSECURE_BASE_URL="0").esid_allow_insecure_base_url is False


@pytest.mark.parametrize("text", ["true", "yes", "on", "2", "-1", "01"])
def test_any_other_flag_is_refused(text: str) -> None:
    assert "0 or 1" in refusal({"ESID_ALLOW_INSECURE_BASE_URL": text})


@pytest.mark.parametrize("text", ["json", "JSON", "Json"])
def test_a_choice_is_read_in_any_case(text: str) -> None:
    assert read(ESID_LOG_FORMAT=text).esid_log_format == "json"


def test_a_log_level_is_read_in_any_case() -> None:
    assert read(ESID_LOG_LEVEL="debug").esid_log_level == "DEBUG"


@pytest.mark.parametrize(("name", "choices"), [("ESID_LOG_FORMAT", "text, json"), ("ESID_LOG_LEVEL", "DEBUG, INFO")])
def test_another_choice_is_refused_with_the_list(name: str, choices: str) -> None:
    assert f"one of {choices}" in refusal({name: "loud"})


def test_a_date_is_read() -> None:
    assert read(ESI_COMPATIBILITY_DATE="2025-12-16").esi_compatibility_date == "2025-12-16"


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "18.08.2026", "today", "2026-8-18", "２０２６-08-18"])
def test_what_is_no_date_is_refused(text: str) -> None:
    assert "a date like 2026-08-18" in refusal({"ESI_COMPATIBILITY_DATE": text})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("15m", 900.0), ("6h", 21600.0), ("1d", 86400.0), ("090s", 90.0)]
)
def test_a_duration_is_in_seconds(text: str, seconds: float) -> None:
    assert settings.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "-1m", "1.5h", "10", "m", "10 m", "1w", "10M", "1m30s", "٤m", "10m\n", "1234567s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration like 30s"):
        settings.duration(text)


SCHEDULES = [name for name in DEFAULTS if name.startswith("ESID_SCHEDULE_")]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("text", ["off", "90s", "6h", "17 * * * *", "*/7 1-5 * * mon"])
def test_a_schedule_is_an_interval_or_a_crontab_or_off(name: str, text: str) -> None:
    assert getattr(settings.read({name: text}), name.lower()) == text


@pytest.mark.parametrize(
    "text",
    ["0m", "hourly", "* * * *", "61 * * * *", "* * * * * *", "a b c d e", "OFF", "0 0 * * 8", "0 0 * * 5-1",
     "0 0 * * sat-mon", "0 0 * * */0", "0 0 * * 1,", "0 0 * * monday", "0 0 * * -1", "0 0 * * ٣"],
)  # fmt: skip
def test_any_other_schedule_is_refused(text: str) -> None:
    assert "an interval like 10m, a crontab expression" in refusal({"ESID_SCHEDULE_ALLIANCES": text})


@pytest.mark.parametrize("text", ["off", "127.0.0.1:0", "0.0.0.0:65535", "[::1]:8580", "localhost:80"])
def test_an_address_to_listen_on_is_read(text: str) -> None:
    assert read(ESID_HTTP_LISTEN=text).esid_http_listen == text.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    "text",
    ["8580", ":8580", "example.com:8580", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1",
     "127.0.0.1:8_0", "127.0.0.1:٨", "256.0.0.1:80", "http://127.0.0.1:80"],
)  # fmt: skip
def test_any_other_address_is_refused(text: str) -> None:
    assert "an address like 127.0.0.1:8580, or off" in refusal({"ESID_HTTP_LISTEN": text})


@pytest.mark.parametrize("name", ["ESID_EGRESS", "ESID_QUEUE_PREFIX"])
@pytest.mark.parametrize("text", ["a", "office-2.north_A", "x" * 40])
def test_a_name_part_is_read(name: str, text: str) -> None:
    assert getattr(settings.read({name: text}), name.lower()) == text


@pytest.mark.parametrize("name", ["ESID_EGRESS", "ESID_QUEUE_PREFIX"])
@pytest.mark.parametrize("text", ["x" * 41, "a b", "a/b", "../x", "a:b", "ü", "a;b", "a\nb"])
def test_any_other_name_part_is_refused(name: str, text: str) -> None:
    assert "1 to 40 letters" in refusal({name: text})


@pytest.mark.parametrize("text", ["you@example.com", "https://example.com/me", "http://example.com"])
def test_a_contact_is_a_mail_address_or_a_url(text: str) -> None:
    assert read(ESI_CONTACT=text).esi_contact == text


@pytest.mark.parametrize(
    "text",
    ["me", "me@home", "me you@example.com", "a@b.c\nX-Evil: 1", "(a@b.cd)", "a;b@c.de", "ftp://example.com", "a@b@c.de"],
)
def test_any_other_contact_is_refused(text: str) -> None:
    assert "a mail address or a URL" in refusal({"ESI_CONTACT": text})


@pytest.mark.parametrize("text", ["имя@example.com", "you@例え.jp", "https://例え.jp/x"])
def test_a_contact_that_no_http_header_can_carry_is_refused(text: str) -> None:
    assert "a mail address or a URL" in refusal({"ESI_CONTACT": text})


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("DATABASE_URL", "postgresql://db.example.com/esid"),
        ("DATABASE_URL", "postgres://u@db:5433/esid?sslmode=require"),
        ("DATABASE_URL", "sqlite:////var/lib/esid/esid.db"),
        ("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/%2F"),
        ("RABBITMQ_URL", "amqps://mq.example.com"),
        ("ESID_FEED_URL", "http://127.0.0.1:99"),
        ("ESID_FEED_URL", "off"),
        ("ESID_ARCHIVE_URL", "https://example.com/a"),
    ],
)
def test_a_url_of_the_right_kind_is_read(name: str, good: str) -> None:
    assert getattr(settings.read({name: good}), name.lower()) == good


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("DATABASE_URL", "mysql://db/esid"),
        ("DATABASE_URL", "postgresql://"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "db.example.com"),
        ("RABBITMQ_URL", "http://localhost"),
        ("RABBITMQ_URL", "localhost:5672"),
        ("ESID_FEED_URL", "ftp://example.com"),
        ("ESID_ARCHIVE_URL", "/var/archives"),
    ],
)
def test_a_url_of_another_kind_is_refused(name: str, bad: str) -> None:
    text = refusal({name: bad})
    assert text.startswith(f"{name} (environment)")
    assert "a URL that begins with" in text


@pytest.mark.parametrize("place", ["db:99999", "db:port", "[::1", "a:1,b:x", "[::1]:0000000"])
@pytest.mark.parametrize(("name", "scheme"), [("DATABASE_URL", "postgresql"), ("RABBITMQ_URL", "amqp")])
def test_a_place_that_cannot_be_meant_is_refused(name: str, scheme: str, place: str) -> None:
    assert "a URL with a host and a port from 1 to 65535" in refusal({name: f"{scheme}://me@{place}/x"})


@pytest.mark.parametrize("password", ["a/b", "a?b", "a#b", "a@b"])
@pytest.mark.parametrize(("name", "scheme"), [("DATABASE_URL", "postgresql"), ("RABBITMQ_URL", "amqp")])
def test_a_password_that_must_be_encoded_is_refused_with_how(name: str, scheme: str, password: str) -> None:
    text = refusal({name: f"{scheme}://me:{PASSWORD}{password}@db/esid"})
    assert "percent-encoded" in text
    assert PASSWORD not in text


def test_a_database_file_without_a_name_is_refused() -> None:
    assert "is not a URL with a file" in refusal({"DATABASE_URL": "sqlite:///"})


def test_a_name_of_the_file_that_is_nearly_one_of_ours_is_said(env_file: Callable[..., Path]) -> None:
    path = env_file("DATABSE_URL=postgresql://a/b\nPATH_TO_SOMETHING=x\n")
    (warning,) = settings.read({}, path).warnings
    assert warning == f"DATABSE_URL in {path} line 1 is none of our settings; did you mean DATABASE_URL?"


def test_of_several_rabbitmq_servers_one_address_is_wanted() -> None:
    assert "one URL: of several servers" in refusal({"RABBITMQ_URL": "amqp://a/;amqp://b/"})


@pytest.mark.parametrize(
    "url",
    ["postgresql:///db", "postgresql://u:p@/db?host=/run/postgresql", "postgresql://a:1,b:2/db?options=-cgeqo%3Doff",
     "postgresql://u@%2Frun%2Fpostgresql:5433/db", "postgresql://[::1]:5433/db", "postgresql://me@db?dbname=x"],
)  # fmt: skip
def test_every_form_of_an_address_that_libpq_takes_is_taken(url: str) -> None:
    assert read(DATABASE_URL=url).database == url


# -- what to work on


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ENTITIES),
        ("ALLIANCE,CORPORATION", ("alliance", "corporation")),
        ("Killmail", ("killmail",)),
        (" character , alliance ,", ("character", "alliance")),
        ("alliance,ALLIANCE", ("alliance",)),
        ("ALLIANCES, corps,char,kms", ENTITIES),
        ("all", ENTITIES),
        ("alliance,all", ENTITIES),
        (",", ENTITIES),
    ],
)
def test_worker_types_say_what_to_work_on(text: str, names: tuple[str, ...]) -> None:
    assert read(WORKER_TYPES=text).entities == names


@pytest.mark.parametrize(
    ("text", "hint"),
    [("charakter", "did you mean character?"), ("aliances,killmail", "did you mean alliance?"), ("war", "")],
)
def test_an_unknown_worker_type_is_refused_with_the_nearest_one(text: str, hint: str) -> None:
    words = refusal({"WORKER_TYPES": text})
    assert "alliance, corporation, character, killmail" in words
    assert hint in words


# -- the file


def test_no_file_is_no_fault() -> None:
    got = read()
    assert (got.esid_threads, got.env_file) == (16, "")


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.env"
    words = f"{path} is not there; it was named by --env-file or ESID_ENV_FILE"
    assert (refusal({}, path), refusal({"ESID_ENV_FILE": str(path)})) == (words, words)


def test_the_file_that_was_named_beats_that_of_the_machine_and_that_the_one_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, named, other = tmp_path / "esid.env", tmp_path / "named.env", tmp_path / "other.env"
    monkeypatch.setattr(reading, "SYSTEM_FILE", machine)
    for number, path in enumerate((Path(".env"), machine, named, other), 1):
        path.write_text(f"ESID_THREADS={number}\n", encoding="utf-8")
    assert settings.read({"ESID_ENV_FILE": str(named)}, other).esid_threads == 4
    assert settings.read({"ESID_ENV_FILE": str(named)}).env_file == str(named)
    assert settings.read({}).esid_threads == 2
    machine.unlink()
    assert settings.read({}).env_file == ".env"


def test_with_the_file_of_the_machine_the_data_are_where_the_unit_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "esid.env"
    machine.write_text("ESID_THREADS=4\n", encoding="utf-8")
    monkeypatch.setattr(reading, "SYSTEM_FILE", machine)
    monkeypatch.setattr(table, "SYSTEM_FILE", machine)
    assert settings.read({}).data_dir == Path("/var/lib/esid")
    assert settings.read({"ESID_DATA_DIR": "/x"}).data_dir == Path("/x")


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", "SOMEBODY_ELSES\n", "ESID_THREADS=\n"])
def test_a_file_that_says_nothing_is_no_fault(env_file: Callable[..., Path], content: str) -> None:
    assert settings.read({}, env_file(content)).esid_threads == 16


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    text = refusal({}, tmp_path)
    assert f"{tmp_path} cannot be read" in text


@pytest.mark.parametrize(("line", "words"), [
    ("ESID_THREADS", "line 2: ESID_THREADS without a value; write ESID_THREADS=value"),
    ("esid_threads=4", "unknown setting esid_threads in {path} line 2: names are in capitals; write ESID_THREADS"),
    ("db_host=x", "unknown setting db_host in {path} line 2: names are in capitals; write DB_HOST"),
    ("ESID_ENV_FILE=/x", "ESID_ENV_FILE in {path} line 2 names a file to read instead"),
])  # fmt: skip
def test_a_line_that_cannot_be_meant_is_refused(env_file: Callable[..., Path], line: str, words: str) -> None:
    path = env_file(f"ESID_PROCESSES=2\n{line}\n")
    assert words.format(path=path) in refusal({}, path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_of_another_encoding_is_refused_by_its_name(env_file: Callable[..., Path], encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    path = env_file(mark + "ESID_THREADS=4\n".encode(encoding))
    assert refusal({}, path) == f"{path} is UTF-16 text; save it as UTF-8"


@pytest.mark.parametrize(("line", "variable"), [
    ("ESID_DATA_DIR=/a${HOME}b", "${HOME}"),
    ("ESID_DATA_DIR='/a${HOME}b'", "${HOME}"),
    ("ESID_DATA_DIR=$HOME/b", "$HOME"),
    ("DB_PASSWORD=a${HOME}b", "${…}"),
])  # fmt: skip
def test_a_value_is_taken_as_it_stands(env_file: Callable[..., Path], line: str, variable: str) -> None:
    name, _, value = line.partition("=")
    path = env_file(f"DB_HOST=db\n{line}\n")
    path.chmod(0o600)
    got = settings.read({"HOME": "/home/me"}, path)
    assert getattr(got, name.lower()) == value.strip("'")
    assert f"{name} ({path} line 2) holds {variable}, which is not expanded" in got.warnings[0]


@pytest.mark.parametrize("host", ["db:5432", "[::1]:5432", "a,b:5433"])
def test_a_port_behind_the_host_of_the_database_is_refused_with_its_setting(host: str) -> None:
    assert "a host alone: its port is DB_PORT" in refusal({"DB_HOST": host})


@pytest.mark.parametrize("host", ["db", "::1", "fe80::1", "a,b", "/run/postgresql"])
def test_a_host_of_the_database_is_taken(host: str) -> None:
    assert read(DB_HOST=host).db_host == host


def test_a_second_name_behind_the_host_of_rabbitmq_is_refused() -> None:
    assert "one name behind the host, its virtual host" in refusal({"RABBITMQ_URL": "amqp://mq/esid/test"})
    assert read(RABBITMQ_URL="amqp://mq/a%2Fb?heartbeat=30&x=a/b").rabbitmq_url


def test_a_file_that_is_not_utf8_is_refused(env_file: Callable[..., Path]) -> None:
    path = env_file(b"ESI_CONTACT=you@example.com\nDB_USER=J\xf6rg\n")
    assert refusal({}, path) == f"{path} is not UTF-8 text"


@pytest.mark.parametrize("line", ["this is no setting", "='x'", "ESID_THREADS='4", 'DB_USER="a" b'])
def test_a_broken_line_is_refused_with_its_number(env_file: Callable[..., Path], line: str) -> None:
    path = env_file(f"# first\nESID_PROCESSES=2\n{line}\n")
    assert f"{path} line 3: cannot be read" in refusal({}, path)


def test_a_broken_line_is_not_repeated_for_it_may_hold_a_password(env_file: Callable[..., Path]) -> None:
    assert PASSWORD not in refusal({}, env_file(f"DB_PASSWORD='{PASSWORD}\n"))


def test_a_bad_value_is_refused_with_its_line(env_file: Callable[..., Path]) -> None:
    path = env_file("ESI_CONTACT=you@example.com\n\nESID_THREADS=many\n")
    assert refusal({}, path).startswith(f"ESID_THREADS ({path} line 3): 'many'")


def test_a_file_from_windows_is_read(env_file: Callable[..., Path]) -> None:
    got = settings.read({}, env_file("ESID_THREADS=8\r\nDB_HOST=me\r\n"))
    assert (got.esid_threads, got.db_host) == (8, "me")


def test_a_byte_order_mark_does_not_hide_the_first_line(env_file: Callable[..., Path]) -> None:
    assert settings.read({}, env_file(b"\xef\xbb\xbfESID_THREADS=8\n")).esid_threads == 8


@pytest.mark.parametrize("line", ["DB_HOST='a b'", 'DB_HOST="a b"', "export DB_HOST='a b'", "DB_HOST = a b # me"])
def test_quotes_exports_and_comments_are_understood(env_file: Callable[..., Path], line: str) -> None:
    assert settings.read({}, env_file(line + "\n")).db_host == "a b"


@pytest.mark.heavy
def test_a_file_of_a_megabyte_is_read(env_file: Callable[..., Path]) -> None:
    assert settings.read({}, env_file("# padding\n" * 100_000 + "ESID_THREADS=8\n")).esid_threads == 8


SECRET_LINES = [
    f"DB_HOST=db\nDB_PASSWORD={PASSWORD}",
    f"DATABASE_URL=postgresql://me:{PASSWORD}@db/esid",
    f"RABBITMQ_URL=amqp://me:{PASSWORD}@mq",
]


@pytest.mark.parametrize("line", SECRET_LINES)
def test_a_password_in_a_file_that_everybody_can_read_is_refused(env_file: Callable[..., Path], line: str) -> None:
    path = env_file(line + "\n", mode=0o644)
    text = refusal({}, path)
    assert f"chmod 600 {path}" in text
    assert PASSWORD not in text


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
@pytest.mark.parametrize("line", SECRET_LINES)
def test_a_password_in_a_private_file_is_taken(env_file: Callable[..., Path], line: str, mode: int) -> None:
    assert PASSWORD in settings.read({}, env_file(line + "\n", mode=mode)).secrets


@pytest.mark.parametrize(
    "line", ["ESID_THREADS=8", "DB_PASSWORD=", "DATABASE_URL=sqlite:///x.db", "RABBITMQ_URL=amqp://me@mq"]
)
def test_a_file_without_a_password_may_be_read_by_everybody(env_file: Callable[..., Path], line: str) -> None:
    assert settings.read({}, env_file(line + "\n", mode=0o644)).secrets == ()


# -- secrets

SECRET_SETTINGS = [
    {"DB_HOST": "db", "DB_PASSWORD": PASSWORD},
    {"DATABASE_URL": f"postgresql://me:{PASSWORD}@db/esid"},
    {"DATABASE_URL": f"POSTGRESQL://me:{PASSWORD}@db/esid"},
    {"DATABASE_URL": f"postgresql://db/esid?user=me&password={PASSWORD}"},
    {"DATABASE_URL": f"postgresql://db/esid?sslpassword={PASSWORD}"},
    {"RABBITMQ_URL": f"amqp://me:{PASSWORD}@mq/%2F"},
    {"RABBITMQ_URL": f"amqps://:{PASSWORD}@mq"},
]


def title(environ: Mapping[str, str]) -> str:
    """A name for one of the secret settings."""
    return list(environ.values())[-1].replace(PASSWORD, "*")


@pytest.mark.parametrize("environ", SECRET_SETTINGS, ids=title)
def test_a_secret_is_never_shown(environ: dict[str, str]) -> None:
    got = settings.read(environ)
    assert PASSWORD not in repr(got)
    assert PASSWORD not in str(got)
    assert not [setting.name for setting in TABLE if PASSWORD in got.shown(setting)]


@pytest.mark.parametrize("environ", SECRET_SETTINGS, ids=title)
def test_a_secret_is_known_to_be_hidden_in_log_lines(environ: dict[str, str]) -> None:
    assert any(secret in PASSWORD or PASSWORD in secret for secret in settings.read(environ).secrets)


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": f"mysql://me:{PASSWORD}@db/esid"},
        {"DATABASE_URL": f"postgresql://me:{PASSWORD}@db:99999/esid"},
        {"DATABASE_URL": f"postgresql://me:{PASSWORD}/x@db/esid"},
        {"DATABASE_URL": f"postgresql+psycopg2://me:{PASSWORD}@db/esid"},
        {"RABBITMQ_URL": f"http://me:{PASSWORD}@mq"},
        {"ESI_BASE_URL": f"https://me:{PASSWORD}@esi.evetech.net"},
        {"ESI_BASE_URL": f"ftp://me:{PASSWORD}@esi.evetech.net"},
        {"ESID_FEED_URL": f"ftp://me:{PASSWORD}@feed.example.com"},
    ],
    ids=title,
)
def test_a_secret_is_never_in_an_error_message(environ: dict[str, str]) -> None:
    assert PASSWORD not in refusal(environ)


@pytest.mark.parametrize("password", ["p@ss:w/o?r#d", "100%", "a b", "ünï", "[::1]", "'\"\\"])
def test_a_password_in_parts_makes_a_url_that_means_the_same(password: str) -> None:
    got = read(DB_HOST="db.example.com", DB_PORT="5433", DB_USER="me@home", DB_PASSWORD=password, DB_NAME="my db")
    parts = urlsplit(got.database)
    assert (parts.scheme, parts.hostname, parts.port) == ("postgresql", "db.example.com", 5433)
    assert unquote(parts.username or "") == "me@home"
    assert unquote(parts.password or "") == password
    assert unquote(parts.path) == "/my db"


@pytest.mark.parametrize("name", ["a/b", "a?b", "a#b", "a%b"])
def test_an_odd_database_name_is_one_part_of_the_url(name: str) -> None:
    assert read(DB_HOST="db", DB_NAME=name).database == f"postgresql://esid@db:5432/{quote(name, safe='')}"


def test_a_password_is_hidden_plain_and_percent_encoded() -> None:
    assert set(read(DB_HOST="db", DB_PASSWORD="p@ss").secrets) == {"p@ss", "p%40ss"}


def test_a_password_that_stands_encoded_in_a_url_is_hidden_plain_too() -> None:
    assert {"p@ss", "p%40ss"} <= set(read(DATABASE_URL="postgresql://me:p%40ss@db/esid").secrets)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@db/esid", "postgresql://me:***@db/esid"),
        ("postgresql://pw:pw@db/pw", "postgresql://pw:***@db/pw"),
        ("amqp://me:@mq", "amqp://me:@mq"),
        ("amqp://me@mq", "amqp://me@mq"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert settings.without_password(url) == shown


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("ESID_ALLOW_INSECURE_BASE_URL", "1", "1"),
        ("ESI_MAX_RPS", "12.50", "12.5"),
        ("ESI_MAX_RPS", "10000", "10000"),
        ("ESID_THREADS", "8", "8"),
        ("DB_PASSWORD", "x", "***"),
        ("DB_PASSWORD", "a://b", "***"),
        ("DB_PASSWORD", "", ""),
        ("DATABASE_URL", "postgresql://me:x@db/e", "postgresql://me:***@db/e"),
    ],
)
def test_a_value_is_shown_as_a_person_writes_it(name: str, text: str, shown: str) -> None:
    setting = next(setting for setting in TABLE if setting.name == name)
    assert settings.read({name: text, "DB_HOST": "" if name == "DATABASE_URL" else "db"}).shown(setting) == shown


# -- the database and the data directory


def test_without_settings_the_database_is_a_file_in_the_data_dir(tmp_path: Path) -> None:
    got = read(ESID_DATA_DIR=str(tmp_path / "d"))
    assert got.database == f"sqlite:///{tmp_path}/d/esid.db"


def test_the_whole_url_beats_its_parts() -> None:
    assert read(DATABASE_URL="postgresql://a/b", DB_HOST="c").database == "postgresql://a/b"


def test_parts_without_a_password_make_a_url_without_one() -> None:
    assert read(DB_HOST="db").database == "postgresql://esid@db:5432/esid"


def test_an_ipv6_host_is_put_in_brackets() -> None:
    assert read(DB_HOST="::1").database == "postgresql://esid@[::1]:5432/esid"


def test_the_data_dir_follows_the_conventions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert read().data_dir == Path("/home/me/.local/share/esid")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert read().data_dir == Path("/data/esid")
    assert read(ESID_DATA_DIR="~/x").data_dir == Path("/home/me/x")
    assert read(ESID_DATA_DIR="rel").data_dir == tmp_path / "rel"


# -- where ESI is asked


@pytest.mark.parametrize(
    "url", ["https://esi.evetech.net", "https://esi.evetech.net/", "https://ESI.evetech.net", "https://esi.evetech.net:443"]
)
def test_the_real_esi_is_allowed(url: str) -> None:
    assert read(ESI_BASE_URL=url).esi_base_url == url


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:5432", "http://[::1]:80", "https://127.8.9.1"])
def test_loopback_is_allowed(url: str) -> None:
    assert read(ESI_BASE_URL=url).esi_base_url == url


FOREIGN = [
    "http://169.254.169.254",
    "http://[::ffff:169.254.169.254]",
    "http://2130706433",
    "http://127.1",
    "http://0.0.0.0",
    "http://esi.evetech.net",
    "https://esi.evetech.net.example.com",
    "https://evetech.net",
    "https://esi.evetech.net.",
    "http://localhost.example.com",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_another_host_is_refused_with_the_way_around(url: str) -> None:
    text = refusal({"ESI_BASE_URL": url})
    assert url in text
    assert "ESID_ALLOW_INSECURE_BASE_URL=1" in text


@pytest.mark.parametrize("url", FOREIGN)
def test_another_host_is_allowed_on_demand(url: str) -> None:
    assert read(ESI_BASE_URL=url, ESID_ALLOW_INSECURE_BASE_URL="1").esi_base_url == url


@pytest.mark.parametrize("allow", ["0", "1"])
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file://localhost/etc",
        "gopher://127.0.0.1",
        "esi.evetech.net",
        "https://",
        "https:esi.evetech.net",
        "https:///esi.evetech.net",
        "https://user:pass@esi.evetech.net",
        "https://user@esi.evetech.net",
        "https://esi.evetech.net@evil.example.com",
        "http://127.0.0.1@evil.example.com",
        "https://esi.evetech.net/latest",
        "https://esi.evetech.net?datasource=tranquility",
        "https://esi.evetech.net/#x",
    ],
)
def test_what_is_not_scheme_and_host_alone_is_always_refused(url: str, allow: str) -> None:
    assert refusal({"ESI_BASE_URL": url, "ESID_ALLOW_INSECURE_BASE_URL": allow}).startswith("ESI_BASE_URL")


def test_the_real_esi_needs_a_contact() -> None:
    with pytest.raises(SettingsError, match=r"ESI_CONTACT is empty.*User-Agent.*ESI_CONTACT=you@your.domain"):
        settings.check_contact(read())


def test_another_host_that_was_allowed_needs_a_contact() -> None:
    with pytest.raises(SettingsError, match="ESI_CONTACT is empty"):
        settings.check_contact(read(ESI_BASE_URL="http://10.0.0.1", ESID_ALLOW_INSECURE_BASE_URL="1"))


@pytest.mark.parametrize(
    "environ", [{"ESI_CONTACT": "you@home.se"}, {"ESI_BASE_URL": "http://127.0.0.1:1"}], ids=["contact", "loopback"]
)
def test_a_contact_or_a_local_esi_is_enough(environ: dict[str, str]) -> None:
    settings.check_contact(settings.read(environ))


@pytest.mark.parametrize(
    "contact",
    ["you@example.com", "me@sub.Example.ORG", "https://example.net", "http://www.example.com:80/me", "a@b.invalid",
     "https://killboard.test/about", "x@y.example"],
)  # fmt: skip
def test_a_contact_of_nobody_is_refused(contact: str) -> None:
    with pytest.raises(SettingsError, match="is an example, nobody reads there"):
        settings.check_contact(read(ESI_CONTACT=contact))


@pytest.mark.parametrize("contact", ["me@myexample.com", "me@example.com.se", "https://github.com/example.com/x"])
def test_a_contact_that_is_like_an_example_is_none(contact: str) -> None:
    settings.check_contact(read(ESI_CONTACT=contact))


@pytest.mark.parametrize("part", ["DB_USER", "DB_PASSWORD", "DB_NAME"])
def test_half_an_address_of_the_database_is_refused(part: str) -> None:
    words = f"{part} (environment) is set, and neither DB_HOST nor DATABASE_URL: set DB_HOST, too"
    assert refusal({part: PASSWORD}) == words
    assert read(**{part: "x", "DATABASE_URL": "postgresql://a/b"}).database == "postgresql://a/b"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DATABASE_URL": "postgresql://a/b", "DB_HOST": "c"}, "DB_HOST and what belongs to it are ignored"),
        ({"ESID_HTTP_LISTEN": "0.0.0.0:80"}, "ESID_HTTP_LISTEN=0.0.0.0:80 is no loopback address"),
        ({"ESID_SCHEDULE_ALLIANCES": "1s"}, "ESID_SCHEDULE_ALLIANCES=1s asks the database that often"),
    ],
)
def test_what_is_rarely_meant_is_said(environ: dict[str, str], words: str) -> None:
    (warning,) = settings.read(environ).warnings
    assert words in warning


def test_a_day_that_has_not_come_is_no_compatibility_date() -> None:
    assert "2050-01-01 has not come yet; the newest is 2" in refusal({"ESI_COMPATIBILITY_DATE": "2050-01-01"})


def test_a_clock_that_is_wrong_does_not_refuse_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
    assert read().esi_compatibility_date == "2026-08-18"


@pytest.mark.parametrize("name", ["ESID_FEED_URL", "ESID_ARCHIVE_URL", "ESID_ZKILLBOARD_URL"])
def test_killmails_come_by_https_or_from_loopback_alone(name: str) -> None:
    assert "set ESID_ALLOW_INSECURE_BASE_URL=1" in refusal({name: "http://feed.example.com"})
    read(**{name: "http://feed.example.com", "ESID_ALLOW_INSECURE_BASE_URL": "1"})
    read(**{name: "http://localhost:8080"})


@pytest.mark.parametrize("url", [f"https://me:{PASSWORD}@feed.example.com", "https://feed.example.com/?a=b"])
def test_the_url_of_a_source_holds_no_password_and_no_query(url: str) -> None:
    words = refusal({"ESID_FEED_URL": url})
    assert PASSWORD not in words
    assert "scheme, host and path alone" in words


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({}, True),
        ({"ESID_FEED_URL": "off"}, False),
        ({"WORKER_TYPES": "ALLIANCE"}, False),
        ({"WORKER_TYPES": "KILLMAIL"}, True),
    ],
)
def test_a_daemon_follows_killmails_when_it_works_on_them_and_the_feed_is_not_off(
    changes: dict[str, str], follows: bool
) -> None:
    assert read(ESI_CONTACT="you@home.se", **changes).follows_killmails is follows


def test_other_peoples_servers_are_told_whom_to_reach() -> None:
    chosen = read(ESI_BASE_URL="http://127.0.0.1:1")
    settings.check_contact(chosen)
    settings.check_contact(chosen, "http://127.0.0.1:2")
    with pytest.raises(SettingsError, match="ESI_CONTACT is empty"):
        settings.check_contact(chosen, "https://r2z2.zkillboard.com")


@pytest.mark.parametrize(
    ("contact", "feed", "follows"),
    [
        ("you@home.example.se", "https://r2z2.zkillboard.com", True),
        ("you@example.com", "https://r2z2.zkillboard.com", False),
        ("", "https://r2z2.zkillboard.com", False),
        ("", "http://127.0.0.1:9", True),
        ("you@example.com", "off", False),
    ],
)
def test_a_feed_of_somebody_else_is_not_read_without_a_contact(contact: str, feed: str, follows: bool) -> None:
    environ = {"ESI_BASE_URL": "http://127.0.0.1:1", "ESI_CONTACT": contact, "ESID_FEED_URL": feed}
    assert settings.read(environ).follows_killmails is follows
