"""A pooler between us and PostgreSQL (PgBouncer and the like): its clients' sessions must last, and get our settings.

Our locks, the schedule's owner and each wait's limit hang on sessions. A pooler by transactions gives a session to another
client after each of them, without a word: two daemons would then own the schedule. It also may drop what a connection
brings along as `options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2

from esid.errors import SettingsError
from esid.store import pg_deadline

#: How often a look is taken: who takes sessions in turns may hand out the right ones by chance.
_LOOKS = 5
#: What PgBouncer says where it allows no transaction of several statements.
_BY_STATEMENT = "pooling mode"
#: `-c name=value` or `--name=value`; a backslash stands before a blank in a value.
_OPTION = re.compile(r"(?:-c\s*|--)([\w.]+)=((?:\\.|\S)*)")


def is_between(connection: Any) -> bool:
    """True where the session is of another server process than the one that let us in, as poolers have it."""
    return bool(_process(connection) != connection.info.backend_pid)


def named(options: str) -> dict[str, str]:
    """The settings that libpq's `options` name."""
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in _OPTION.findall(options)}


def set_all(connection: Any, session: Mapping[str, Any]) -> None:
    """Give a session its settings, whatever has become of those that the connection brought along."""
    with connection.cursor() as cursor:
        each = ", ".join(["set_config(%s, %s, false)"] * len(session))
        cursor.execute(f"SELECT {each}", [str(part) for pair in session.items() for part in pair])


def check(connection: Any, open_another: Callable[[], Any]) -> None:
    """Refuse a pooler by transactions or statements: two open connections share a session there, or one has several.

    Raises:
        SettingsError: with the cure.
        psycopg2.Error: the connection was lost, or another one cannot be had.
    """
    with pg_deadline.at_most(pg_deadline.CONNECT_S):
        another = open_another()
        try:
            if not all(_lasts(connection, another) for _ in range(_LOOKS)):
                raise _refused(connection)
        except psycopg2.Error as error:
            if _BY_STATEMENT in str(error):
                raise _refused(connection) from None
            raise
        finally:
            another.close()


def _lasts(connection: Any, another: Any) -> bool:
    """Whether a session stays ours while another connection is in the middle of a transaction."""
    before = _process(connection)
    # Of two sessions that are handed out in turns, every second question finds the first one again.
    if _process(connection) != before:
        return False
    with another.cursor() as cursor:
        cursor.execute("BEGIN")
        if _process(another) == before:
            return False
        after = _process(connection)
        cursor.execute("ROLLBACK")
    return bool(after == before)


def _process(connection: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def _refused(connection: Any) -> SettingsError:
    return SettingsError(
        f"{connection.info.host}:{connection.info.port} is a pooler (PgBouncer?) that gives our session to others after "
        "each transaction, and locks and settings do not last there; set its pool_mode = session for esid's database, or "
        "name the port of PostgreSQL itself in DATABASE_URL or DB_PORT"
    )
