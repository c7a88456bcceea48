"""The address of a PostgreSQL, in every form that libpq takes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

import psycopg2
from psycopg2 import extensions

from esid.errors import SettingsError
from esid.settings import without_password

#: Query parameters of a database URL that Prisma knows and libpq does not. They say nothing that matters here.
_OF_PRISMA = {
    "connection_limit", "pool_timeout", "pgbouncer", "socket_timeout", "statement_cache_size", "sslaccept", "sslidentity",
    "single_use_connections", "max_connection_lifetime", "max_idle_connection_lifetime",
}  # fmt: skip
#: Where Debian's PostgreSQL listens; the libpq that comes with psycopg2 looks elsewhere.
_SOCKETS = Path("/var/run/postgresql")


def libpq(url: str, name: str = "esid") -> dict[str, str]:
    """What libpq reads in an address. Raises SettingsError.

    `schema`, which is Prisma's, becomes a search path.

    Args:
        name: of a database, for an example.
    """
    whole, _, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in _OF_PRISMA]
    schema = [unquote(pair.partition("=")[2]) for pair in pairs if pair.startswith("schema=")]
    rest = "&".join(pair for pair in pairs if not pair.startswith("schema="))
    scheme, _, where = whole.partition("://")
    try:
        found = extensions.parse_dsn(f"{scheme.lower()}://{where}" + (f"?{rest}" if rest else ""))
    except psycopg2.ProgrammingError as error:
        # Whatever is behind the ? may be a password that nobody knows for one, and libpq repeats what is not encoded.
        why = "a % that encodes nothing (% itself is %25)" if "percent-encoded" in str(error) else str(error).strip()
        cure = "; take this parameter away, libpq does not know it" if "query parameter" in why else ""
        raise SettingsError(f"{without_password(whole)} cannot be read: {why}{cure}") from None
    if not found.get("dbname") and "service" not in found:
        raise SettingsError(f"{without_password(url)} names no database; write postgresql://user@host:5432/{name}")
    if schema and schema[-1] != "public":
        # As an identifier, and then as a word of libpq's options.
        quoted = '"' + schema[-1].replace('"', '""') + '"'
        word = re.sub(r"([\\\s])", r"\\\1", quoted)
        found["options"] = f"{found.get('options', '')} -c search_path={word}".strip()
    is_told = {"host", "hostaddr", "service"} & set(found) or {"PGHOST", "PGHOSTADDR", "PGSERVICE"} & set(os.environ)
    if not is_told and _SOCKETS.is_dir():
        found["host"] = str(_SOCKETS)
    return dict(found)
