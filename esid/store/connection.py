"""The open database: connections, transactions, statements. Only `store` calls it; SQL stands nowhere else.

Statements are written with `%s` for both databases. Each process opens its own `Store`; it must not cross a fork.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import peewee
import psycopg2
from peewee import PostgresqlDatabase
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from esid import clock
from esid.errors import NotPermitted, SettingsError
from esid.settings import without_password
from esid.store import model, waiting
from esid.store.faults import is_lost, is_read_only, is_repeatable, translated
from esid.store.model import utc_text

T = TypeVar("T")

#: Seconds: waiting for a connection of the pool, for PostgreSQL to accept, for one statement, for SQLite's writer.
POOL_WAIT_S, CONNECT_S, STATEMENT_S, BUSY_S = 20, 5, 30, 10
#: Rows of one INSERT: SQLite compiles each, and a connection keeps so many compiled statements, each as large as its rows.
_ROWS, _SQLITE_ROWS, _STATEMENTS = 1000, 50, 8
#: Rows up to which PostgreSQL gets them as VALUES. More of them it reads from JSON in two thirds of the time.
_MOST_AS_VALUES = 100
#: Kilobytes of SQLite's cache for each connection, and each thread has one; the kernel keeps the file in memory as well.
_CACHE_KB, _IMPORT_CACHE_KB = 2_000, 16_000
#: Query parameters of a database URL that libpq understands and that make sense here; others (Prisma's) are dropped.
_URL_OPTIONS = {"sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "target_session_attrs"}
#: Seconds beyond a statement's own limit after which a silent server is taken for gone.
_SILENT_S = 3
#: Seconds without use after which a pooled connection is asked whether it lives.
_IDLE_S = 1.0
DRIVER_ERRORS = (peewee.PeeweeException, MaxConnectionsExceeded, psycopg2.Error)


class Store:
    """One database, opened lazily: nothing is touched before the first statement.

    Args:
        url: `postgresql://user:password@host:port/name` or `sqlite:///path`.
        pool_size: most connections of this process to PostgreSQL; SQLite has one a thread.
        statement_s: seconds that PostgreSQL may take for one statement.
        for_import: rows can be written by COPY; therefore a PostgreSQL that says nothing is not given up, as it is
            otherwise (all connections of this process). SQLite's connections have a large cache.
    """

    def __init__(self, url: str, pool_size: int = 8, statement_s: int = STATEMENT_S, *, for_import: bool = False) -> None:
        self.url = url
        self.where = without_password(url)
        self.is_sqlite = url.startswith("sqlite:")
        self.database: Any = (
            _sqlite(url, _IMPORT_CACHE_KB if for_import else _CACHE_KB)
            if self.is_sqlite
            else _postgresql(url, pool_size, statement_s)
        )
        if not self.is_sqlite:
            waiting.install(None if for_import else statement_s + _SILENT_S)
        # SQLite has one writer: threads of one process queue up here rather than poll the file's lock.
        self._writer = threading.RLock()
        model.database.initialize(self.database)

    @contextmanager
    def connection(self) -> Iterator[None]:
        """A connection for a few reads. PostgreSQL's goes back to the pool at the end.

        Raises:
            EsidError: the driver's error in our terms (see `store.faults`).
        """
        try:
            if self.is_sqlite or not self.database.is_closed():
                self.database.connect(reuse_if_open=True)
                yield
            else:
                with self.database.connection_context():
                    yield
        except DRIVER_ERRORS as error:
            self._forget_broken(error)
            raise translated(error, self.where) from error

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` in one transaction; it runs again, up to 3 times, after a deadlock, a serialization failure or the
        loss of its connection (it may have been committed then: everything that is written here may be written twice).

        Raises:
            EsidError: the driver's error in our terms; nothing was written.
        """
        return self._repeated(partial(self._run_once, work))

    def change(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """One statement that is a transaction by itself, or a part of the caller's: without the round trips that begin and
        end one. Repeated as `run` does; the rows that it returns.

        Raises:
            EsidError: the driver's error in our terms; nothing was written.
        """
        if self.database.in_transaction():
            return self.rows(sql, parameters)
        return self._repeated(partial(self._change_once, sql, parameters))

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that one statement returns; [] where it returns none."""
        cursor = self.database.execute_sql(sql.replace("%s", "?") if self.is_sqlite else sql, tuple(parameters))
        return list(cursor.fetchall()) if cursor.description else []

    def one_of(self, column: str) -> str:
        """SQL for "it is one of these whole numbers"; the parameter is `listed`. One word, so that it costs no server the
        parsing of thousands."""
        numbers = "IN (SELECT value FROM json_each(%s))" if self.is_sqlite else "= ANY(CAST(%s AS BIGINT[]))"
        return f"{column} {numbers}"

    def listed(self, numbers: Iterable[int]) -> str:
        """Whole numbers as one parameter of a statement."""
        text = ",".join(map(str, numbers))
        return f"[{text}]" if self.is_sqlite else f"{{{text}}}"

    def insert(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], tail: str = ""
    ) -> list[tuple[Any, ...]]:
        """Insert many rows in as few statements as the database takes; `tail` is ON CONFLICT and RETURNING."""
        values, names, returned = list(rows), ", ".join(columns), list[tuple[Any, ...]]()
        at_once = _SQLITE_ROWS if self.is_sqlite else _ROWS
        for start in range(0, len(values), at_once):
            part = values[start : start + at_once]
            if self.is_sqlite or len(part) <= _MOST_AS_VALUES:
                one = f"({marks(columns)})"
                sql = f"INSERT INTO {table} ({names}) VALUES {', '.join([one] * len(part))} {tail}"
                returned += self.rows(sql, [value for row in part for value in row])
            else:
                returned += self._insert_json(table, columns, part, tail)
        return returned

    def close(self) -> None:
        """Close this thread's connection and the idle ones of the pool."""
        if isinstance(self.database, PooledPostgresqlDatabase):
            self.database.close_all()
        elif not self.database.is_closed():
            self.database.close()

    def _insert_json(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], tail: str
    ) -> list[tuple[Any, ...]]:
        """PostgreSQL: what differs between the rows goes as JSON, what all have in common once."""
        first = rows[0]
        differ = [place for place in range(len(columns)) if any(row[place] != first[place] for row in rows)]
        sources = [name if place in differ else "%s" for place, name in enumerate(columns)]
        objects = [{columns[place]: row[place] for place in differ} for row in rows]
        text = json.dumps(objects, ensure_ascii=False, default=utc_text)
        common = [value for place, value in enumerate(first) if place not in differ]
        return self.rows(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(sources)} "
            f"FROM json_populate_recordset(NULL::{table}, %s) {tail}",
            [*common, text],
        )

    def _repeated(self, act: Callable[[], T]) -> T:
        attempts = Retrying(
            retry=retry_if_exception(is_repeatable),
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        result: T = attempts(act)
        return result

    def _change_once(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.connection(), self._writer if self.is_sqlite else nullcontext():
            return self.rows(sql, parameters)

    def _run_once(self, work: Callable[[], T]) -> T:
        with self.connection():
            if self.is_sqlite:
                with self._writer, self.database.atomic("IMMEDIATE"):
                    return work()
            with self.database.atomic():
                return work()

    def _forget_broken(self, error: Exception) -> None:
        """A connection that the server closed must not go back into use, nor those that it closed with it; nor one to a
        server that has become a standby, while the next connection may find another server."""
        try:
            if not self.is_sqlite and not self.database.is_closed() and not self.database.is_connection_usable():
                self.database.manual_close()
            if not self.is_sqlite and (is_lost(error) or is_read_only(error) or waiting.SILENT in str(error)):
                self.database.close_idle()
        except (peewee.PeeweeException, OSError):
            self.database.close()


class _Pool(PooledPostgresqlDatabase):  # type: ignore[misc]
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
        with waiting.at_most(waiting.CONNECT_S):
            if not connection.closed and (idle_s < _IDLE_S or not super()._is_closed(connection)):
                return False
        self.close_idle()
        return True


def marks(values: Sequence[Any]) -> str:
    """`%s, %s, %s` for an IN list."""
    return ", ".join(["%s"] * len(values))


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///relative` or `sqlite:////absolute` URL."""
    return Path(unquote(url.removeprefix("sqlite:///"))).absolute()


def _sqlite(url: str, cache_kb: int) -> peewee.SqliteDatabase:
    path = sqlite_path(url)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise NotPermitted(f"{path.parent} cannot be made: {error.strerror}; set ESID_DATA_DIR") from None
    pragmas = {"journal_mode": "wal", "synchronous": "normal", "cache_size": -cache_kb, "temp_store": "memory"}
    return peewee.SqliteDatabase(str(path), pragmas=pragmas, timeout=BUSY_S, cached_statements=_STATEMENTS)


def connect(store: Store) -> Any:
    """A connection of psycopg2 outside the pool, without transactions: for locks that live as long as it does."""
    kind: Any = PostgresqlDatabase
    connection = kind._connect(store.database)
    connection.autocommit = True
    return connection


def _postgresql(url: str, pool_size: int, statement_s: int) -> PooledPostgresqlDatabase:
    parts = urlsplit(url)
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise SettingsError(f"{without_password(url)} names no database; write postgresql://user@host:5432/esid")
    options = {key: value for key, value in parse_qsl(parts.query) if key in _URL_OPTIONS}
    return _Pool(
        name,
        max_connections=pool_size,
        stale_timeout=300,
        timeout=POOL_WAIT_S,
        host=parts.hostname,
        port=parts.port or 5432,
        user=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        connect_timeout=CONNECT_S,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=2,
        tcp_user_timeout=15_000,
        options=f"-c statement_timeout={statement_s * 1000} -c timezone=UTC",
        **({"application_name": "esid"} | options),
    )
