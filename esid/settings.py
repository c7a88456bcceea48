"""Settings: one frozen table, read once at start from the environment, then `.env`, then the defaults.

The only module that reads settings from the environment. Called by cli and daemon; nobody below them sees a `Settings`.
"""

from __future__ import annotations

import datetime as dt
import difflib
import ipaddress
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from esid.errors import SettingsError

#: Hosts that the client may talk to without `ESID_ALLOW_INSECURE_BASE_URL=1`, beside loopback.
ESI_HOSTS = frozenset({"esi.evetech.net"})
ENTITY_NAMES = ("alliance", "corporation", "character", "killmail")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _text(value: str) -> str:
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII) else math.nan
        if not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return number

    return parse


def _flag(value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError("0 or 1")
    return value == "1"


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        found = [choice for choice in choices if choice.lower() == value.lower()]
        if not found:
            raise ValueError("one of " + ", ".join(choices))
        return found[0]

    return parse


def _date(value: str) -> str:
    try:
        return dt.date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError("a date like 2026-08-18") from None


def duration(value: str) -> float:
    """Seconds in a text like `90s`, `15m`, `6h` or `1d`."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value, re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("a duration like 30s, 15m, 6h or 1d")
    return float(int(match[1]) * _UNITS[match[2]])


def _schedule(value: str) -> str:
    if value == "off":
        return value
    try:
        duration(value)
    except ValueError:
        from esid import crontab  # nobody waits for APScheduler who has no crontab expression

        try:
            cron = crontab.trigger(value)
        except ValueError:
            raise ValueError("an interval like 10m, a crontab expression like `17 * * * *`, or off") from None
        if _is_always_in_downtime(cron):
            raise ValueError("a time outside of ESI's downtime, 11:00 to 11:15 UTC, when nothing is asked") from None
    return value


def _is_always_in_downtime(cron: Any) -> bool:
    """True for a crontab expression none of whose next times could be used (see `plan`)."""
    time = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for _ in range(20):
        time = cron.get_next_fire_time(None, time + dt.timedelta(seconds=1))
        if time is None or time.hour != 11 or time.minute >= 15:
            return False
    return True


def actors(value: str) -> str:
    """A list of entities like `alliance,corporation`, checked and in lower case; empty means all."""
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in ENTITY_NAMES and name != "all":
            raise ValueError(f"a list of {', '.join(ENTITY_NAMES)}{nearest(name, ENTITY_NAMES)}")
    return "" if "all" in names else ",".join(dict.fromkeys(names))


def _listen(value: str) -> str:
    if value == "off":
        return value
    host, _, port = value.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        _integer(0, 65535)(port)
    except ValueError:
        raise ValueError("an address like 127.0.0.1:8580, or off") from None
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value, re.ASCII):
        raise ValueError("1 to 40 letters, digits, dots, dashes or underscores")
    return value


def _contact(value: str) -> str:
    form = r"([^\s@;()]+@[^\s@;()]+\.[^\s@;()]+|https?://[^\s;()]+)?"
    if not re.fullmatch(form, value) or not value.isascii() or not value.isprintable():
        raise ValueError("a mail address or a URL, in ASCII")
    return value


def _url(schemes: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        try:
            parts = urlsplit(value)
            there = value.startswith("sqlite:///") if parts.scheme == "sqlite" else bool(parts.hostname)
            valid = not value or (parts.scheme in schemes and there)
            _ = parts.port
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                "a URL that begins with "
                + " or ".join("sqlite:///" if scheme == "sqlite" else f"{scheme}://" for scheme in schemes)
            )
        return value

    return parse


def _url_or_off(value: str) -> str:
    return value if value == "off" else str(_HTTP_URL(value))


@dataclass(frozen=True)
class Setting:
    """One line of the table: its name, how its text is read, its default as text, unit and meaning."""

    name: str
    parse: Callable[[str], Any]
    default: str
    unit: str
    help: str
    secret: bool = False

    @property
    def field(self) -> str:
        """The attribute of `Settings` that holds the value."""
        return self.name.lower()


_DATABASE_URL = _url(("postgresql", "postgres", "sqlite"))
_RABBITMQ_URL = _url(("amqp", "amqps"))
_HTTP_URL = _url(("https", "http"))

TABLE: tuple[Setting, ...] = (
    Setting("ESI_CONTACT", _contact, "", "mail or URL", "How CCP reaches you; part of the User-Agent"),
    Setting("ESI_BASE_URL", _HTTP_URL, "https://esi.evetech.net", "URL", "Where ESI answers"),
    Setting("ESI_COMPATIBILITY_DATE", _date, "2026-08-18", "date", "The version of ESI's answers that is asked for"),
    Setting("ESI_MAX_RPS", _number(0, 10000), "50", "requests/s", "Pace of one egress address; 0 = no pace"),
    Setting("ESI_MAX_IN_FLIGHT", _integer(1, 1000), "64", "requests", "Requests on their way at the same time"),
    Setting("ESI_ERROR_RESERVE", _integer(1, 99), "10", "errors", "Part of the error limit (100 a minute) never used"),
    Setting("ESI_BUCKET_RESERVE", _integer(0, 50), "2", "percent", "Part of each token bucket never used"),
    Setting("DATABASE_URL", _DATABASE_URL, "", "URL", "postgresql://… or sqlite:///…; empty = SQLite in the data dir", True),
    Setting("DB_HOST", _text, "", "host", "PostgreSQL in parts, where DATABASE_URL is empty"),
    Setting("DB_PORT", _integer(1, 65535), "5432", "port", "see DB_HOST"),
    Setting("DB_USER", _text, "esid", "name", "see DB_HOST"),
    Setting("DB_PASSWORD", _text, "", "text", "see DB_HOST", True),
    Setting("DB_NAME", _text, "esid", "name", "see DB_HOST"),
    Setting("RABBITMQ_URL", _RABBITMQ_URL, "", "URL", "amqp://…; empty = the queue lives in the database", True),
    Setting("WORKER_TYPES", actors, "", "names", "What to work on, like ALLIANCE,CORPORATION; empty = all"),
    Setting("ESID_DATA_DIR", _text, "", "path", "Database file, budget; empty = esid in $XDG_DATA_HOME or ~/.local/share"),
    Setting("ESID_EGRESS", _prefix, "default", "name", "Daemons with the same value on one database share one budget"),
    Setting("ESID_PROCESSES", _integer(1, 64), "1", "processes", "Worker processes"),
    Setting("ESID_THREADS", _integer(1, 256), "16", "threads", "Threads of each worker process"),
    Setting("ESID_PREFETCH", _integer(1, 16), "2", "messages", "Messages fetched ahead for each thread"),
    Setting("ESID_QUEUE_PREFIX", _prefix, "esid", "name", "First part of the names of our queues"),
    Setting("ESID_HTTP_LISTEN", _listen, "127.0.0.1:8580", "address", "Where health is answered, or off"),
    Setting("ESID_SCHEDULE_ALLIANCES", _schedule, "10m", "interval, crontab, off", "How often due alliances are asked"),
    Setting("ESID_SCHEDULE_CORPORATIONS", _schedule, "10m", "interval, crontab, off", "The same for corporations"),
    Setting("ESID_SCHEDULE_CHARACTERS", _schedule, "10m", "interval, crontab, off", "The same for characters' details"),
    Setting("ESID_SCHEDULE_KILLMAILS", _schedule, "1h", "interval, crontab, off", "The same for killmails that failed"),
    Setting("ESID_SCHEDULE_AFFILIATIONS", _schedule, "10m", "interval, crontab, off", "The same for characters in bulk"),
    Setting("ESID_SCHEDULE_SWEEP", _schedule, "1m", "interval, crontab, off", "How often lost messages are looked for"),
    Setting("ESID_SCHEDULE_CLEAN_UP", _schedule, "1d", "interval, crontab, off", "How often old records are deleted"),
    Setting("ESID_SCHEDULE_HEAL", _schedule, "1d", "interval, crontab, off", "How often killmails are compared by day"),
    Setting("ESID_LOG_FORMAT", _one_of("text", "json"), "text", "name", "text or json"),
    Setting("ESID_LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "name", "Least level that is logged"),
    Setting(
        "ESID_FEED_URL",
        _url_or_off,
        "https://r2z2.zkillboard.com",
        "URL, off",
        "Live killmail feed and history (zKillboard R2Z2)",
    ),
    Setting("ESID_ARCHIVE_URL", _HTTP_URL, "https://data.everef.net/killmails", "URL", "Killmails by day (EVE Ref)"),
    Setting("ESID_ZKILLBOARD_URL", _HTTP_URL, "https://zkillboard.com", "URL", "Where the hash of a pasted link is asked"),
    Setting("ESID_ALLOW_INSECURE_BASE_URL", _flag, "0", "0 or 1", "Allow an ESI_BASE_URL that is neither ESI nor loopback"),
)
_BY_NAME = {setting.name: setting for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """What is in force. `origins` says for each name where its value came from."""

    esi_contact: str
    esi_base_url: str
    esi_compatibility_date: str
    esi_max_rps: float
    esi_max_in_flight: int
    esi_error_reserve: int
    esi_bucket_reserve: int
    database_url: str
    db_host: str
    db_port: int
    db_user: str
    db_password: str
    db_name: str
    rabbitmq_url: str
    worker_types: str
    esid_data_dir: str
    esid_egress: str
    esid_processes: int
    esid_threads: int
    esid_prefetch: int
    esid_queue_prefix: str
    esid_http_listen: str
    esid_schedule_alliances: str
    esid_schedule_corporations: str
    esid_schedule_characters: str
    esid_schedule_killmails: str
    esid_schedule_affiliations: str
    esid_schedule_sweep: str
    esid_schedule_clean_up: str
    esid_schedule_heal: str
    esid_log_format: str
    esid_log_level: str
    esid_feed_url: str
    esid_archive_url: str
    esid_zkillboard_url: str
    esid_allow_insecure_base_url: bool
    origins: Mapping[str, str]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return "Settings(***)"

    @property
    def data_dir(self) -> Path:
        """Directory of the database file and of the shared budget."""
        if self.esid_data_dir:
            return Path(self.esid_data_dir).expanduser().absolute()
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "esid"

    @property
    def database(self) -> str:
        """The database in force: a `postgresql://` or `sqlite:///` URL with its password."""
        if self.database_url:
            return self.database_url
        if self.db_host:
            password = f":{quote(self.db_password, safe='')}" if self.db_password else ""
            host = f"[{self.db_host}]" if ":" in self.db_host else self.db_host
            return (
                f"postgresql://{quote(self.db_user, safe='')}{password}@{host}:{self.db_port}/{quote(self.db_name, safe='')}"
            )
        return f"sqlite:///{self.data_dir / 'esid.db'}"

    @property
    def entities(self) -> tuple[str, ...]:
        """The names of the entities to work on."""
        return tuple(self.worker_types.split(",")) if self.worker_types else ENTITY_NAMES

    @property
    def follows_killmails(self) -> bool:
        """True where this daemon works on killmails and the feed is not off.

        Nobody is to ask other people's servers without saying who asks: without a contact only a local feed is read.
        """
        is_meant = "killmail" in self.entities and self.esid_feed_url != "off"
        return is_meant and (bool(self.esi_contact) or is_loopback(self.esid_feed_url))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be printed: passwords, also percent-encoded."""
        found = [self.db_password, *_passwords(self.database_url), *_passwords(self.rabbitmq_url)]
        forms = [form for text in found for form in (text, unquote(text), quote(text, safe=""))]
        return tuple(dict.fromkeys(form for form in forms if form))

    def shown(self, setting: Setting) -> str:
        """The value of one setting as a person may see it."""
        value = getattr(self, setting.field)
        if isinstance(value, bool):
            return str(int(value))
        if setting.secret and value:
            return without_password(value) if setting.name.endswith("_URL") else "***"
        return f"{value:g}" if isinstance(value, float) else str(value)


def read(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings in force.

    Args:
        environ: the environment; the process's own by default.
        env_file: the file to read after it; `.env` of the working directory by default, may be absent.

    Raises:
        SettingsError: naming the setting, the line of the file where it stands, and the cure.
    """
    environ = os.environ if environ is None else environ
    path = env_file or Path(".env")
    in_file = _read_file(path)
    origins_in_file = {name: f"{path} line {line}" for name, (_, line) in in_file.items()}
    warnings = _check_names({**origins_in_file, **dict.fromkeys(environ, "the environment")})
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in TABLE:
        text, origin = _pick(setting, environ, in_file, path)
        try:
            values[setting.field] = setting.parse(text)
        except ValueError as error:
            shown = "the value" if setting.secret else repr(without_password(text))
            raise SettingsError(f"{setting.name} ({origin}): {shown} is not {error}") from None
        origins[setting.name] = origin
    settings = Settings(**values, origins=origins, warnings=tuple(warnings))
    _check_base_url(settings)
    for name in ("ESID_FEED_URL", "ESID_ARCHIVE_URL", "ESID_ZKILLBOARD_URL"):
        _check_source_url(settings, name)
    return settings


def check_contact(settings: Settings, *urls: str) -> None:
    """Refuse to talk to the real ESI, or to other people's servers, without a contact.

    Args:
        urls: what is talked to; ESI where none is named.

    Raises:
        SettingsError: with the reason and what to set.
    """
    if not settings.esi_contact and not all(map(is_loopback, urls or (settings.esi_base_url,))):
        raise SettingsError(
            "ESI_CONTACT is empty: CCP asks every program for an address in its User-Agent and blocks those without; "
            "set it, for example ESI_CONTACT=you@example.com"
        )


def service_manager(pid: int) -> tuple[str, float]:
    """Where the service manager listens ("" = nowhere), and in how many seconds it wants to hear of us (0 = it does not)."""
    usec, meant = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_meant = usec.isdecimal() and (not meant or meant == str(pid))
    return os.environ.get("NOTIFY_SOCKET", ""), int(usec) / 1e6 if is_meant else 0.0


def is_journal() -> bool:
    """True where standard error goes to systemd's journal, which takes priorities and sets the time itself."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        told = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(told.st_dev), str(told.st_ino))


def is_loopback(url: str) -> bool:
    """True where the URL's host is this machine's loopback interface."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_password(url: str) -> str:
    """The URL with `***` in the place of its password, for logs and messages."""
    for password in sorted(_passwords(url), key=len, reverse=True):
        url = url.replace(f":{password}@", ":***@", 1).replace(f"password={password}", "password=***")
    return url


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """The end of an error message: `; did you mean X?`, or nothing where no name is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _passwords(url: str) -> list[str]:
    """Every password in a URL: before the host (up to the last @, for one that is not encoded), or as a parameter."""
    found = re.findall(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#:@]*:(.*)@", url) + re.findall(r"[?&]password=([^&#]*)", url)
    return [text for text in found if text]


def _pick(
    setting: Setting, environ: Mapping[str, str], in_file: Mapping[str, tuple[str, int]], path: Path
) -> tuple[str, str]:
    if environ.get(setting.name, "").strip():
        return environ[setting.name].strip(), "environment"
    if setting.name in in_file and in_file[setting.name][0].strip():
        text, line = in_file[setting.name]
        return text.strip(), f"{path} line {line}"
    return setting.default, "default"


def _check_names(origins: Mapping[str, str]) -> list[str]:
    """Refuse unknown ESID_ names; return warnings for unknown ESI_ ones, which other programs have too."""
    warnings = []
    for name, origin in origins.items():
        if name in _BY_NAME or not name.startswith(("ESID_", "ESI_")):
            continue
        hint = nearest(name, list(_BY_NAME))
        if name.startswith("ESID_"):
            raise SettingsError(f"unknown setting {name} in {origin}{hint or '; `esid config` lists the known ones'}")
        warnings.append(f"unknown setting {name} in {origin} is ignored{hint}")
    return warnings


def _read_file(path: Path) -> dict[str, tuple[str, int]]:
    """Name -> (value, line) of an env file; empty where there is none."""
    try:
        with path.open(encoding="utf-8") as stream:
            lines = {}
            for binding in parse_stream(stream):
                # The parser counts the blank lines before a line as part of it.
                text = binding.original.string
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                if binding.error:
                    raise SettingsError(f"{path} line {line}: cannot be read; write NAME=value")
                if binding.key:
                    lines[binding.key] = line
        values = {name: value or "" for name, value in dotenv_values(path).items()}
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; check its owner and mode") from None
    has_secret = any(
        values.get(s.name) and (s.name == "DB_PASSWORD" or _passwords(values[s.name])) for s in TABLE if s.secret
    )
    if has_secret and mode & stat.S_IROTH:
        raise SettingsError(f"{path} holds a password and everybody on this machine can read it; run: chmod 600 {path}")
    return {name: (value, lines.get(name, 0)) for name, value in values.items()}


def _check_base_url(settings: Settings) -> None:
    parts = urlsplit(settings.esi_base_url)
    if parts.username or parts.password or parts.query or parts.fragment or parts.path not in {"", "/"}:
        raise SettingsError("ESI_BASE_URL must be scheme and host alone, like https://esi.evetech.net")
    if settings.esid_allow_insecure_base_url or is_loopback(settings.esi_base_url):
        return
    if parts.scheme != "https" or parts.hostname not in ESI_HOSTS:
        raise SettingsError(
            f"ESI_BASE_URL {settings.esi_base_url} is neither https://esi.evetech.net nor on loopback; "
            "set ESID_ALLOW_INSECURE_BASE_URL=1 if that is what you want"
        )


def _check_source_url(settings: Settings, name: str) -> None:
    """Killmails come by https, from loopback, or from where somebody has said that it is well."""
    url = getattr(settings, name.lower())
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(f"{name} must be scheme, host and path alone, without a user, a password or a query")
    if url != "off" and parts.scheme != "https" and not is_loopback(url) and not settings.esid_allow_insecure_base_url:
        raise SettingsError(
            f"{name} {url} is neither https nor on loopback; set ESID_ALLOW_INSECURE_BASE_URL=1 if that is what you want"
        )
