"""Settings are read once at the start: from the environment, then from one file, then from the defaults.

The only module that reads settings from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import esid.settings.proxy as proxy
import esid.settings.trust as trust
from esid import clock
from esid.errors import SettingsError
from esid.settings.env_file import EnvFile, find
from esid.settings.table import BY_NAME, SYSTEM_FILE, TABLE, Setting, Settings
from esid.settings.urls import is_loopback, without_password
from esid.settings.values import is_example, nearest, schedule

#: Hosts that the client may talk to without `ESID_ALLOW_INSECURE_BASE_URL=1`, beside loopback.
ESI_HOSTS = frozenset({"esi.evetech.net"})
#: The setting that names the file; it cannot stand in one.
FILE_SETTING = "ESID_ENV_FILE"
#: Seconds: below that an interval of the schedule asks the database more often than it can bring anything.
_SHORT_S = 10.0


def read(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings in force.

    Args:
        environ: the environment; the process's own by default.
        env_file: the file to read after it, which must be there. By default the one that `ESID_ENV_FILE` names, else
            `/etc/esid/esid.env`, else `.env` of the working directory.

    Raises:
        SettingsError: naming the setting, the line of the file where it stands, and the cure.
    """
    environ = os.environ if environ is None else environ
    named = env_file or (Path(text) if (text := environ.get(FILE_SETTING, "").strip()) else None)
    file = find(named, (SYSTEM_FILE, Path(".env")))
    warnings = _check_names({**file.origins(), **dict.fromkeys(environ, "the environment")})
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in TABLE:
        text, origin = _pick(setting, environ, file)
        try:
            found[setting.field] = setting.parse(text)
        except ValueError as error:
            shown = "the value" if setting.secret else repr(without_password(text))
            raise SettingsError(f"{setting.name} ({origin}): {shown} is not {error}") from None
        origins[setting.name] = origin
        # A password may hold any $; a path hardly does.
        if variable := re.search(r"\$\w+|\$\{\w+\}" if setting.unit == "path" else r"\$\{\w+\}", text):
            what = "${…}" if setting.secret else variable[0]
            warnings.append(f"{setting.name} ({origin}) holds {what}, which is not expanded; write what it stands for")
    if not found["esid_ca_file"]:
        found["esid_ca_file"], origins["ESID_CA_FILE"] = trust.usual(environ)
    found["https_proxy"], found["no_proxy"] = proxy.named(environ)
    settings = Settings(**found, origins=origins, warnings=(), env_file=str(file.path or ""))
    _check_parts_of_the_database(settings)
    _check_base_url(settings)
    _check_date(settings)
    if settings.esid_ca_file:
        trust.check(settings.esid_ca_file, f"ESID_CA_FILE ({origins['ESID_CA_FILE']})")
    for name in ("ESID_FEED_URL", "ESID_ARCHIVE_URL", "ESID_ZKILLBOARD_URL"):
        _check_source_url(settings, name)
    asked = (settings.esi_base_url, settings.esid_feed_url, settings.esid_archive_url, settings.esid_zkillboard_url)
    for between in filter(None, map(settings.proxy, asked)):
        proxy.check(between)
    object.__setattr__(settings, "warnings", (*warnings, *_doubts(settings)))
    return settings


def check_contact(settings: Settings, *addresses: str) -> None:
    """Refuse to talk to the real ESI, or to other people's servers, without a contact.

    Args:
        addresses: what is talked to; ESI where none is named.

    Raises:
        SettingsError: with the reason and what to set.
    """
    if all(map(is_loopback, addresses or (settings.esi_base_url,))):
        return
    contact = settings.esi_contact
    if not contact:
        raise SettingsError(
            "ESI_CONTACT is empty: CCP asks every program for an address in its User-Agent and blocks those without; "
            "set it to your own mail address or URL, like ESI_CONTACT=you@your.domain"
        )
    if is_example(contact):
        raise SettingsError(
            f"ESI_CONTACT={contact} is an example, nobody reads there: CCP writes to this address before it blocks a "
            "program; set it to your own mail address or URL"
        )


def _pick(setting: Setting, environ: Mapping[str, str], file: EnvFile) -> tuple[str, str]:
    if text := environ.get(setting.name, "").strip():
        return text, "environment"
    if setting.name in file.values and (text := file.values[setting.name].strip()):
        return text, file.origin(setting.name)
    return setting.default, "default"


def _check_names(origins: Mapping[str, str]) -> list[str]:
    """Refuse unknown ESID_ names; return warnings for unknown ESI_ ones, which other programs have too."""
    warnings = []
    for name, origin in origins.items():
        is_ours = name.upper().startswith(("ESID_", "ESI_"))
        if name in BY_NAME or (name == FILE_SETTING and origin == "the environment"):
            continue
        if name.upper() in BY_NAME and (is_ours or origin != "the environment"):
            raise SettingsError(f"unknown setting {name} in {origin}: names are in capitals; write {name.upper()}")
        if name == FILE_SETTING:
            raise SettingsError(f"{name} in {origin} names a file to read instead: set it in the environment, or --env-file")
        if not is_ours:
            if origin != "the environment" and (hint := nearest(name, list(BY_NAME), 0.8)):
                warnings.append(f"{name} in {origin} is none of our settings{hint}")
            continue
        hint = nearest(name, list(BY_NAME))
        if name.upper().startswith("ESID_"):
            raise SettingsError(f"unknown setting {name} in {origin}{hint or '; `esid config` lists the known ones'}")
        warnings.append(f"unknown setting {name} in {origin} is ignored{hint}")
    return warnings


def _check_parts_of_the_database(settings: Settings) -> None:
    """Half an address is none: without this the data would go into a SQLite file that nobody meant."""
    if settings.database_url or settings.db_host:
        return
    for name in ("DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"):
        if (origin := settings.origins[name]) != "default":
            raise SettingsError(f"{name} ({origin}) is set, and neither DB_HOST nor DATABASE_URL: set DB_HOST, too")


def _check_date(settings: Settings) -> None:
    """ESI answers 400 to a day that has not come. The default holds whatever this machine's clock says."""
    name, date = "ESI_COMPATIBILITY_DATE", settings.esi_compatibility_date
    newest = max(BY_NAME[name].default, f"{clock.now():%Y-%m-%d}")
    if date > newest:
        raise SettingsError(f"{name} ({settings.origins[name]}): {date} has not come yet; the newest is {newest}")


def _doubts(settings: Settings) -> list[str]:
    """What is allowed, and rarely meant."""
    found = []
    if settings.database_url and settings.db_host:
        found.append("DB_HOST and what belongs to it are ignored: DATABASE_URL is set")
    listen = settings.esid_http_listen
    if listen != "off" and not is_loopback(f"http://{listen}"):
        found.append(f"ESID_HTTP_LISTEN={listen} is no loopback address: whoever reaches it reads the status, no password")
    for setting in TABLE:
        every = str(getattr(settings, setting.field))
        if setting.parse is schedule and re.fullmatch(r"[0-9]+s", every) and int(every[:-1]) < _SHORT_S:
            found.append(f"{setting.name}={every} asks the database that often and brings nothing: ESI caches for minutes")
    return found


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
    if url == "off" or parts.scheme == "https" or is_loopback(url) or settings.esid_allow_insecure_base_url:
        return
    raise SettingsError(
        f"{name} {url} is neither https nor on loopback; set ESID_ALLOW_INSECURE_BASE_URL=1 if that is what you want"
    )
