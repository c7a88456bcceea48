"""How a database is opened: peewee's drivers, with the settings of each connection and session."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import peewee
from peewee import PostgresqlDatabase
from playhouse.pool import PooledPostgresqlDatabase

from esid import clock
from esid.errors import NotPermitted, SettingsError
from esid.store import pg_deadline, pooler
from esid.store.address import libpq

_Plain: Any = PostgresqlDatabase
_PlainSqlite: Any = peewee.SqliteDatabase
#: Seconds: waiting for a connection of the pool, for PostgreSQL to accept, for SQLite's writer.
POOL_WAIT_S, CONNECT_S, BUSY_S = 20, 5, 10
#: Statements that a connection to SQLite keeps compiled, each as large as its rows.
_STATEMENTS = 8
#: Bytes to which a checkpoint cuts SQLite's WAL.
LARGEST_WAL = 16 * 1024 * 1024
#: Kilobytes of SQLite's cache for each connection, and each thread has one; the kernel keeps the file in memory as well.
_CACHE_KB, _IMPORT_CACHE_KB = 2_000, 16_000
#: Seconds that one of our transactions may stand still between two statements: no work in between takes as long, not even
#: on a busy machine. Who is stopped or cut off in one keeps its locks no longer.
IDLE_IN_TRANSACTION_S = 20
#: The server's end of a connection: it looks after 10 s without a word whether we are there, and gives up 15 s after what it
#: sent last. Its own default is more than two hours.
_SESSION = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
#: Milliseconds without an acknowledgement after which our end gives up: in use, and (each address of a name) at first.
_USER_TIMEOUT_MS, _ADDRESS_MS = 15_000, 4_000
#: Seconds without use after which a pooled connection is asked whether it lives.
_IDLE_S = 1.0


class _Closing:
    """Owns a connection of one thread, and closes it when the thread ends: it is kept in that thread's locals alone."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __del__(self) -> None:
        self._connection.close()


class _Sqlite(_PlainSqlite):  # type: ignore[misc]
    """A connection for each thread, closed at the thread's end; who ends a thread need not know of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._owners = threading.local()
        super().__init__(*args, **kwargs)

    def _connect(self) -> Any:
        connection = self._opened()
        self._owners.ours = _Closing(connection)
        return connection

    def _opened(self) -> Any:
        """Of two who open a new file, one finds it locked while the other turns it to WAL: SQLite waits for no such lock."""
        ends_at = clock.monotonic() + BUSY_S
        while True:
            try:
                return super()._connect()
            except (sqlite3.OperationalError, peewee.OperationalError) as error:
                if "locked" not in str(error) or clock.monotonic() >= ends_at:
                    raise
            clock.sleep(0.02)


class Direct(_Plain):  # type: ignore[misc]
    """Connections without a pool, each looked at before its first use.

    Attributes:
        session: settings of each session.
    """

    session: Mapping[str, Any] = _SESSION
    _is_pooler_checked = False

    def _connect(self) -> Any:
        connection: Any = super()._connect()
        try:
            self._look_at(connection)
        except BaseException:
            connection.close()
            raise
        pg_deadline.patient(connection, _USER_TIMEOUT_MS)
        return connection

    def _look_at(self, connection: Any) -> None:
        """Raises SettingsError for a database that we cannot work with."""
        encoding = connection.get_parameter_status("server_encoding")
        if encoding not in {None, "UTF8"}:
            role, name = connection.info.user, connection.info.dbname
            raise SettingsError(
                f"database {name} stores text in {encoding}, esid needs UTF8; `createdb -T template0 -E UTF8 "
                f"--locale=C.UTF-8 -O {role} {name}_utf8` makes a right one, `pg_dump {name} | psql {name}_utf8` moves what "
                f"is in it; then name {name}_utf8 in DATABASE_URL or DB_NAME"
            )
        if pooler.is_between(connection):
            if not self._is_pooler_checked:
                pooler.check(connection, super()._connect)
                self._is_pooler_checked = True
            pooler.set_all(connection, self.session)


class _Pool(PooledPostgresqlDatabase, Direct):  # type: ignore[misc]
    """A pool that asks a connection whether it lives only when it has been idle: a round trip for each transaction is too
    much, and one that was lost in use is found in use. One dead idle connection ends them all, so that where packets
    vanish the patience is spent once and not for each; everybody who wants a connection waits for that, so it is short."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._used_at: dict[int, float] = {}

    def _can_reuse(self, connection: Any) -> bool:
        self._used_at[id(connection)] = clock.monotonic()
        return bool(super()._can_reuse(connection))

    def _is_closed(self, connection: Any) -> bool:
        idle_s = clock.monotonic() - self._used_at.pop(id(connection), 0.0)
        with pg_deadline.at_most(pg_deadline.CONNECT_S):
            if not connection.closed and (idle_s < _IDLE_S or not super()._is_closed(connection)):
                return False
        self.close_idle()
        return True


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///relative` or `sqlite:////absolute` URL."""
    return Path(unquote(url.removeprefix("sqlite:///"))).absolute()


def open_sqlite(url: str, *, for_import: bool, is_there: bool) -> peewee.SqliteDatabase:
    """A file, lazily: see `Store`. Raises NotPermitted where its directory cannot be made."""
    path = sqlite_path(url)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NotPermitted(f"{path.parent} cannot be made: {error.strerror}; set ESID_DATA_DIR") from None
    pragmas = {
        "journal_mode": "wal",
        "synchronous": "normal",
        "journal_size_limit": LARGEST_WAL,
        "cache_size": -(_IMPORT_CACHE_KB if for_import else _CACHE_KB),
        "temp_store": "memory",
    }
    name = f"{path.as_uri()}?mode=rw{'' if is_there else 'c'}"
    # The interpreter may end a thread's locals in another thread.
    parameters = {"uri": True, "timeout": BUSY_S, "cached_statements": _STATEMENTS, "check_same_thread": False}
    return _Sqlite(name, pragmas=pragmas, **parameters)


def open_postgresql(url: str, pool_size: int, statement_s: int) -> PooledPostgresqlDatabase:
    """A pool of connections, lazily: see `Store`."""
    address = libpq(url)
    # A lock that is waited for is told from a statement that takes too long.
    session = {**_SESSION, "statement_timeout": statement_s * 1000, "lock_timeout": statement_s * 1000 * 2 // 3}
    ours = " ".join(f"-c {name}={value}" for name, value in session.items())
    own = address.pop("options", "")
    pool = _Pool(
        address.pop("dbname", ""),
        max_connections=pool_size,
        stale_timeout=300,
        timeout=POOL_WAIT_S,
        options=f"{own} {ours}".strip(),
        **{"application_name": "esid", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "2"}
        | address
        | {"connect_timeout": str(CONNECT_S), "tcp_user_timeout": str(_ADDRESS_MS), "client_encoding": "UTF8"},
    )
    pool.session = pooler.named(own) | session
    return pool
