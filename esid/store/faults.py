"""Says what a driver's error means: which of our errors it is, and whether a transaction is worth repeating."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
import psycopg2

from esid.errors import (
    DatabaseDamaged,
    DatabaseForbids,
    DatabaseHindered,
    DatabaseRefused,
    DatabaseUnavailable,
    DataRefused,
    EsidError,
    SchemaMismatch,
)
from esid.store import pg_deadline

#: SQLSTATE classes 22 and 23, and what SQLite has in their place.
_DATA_ERRORS = (peewee.DataError, peewee.IntegrityError, psycopg2.DataError, psycopg2.IntegrityError)
#: What a driver says of a value that it cannot even send.
_UNSENT = ("can't adapt type", "error binding parameter")
#: PostgreSQL: serialization failure, deadlock detected.
_REPEATABLE_CODES = {"40001", "40P01"}
#: admin shutdown, crash shutdown, idle session timeout, idle in transaction timeout.
_LOST_CODES = {"57P01", "57P02", "57P05", "25P03"}
_LOST = (
    "server closed the connection",
    "terminating connection",
    "connection already closed",
    "connection has been closed",
    "connection not open",
    "could not receive data from server",
    "could not send data to server",
)
#: What libpq's errors of a failed connect begin with: that is no loss of a connection.
_NOT_CONNECTED = "connection to server at"
_DISK_FULL_CODE = "53100"
_READ_ONLY_CODE = "25006"
_FORBIDDEN_CODE = "42501"
#: data corrupted, index corrupted.
_DAMAGED_CODES = {"XX001", "XX002"}
#: undefined table, column, function, object, schema; a column of another type.
_SCHEMA_CODES = {"42P01", "42703", "42883", "42704", "3F000", "42804"}
#: A lock was not to be had within lock_timeout; a statement ran into statement_timeout, or somebody cancelled it.
_LOCKED_CODE, _CANCELLED_CODE = "55P03", "57014"
#: connection exception, invalid authorization, operator intervention: the server is not to be had.
_CONNECTION_CLASSES = ("08", "28", "57P")
_REFUSED = (
    "password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry",
    "is not permitted to log in",
)  # fmt: skip
_PEER = "peer authentication failed"
_POOLER = "unsupported startup parameter"
_NOT_PERMITTED = ("readonly database", "permission denied", "unable to open database file")
_DAMAGED = ("malformed", "file is not a database", "file is encrypted")
_SCHEMA = ("no such table", "no such column", "has no column named")
_DISK_FULL = ("disk is full", "no space left on device", "disk full")


def is_repeatable(error: BaseException) -> bool:
    """True for a deadlock or serialization failure, a lost connection, or a SQLite file that another writer held."""
    return is_lost(error) or any(
        getattr(link, "pgcode", None) in _REPEATABLE_CODES or "database is locked" in str(link) for link in _chain(error)
    )


def is_lost(error: BaseException) -> bool:
    """True when a connection of PostgreSQL was lost in use; False when none could be had."""
    links = list(_chain(error))
    if any(getattr(link, "pgcode", None) in _LOST_CODES for link in links):
        return True
    text = " ".join(str(link) for link in links).lower()
    return _NOT_CONNECTED not in text and any(sign in text for sign in _LOST)


def is_read_only(error: BaseException) -> bool:
    """True when a PostgreSQL can be read only: a standby, a failover under way, or set so by its host."""
    return _has_code(error, _READ_ONLY_CODE)


def is_about_data(error: BaseException) -> bool:
    """True when the database refuses a value (SQLSTATE classes 22 and 23), or a row or statement for its size (54)."""
    return (
        isinstance(error, _DATA_ERRORS)
        or (_code(error) or "").startswith("54")
        or any(sign in str(error).lower() for sign in _UNSENT)
    )


def is_unexplained(error: BaseException) -> bool:
    """True when PostgreSQL has not done a statement in time: what it waited for is worth a look."""
    is_silent = pg_deadline.SILENT in str(error) and pg_deadline.AT_FIRST not in str(error)
    return is_silent or _code(error) in {_LOCKED_CODE, _CANCELLED_CODE}


def translated(error: Exception, where: str, waited_for: str = "") -> EsidError:
    """Our error for a driver's error: one about the data of a row, or one that holds all work.

    Peewee's own error may hide the cause ("cannot rollback" after "disk is full"), so the whole chain is read.

    Args:
        where: the database without its password, for the message.
        waited_for: what is known of the reason why a statement was not done in time.
    """
    if isinstance(error, EsidError):
        return error
    # Peewee's error repeats the driver's words.
    text = " | ".join(dict.fromkeys(str(link).strip() for link in _chain(error)))
    line = next((part for part in text.splitlines() if part.strip()), type(error).__name__)
    if is_about_data(error):
        return DataRefused(f"{where} refuses a value: {line}")
    kind, words = _held(error, text.lower(), _setting(where))
    why = waited_for or "see pg_stat_activity for what it waits for"
    return kind(words.format(where=where, line=line, code=_code(error), why=why))


def _held(error: Exception, low: str, setting: str) -> tuple[type[DatabaseUnavailable], str]:
    """What holds all work: the kind of error, and its words with places for what `translated` knows."""
    code = _code(error) or ""
    if "already exists" in low:
        return SchemaMismatch, "{where} holds tables of somebody else ({line}); give esid a database of its own"
    if any(sign in low for sign in _DISK_FULL) or code == _DISK_FULL_CODE:
        return DatabaseHindered, "disk full: {where} cannot grow; make room"
    if is_read_only(error):
        words = "{where} is read-only ({line}): a standby, or a failover under way; make it writable, or set another "
        return DatabaseUnavailable, words + setting
    if code in _DAMAGED_CODES:
        return DatabaseDamaged, "{where} is damaged ({line}); REINDEX if an index is named, else restore a backup"
    if any(sign in low for sign in _DAMAGED):
        return DatabaseDamaged, "{where} is damaged or no database ({line}); restore a backup, the file is left as it is"
    if code == _FORBIDDEN_CODE or "permission denied for" in low:
        return DatabaseForbids, "{where} forbids it ({line}); GRANT our role what is missing"
    if any(sign in low for sign in _NOT_PERMITTED):
        return DatabaseForbids, "{where} cannot be written ({line}); check owner and mode, or set another " + setting
    if code in _SCHEMA_CODES or (not code and any(sign in low for sign in _SCHEMA)):
        words = "{where} has another schema than this program needs ({line}); run `esid migrate`, or install a newer esid"
        return SchemaMismatch, words
    if _PEER in low:
        words = "{where} refused us: {line}; PostgreSQL lets in the system user of that name alone: run as that user "
        return DatabaseRefused, words + "(runuser -u NAME -- esid …), or set a role with a password in " + setting
    if isinstance(error, peewee.OperationalError) and any(sign in low for sign in _REFUSED):
        return DatabaseRefused, "{where} refused us: {line}; check DATABASE_URL or DB_*"
    if _POOLER in low:
        words = (
            "{where} is a pooler (PgBouncer?) and refuses what we bring along ({line}); add options to its "
            "ignore_startup_parameters, and set pool_mode = session, or name the port of PostgreSQL itself in "
        )
        return DatabaseRefused, words + setting
    if code in _REPEATABLE_CODES:
        return DatabaseHindered, "{where} has refused one transaction again and again: {line}; try again"
    if code == _LOCKED_CODE:
        return DatabaseHindered, "{where}: a lock was not free in time; {why}"
    if code == _CANCELLED_CODE:
        return DatabaseHindered, "{where}: a statement was not done in time ({line}); {why}"
    if is_unexplained(error):
        return DatabaseUnavailable, "{where} does not answer ({line}); {why}"
    if "database is locked" in low:
        return DatabaseHindered, "{where} cannot be written ({line}): another program writes to it; end that program"
    if code and not code.startswith(_CONNECTION_CLASSES):
        return DatabaseHindered, "{where} does not do what we ask ({code}: {line}); see the server's log"
    return DatabaseUnavailable, "{where} cannot be reached: {line}; is it running, and is " + setting + " right?"


def _setting(where: str) -> str:
    return "DATABASE_URL or ESID_DATA_DIR" if where.startswith("sqlite:") else "DATABASE_URL or DB_*"


def _code(error: BaseException) -> str | None:
    """The SQLSTATE of the newest error that has one."""
    return next((code for link in _chain(error) if (code := getattr(link, "pgcode", None))), None)


def _has_code(error: BaseException, code: str) -> bool:
    return any(getattr(link, "pgcode", None) == code for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
