"""Says what a driver's error means: which of our errors it is, and whether a transaction is worth repeating."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
import psycopg2
from playhouse.pool import MaxConnectionsExceeded

from esid.errors import (
    DatabaseDamaged,
    DatabaseRefused,
    DatabaseUnavailable,
    EsidError,
    NotPermitted,
    SchemaMismatch,
    StoreError,
)

#: PostgreSQL: serialization failure, deadlock detected.
_REPEATABLE_CODES = {"40001", "40P01"}
#: admin shutdown, crash shutdown, cannot connect now, idle session timeout.
_LOST_CODES = {"57P01", "57P02", "57P05"}
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
_REFUSED = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
_NOT_PERMITTED = ("readonly database", "permission denied", "unable to open database file")
_DAMAGED = ("malformed", "file is not a database", "file is encrypted")
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


def translated(error: Exception, where: str) -> EsidError:
    """Our error for a driver's error.

    Peewee's own error may hide the cause ("cannot rollback" after "disk is full"), so the whole chain is read.

    Args:
        where: the database without its password, for the message.
    """
    if isinstance(error, EsidError):
        return error
    # Peewee's error repeats the driver's words.
    text = " | ".join(dict.fromkeys(str(link).strip() for link in _chain(error)))
    line = next((part for part in text.splitlines() if part.strip()), type(error).__name__)
    low = text.lower()
    setting = "DATABASE_URL or ESID_DATA_DIR" if where.startswith("sqlite:") else "DATABASE_URL or DB_*"
    # A key that "already exists" is no table that does.
    if "already exists" in low and not isinstance(error, peewee.IntegrityError):
        return SchemaMismatch(f"{where} holds tables of somebody else ({line}); give esid a database of its own")
    if any(sign in low for sign in _DISK_FULL) or _has_code(error, _DISK_FULL_CODE):
        return DatabaseUnavailable(f"disk full: {where} cannot grow; make room, work resumes by itself")
    if is_read_only(error):
        return DatabaseUnavailable(
            f"{where} is read-only ({line}): a standby, or a failover under way; make it writable, or set another {setting}"
        )
    if any(sign in low for sign in _DAMAGED):
        return DatabaseDamaged(f"{where} is damaged or no database ({line}); restore a backup, the file is left as it is")
    if any(sign in low for sign in _NOT_PERMITTED):
        return NotPermitted(f"{where} cannot be written ({line}); check owner and mode, or set another {setting}")
    if isinstance(error, peewee.OperationalError) and any(sign in low for sign in _REFUSED):
        return DatabaseRefused(f"{where} refused us: {line}; check DATABASE_URL or DB_*")
    if any(_has_code(error, code) for code in _REPEATABLE_CODES):
        return DatabaseUnavailable(f"{where} has refused one transaction again and again: {line}; try again")
    if isinstance(
        error, (peewee.OperationalError, peewee.InterfaceError, MaxConnectionsExceeded, psycopg2.OperationalError)
    ):
        return DatabaseUnavailable(f"{where} cannot be reached: {line}; is it running, and is {setting} right?")
    return StoreError(f"{where}: {line}")


def _has_code(error: BaseException, code: str) -> bool:
    return any(getattr(link, "pgcode", None) == code for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
