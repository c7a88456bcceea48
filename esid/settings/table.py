"""The table of settings, and what follows from several of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import esid.settings.proxy as proxy
import esid.settings.urls as urls
import esid.settings.values as values
from esid.catalogue import LANES, Lane
from esid.errors import SettingsError

#: The file of an installation for the whole machine, and its data directory.
SYSTEM_FILE, SYSTEM_DATA = Path("/etc/esid/esid.env"), Path("/var/lib/esid")


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


def _every(name: str, default: str, help_: str) -> Setting:
    return Setting(name, values.schedule, default, "interval, crontab, off", help_)


def _of_lane(lane: Lane) -> Setting:
    asked = lane.asked or lane.plural
    help_ = f"How often due {asked} are asked" if lane is LANES[0] else f"The same for {asked}"
    return _every(lane.setting, lane.every, help_)


TABLE: tuple[Setting, ...] = (
    Setting("ESI_CONTACT", values.contact, "", "mail or URL", "How CCP reaches you; part of the User-Agent"),
    Setting("ESI_BASE_URL", urls.http, "https://esi.evetech.net", "URL", "Where ESI answers"),
    Setting("ESI_COMPATIBILITY_DATE", values.date, "2026-08-18", "date", "The version of ESI's answers that is asked for"),
    Setting("ESI_MAX_RPS", values.number(0, 10000), "50", "requests/s", "Pace of one egress address; 0 = no pace"),
    Setting("ESI_MAX_IN_FLIGHT", values.integer(1, 1000), "64", "requests", "Requests on their way at the same time"),
    Setting("ESI_ERROR_RESERVE", values.integer(1, 99), "10", "errors", "Part of the error limit (100 a minute) never used"),
    Setting("ESI_BUCKET_RESERVE", values.integer(0, 50), "2", "percent", "Part of each token bucket never used"),
    Setting("DATABASE_URL", urls.database, "", "URL", "postgresql://… or sqlite:///…; empty = SQLite in the data dir", True),
    Setting("DB_HOST", values.host, "", "host", "PostgreSQL in parts, where DATABASE_URL is empty"),
    Setting("DB_PORT", values.integer(1, 65535), "5432", "port", "see DB_HOST"),
    Setting("DB_USER", values.text, "esid", "name", "see DB_HOST"),
    Setting("DB_PASSWORD", values.text, "", "text", "see DB_HOST", True),
    Setting("DB_NAME", values.text, "esid", "name", "see DB_HOST"),
    Setting("RABBITMQ_URL", urls.rabbitmq, "", "URL", "amqp://…; empty = the queue lives in the database", True),
    Setting("WORKER_TYPES", values.actors, "", "names", "What to work on, like ALLIANCE,CORPORATION; empty = all"),
    Setting("ESID_DATA_DIR", values.text, "", "path", "Database file, budget; empty = see docs/operating.md"),
    Setting(
        "ESID_DATA_MODE",
        values.one_of("private", "group"),
        "private",
        "name",
        "Who may read the SQLite file: its user, or its group",
    ),
    Setting("ESID_EGRESS", values.prefix, "default", "name", "Daemons with the same value on one database share one budget"),
    Setting("ESID_PROCESSES", values.integer(1, 64), "1", "processes", "Worker processes"),
    Setting("ESID_THREADS", values.integer(1, 256), "16", "threads", "Threads of each worker process"),
    Setting("ESID_PREFETCH", values.integer(1, 16), "2", "messages", "Messages fetched ahead for each thread"),
    Setting("ESID_QUEUE_PREFIX", values.prefix, "esid", "name", "First part of the names of our queues"),
    Setting("ESID_HTTP_LISTEN", values.listen, "127.0.0.1:8580", "address", "Where health is answered, or off"),
    *map(_of_lane, LANES),
    _every("ESID_SCHEDULE_AFFILIATIONS", "10m", "The same for characters in bulk"),
    _every("ESID_SCHEDULE_SWEEP", "1m", "How often lost messages are looked for"),
    _every("ESID_SCHEDULE_CLEAN_UP", "1d", "How often old records are deleted"),
    _every("ESID_SCHEDULE_AUDIT", "1h", "How often is looked for what must not be"),
    _every("ESID_SCHEDULE_HEAL", "1d", "How often killmails are compared by day"),
    Setting("ESID_LOG_FORMAT", values.one_of("text", "json"), "text", "name", "text or json"),
    Setting(
        "ESID_LOG_LEVEL", values.one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "name", "Least level that is logged"
    ),
    Setting(
        "ESID_FEED_URL",
        urls.http_or_off,
        "https://r2z2.zkillboard.com",
        "URL, off",
        "Live killmail feed and history (zKillboard R2Z2)",
    ),
    Setting("ESID_ARCHIVE_URL", urls.http, "https://data.everef.net/killmails", "URL", "Killmails by day (EVE Ref)"),
    Setting("ESID_ZKILLBOARD_URL", urls.http, "https://zkillboard.com", "URL", "Where the hash of a pasted link is asked"),
    Setting("ESID_CA_FILE", values.text, "", "path", "Certificates to trust for ESI and killmails; empty = the usual ones"),
    Setting(
        "ESID_ALLOW_INSECURE_BASE_URL", values.flag, "0", "0 or 1", "Allow an ESI_BASE_URL that is neither ESI nor loopback"
    ),
)
BY_NAME = {setting.name: setting for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """What is in force. `origins` says for each name where its value came from, `env_file` which file was read, or "".

    `https_proxy` and `no_proxy` are what the environment tells all programs.
    """

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
    esid_data_mode: str
    esid_egress: str
    esid_processes: int
    esid_threads: int
    esid_prefetch: int
    esid_queue_prefix: str
    esid_http_listen: str
    # One for each lane, as if they stood here: `esid_schedule_alliances: str` and so on.
    __annotations__.update({lane.setting.lower(): "str" for lane in LANES})
    esid_schedule_affiliations: str
    esid_schedule_sweep: str
    esid_schedule_clean_up: str
    esid_schedule_audit: str
    esid_schedule_heal: str
    esid_log_format: str
    esid_log_level: str
    esid_feed_url: str
    esid_archive_url: str
    esid_zkillboard_url: str
    esid_ca_file: str
    esid_allow_insecure_base_url: bool
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    env_file: str
    https_proxy: str = ""
    no_proxy: str = ""

    def __repr__(self) -> str:
        return "Settings(***)"

    @property
    def data_dir(self) -> Path:
        """Directory of the database file and of the shared budget."""
        try:
            return self._data_dir().absolute()
        except RuntimeError:
            # Python's word for a user without a home, as containers have them.
            words = "this user has no home directory; set ESID_DATA_DIR to a directory of its own"
            raise SettingsError(words) from None

    def _data_dir(self) -> Path:
        if self.esid_data_dir:
            return Path(self.esid_data_dir).expanduser()
        if self.env_file == str(SYSTEM_FILE):
            return SYSTEM_DATA
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "esid"

    @property
    def database(self) -> str:
        """The database in force: a `postgresql://` or `sqlite:///` URL with its password."""
        if self.database_url:
            return self.database_url
        if self.db_host:
            return urls.postgresql(self.db_host, self.db_port, self.db_user, self.db_password, self.db_name)
        return f"sqlite:///{self.data_dir / 'esid.db'}"

    @property
    def entities(self) -> tuple[str, ...]:
        """The names of the lanes to work on."""
        if self.worker_types:
            return tuple(self.worker_types.split(","))
        return tuple(lane.name for lane in LANES if lane.by_default)

    @property
    def has_contact(self) -> bool:
        """True where other people's servers may be asked: CCP and they can reach whoever asks."""
        return bool(self.esi_contact) and not values.is_example(self.esi_contact)

    @property
    def follows_killmails(self) -> bool:
        """True where this daemon works on killmails and the feed is not off.

        Nobody is to ask other people's servers without saying who asks: without a contact only a local feed is read.
        """
        is_meant = "killmail" in self.entities and self.esid_feed_url != "off"
        return is_meant and (self.has_contact or urls.is_loopback(self.esid_feed_url))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be printed: passwords, also percent-encoded."""
        found = [
            *urls.passwords(self.https_proxy),
            self.db_password,
            *urls.passwords(self.database_url),
            *urls.passwords(self.rabbitmq_url),
        ]
        forms = [form for text in found for form in urls.forms(text)]
        return tuple(dict.fromkeys(form for form in forms if form))

    def proxy(self, url: str) -> str:
        """The proxy between us and a URL, `http://user:password@host:port`; "" = none."""
        return proxy.between(url, self.https_proxy, self.no_proxy)

    def _follows(self, name: str) -> Any:
        """What is in force of a setting that is empty."""
        with suppress(SettingsError):
            if name == "ESID_DATA_DIR":
                return self.data_dir
            if name == "DATABASE_URL":
                return self.database
        if name == "WORKER_TYPES":
            return ",".join(self.entities)
        return getattr(self, name.lower())

    def shown(self, setting: Setting) -> str:
        """The value of one setting as a person may see it."""
        value = getattr(self, setting.field) or self._follows(setting.name)
        if isinstance(value, bool):
            return str(int(value))
        if setting.secret and value:
            return urls.without_password(value) if setting.name.endswith("_URL") else "***"
        return f"{value:g}" if isinstance(value, float) else str(value)
