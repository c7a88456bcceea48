"""Says what a driver's error means: which of our errors it is, and whether a transaction is worth repeating."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
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
_REFUSED = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
_NOT_PERMITTED = ("readonly database", "permission denied", "unable to open database file", "read-only transaction")
_DAMAGED = ("malformed", "file is not a database", "file is encrypted")
_DISK_FULL = ("disk is full", "no space left on device", "disk full")


def is_repeatable(error: BaseException) -> bool:
    """True for a deadlock or serialization failure, or a SQLite file that another writer held too long."""
    return any(
        getattr(link, "pgcode", None) in _REPEATABLE_CODES or "database is locked" in str(link) for link in _chain(error)
    )


def translated(error: Exception, where: str) -> EsidError:
    """Our error for a driver's error.

    Peewee's own error may hide the cause ("cannot rollback" after "disk is full"), so the whole chain is read.

    Args:
        where: the database without its password, for the message.
    """
    if isinstance(error, EsidError):
        return error
    text = " | ".join(str(link).strip() for link in _chain(error))
    line = next((part for part in text.splitlines() if part.strip()), type(error).__name__)
    low = text.lower()
    # A key that "already exists" is no table that does.
    if "already exists" in low and not isinstance(error, peewee.IntegrityError):
        return SchemaMismatch(f"{where} holds tables of somebody else ({line}); give esid a database of its own")
    if any(sign in low for sign in _DISK_FULL):
        return DatabaseUnavailable(f"disk full: {where} cannot grow; make room, work resumes by itself")
    if any(sign in low for sign in _DAMAGED):
        return DatabaseDamaged(f"{where} is damaged or no database ({line}); restore a backup, the file is left as it is")
    if any(sign in low for sign in _NOT_PERMITTED):
        return NotPermitted(f"{where} cannot be written ({line}); check owner and mode, or set ESID_DATA_DIR")
    if isinstance(error, peewee.OperationalError) and any(sign in low for sign in _REFUSED):
        return DatabaseRefused(f"{where} refused us: {line}; check DATABASE_URL or DB_*")
    if isinstance(error, (peewee.OperationalError, peewee.InterfaceError, MaxConnectionsExceeded)):
        return DatabaseUnavailable(f"{where} cannot be reached: {line}")
    return StoreError(f"{where}: {line}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
