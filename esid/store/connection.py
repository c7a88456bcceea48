"""The open database: connections, transactions, statements. Only `store` calls it; SQL stands nowhere else.

Statements are written with `%s` for both databases. Each process opens its own `Store`; it must not cross a fork.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import peewee
import psycopg2
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from esid import log
from esid.errors import SettingsError
from esid.settings import without_password
from esid.store import group, model, pg_deadline
from esid.store.drivers import BUSY_S, Direct, open_postgresql, open_sqlite, sqlite_path
from esid.store.faults import is_lost, is_read_only, is_repeatable, is_unexplained, translated
from esid.store.model import utc_text, utc_time

T = TypeVar("T")

#: Seconds that one statement may take.
STATEMENT_S = 30
#: Rows of one INSERT: SQLite compiles each, and a connection keeps some, each as large as its rows.
_ROWS, _SQLITE_ROWS = 1000, 50
#: Rows up to which PostgreSQL gets them as VALUES. More of them it reads from JSON in two thirds of the time.
_MOST_AS_VALUES = 100
#: Milliseconds that a checkpoint which empties SQLite's WAL waits for readers.
_CHECKPOINT_MS = 1_000
#: Seconds to find out what a statement has waited for.
_LOOK_S = 2.0
#: Who waits for a synchronous standby, or has written something and is in a transaction: the longest first.
_HOLDERS = """SELECT pid, application_name, COALESCE(host(client_addr), 'local'), state, wait_event = 'SyncRep',
    EXTRACT(EPOCH FROM clock_timestamp() - xact_start) FROM pg_stat_activity AS session
    WHERE pid <> pg_backend_pid() AND datname = current_database() AND (wait_event = 'SyncRep' OR (
        COALESCE(state, '') <> 'idle' AND COALESCE(wait_event_type, '') <> 'Lock' AND EXISTS (
            SELECT 1 FROM pg_locks WHERE pg_locks.pid = session.pid AND granted
            AND locktype IN ('relation', 'advisory') AND mode <> 'AccessShareLock')))
    ORDER BY wait_event = 'SyncRep' DESC NULLS LAST, xact_start LIMIT 1"""
#: Seconds beyond a statement's own limit after which a silent server is taken for gone.
_SILENT_S = 3
DRIVER_ERRORS = (peewee.PeeweeException, MaxConnectionsExceeded, psycopg2.Error)


class Store:
    """One database, opened lazily: nothing is touched before the first statement.

    Args:
        url: `postgresql://user:password@host:port/name` or `sqlite:///path`.
        pool_size: most connections of this process to PostgreSQL; SQLite has one a thread.
        statement_s: seconds that PostgreSQL may take for one statement.
        for_import: rows can be written by COPY; therefore a PostgreSQL that says nothing is not given up, as it is
            otherwise (all connections of this process). SQLite's connections have a large cache.
        is_there: a SQLite file is there, and is not made where somebody has taken it away since.
    """

    def __init__(
        self,
        url: str,
        pool_size: int = 8,
        statement_s: int = STATEMENT_S,
        *,
        for_import: bool = False,
        is_there: bool = False,
    ) -> None:
        self.url = url
        self.where = without_password(url)
        self.is_sqlite = url.startswith("sqlite:")
        self.database: Any = (
            open_sqlite(url, for_import=for_import, is_there=is_there)
            if self.is_sqlite
            else open_postgresql(url, pool_size, statement_s)
        )
        if not self.is_sqlite:
            pg_deadline.install(None if for_import else statement_s + _SILENT_S)
        # SQLite has one writer: threads of one process queue up here rather than poll the file's lock.
        self._writer = threading.RLock()
        self._thread = threading.local()
        self._born_at: dt.datetime | None = None
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
            waited_for = self._waited_for(error)
            self._forget_broken(error)
            raise translated(error, self.where, waited_for) from error

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
        found = list(cursor.fetchall()) if cursor.description else []
        if cursor.rowcount > 0 and not sql.lstrip().startswith("SELECT"):
            self._thread.wrote = True
        return found

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

    def born_at(self) -> dt.datetime | None:
        """When this database was set up: all that it knows was seen later. Read once."""
        if self._born_at is None:
            self._born_at = utc_time(self.rows("SELECT MIN(applied_at) FROM schema_migrations")[0][0])
        return self._born_at

    def checkpoint(self, beyond: int = 0) -> bool:
        """Bring what stands in SQLite's WAL into the file and empty the WAL, so that a copy of the file alone is whole.

        Args:
            beyond: bytes up to which the WAL is left as it is.

        Returns:
            False where somebody who reads (or writes) stands in the way; nothing is lost then.

        Raises:
            EsidError: the driver's error in our terms.
        """
        if not self.is_sqlite or (beyond and _size(f"{sqlite_path(self.url)}-wal") <= beyond):
            return True
        with self.connection(), self._writer:
            self.rows(f"PRAGMA busy_timeout = {_CHECKPOINT_MS}")
            try:
                return not self.rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
            finally:
                self.rows(f"PRAGMA busy_timeout = {BUSY_S * 1000}")

    def close(self) -> None:
        """Close this thread's connection and the idle ones of the pool."""
        if isinstance(self.database, PooledPostgresqlDatabase):
            self.database.close_all()
        else:
            if not self.database.is_closed():
                self.database.close()
            if self.is_sqlite:
                group.leave_sides(sqlite_path(self.url))

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
        with self._written(), self.connection(), self._writer if self.is_sqlite else nullcontext():
            return self.rows(sql, parameters)

    def _run_once(self, work: Callable[[], T]) -> T:
        with self._written(), self.connection():
            if self.is_sqlite:
                with self._writer, self.database.atomic("IMMEDIATE"):
                    return work()
            with self.database.atomic():
                return work()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """What is committed at its end shows that the database takes writes (again), where there was anything to write."""
        is_outermost = not self.database.in_transaction()
        if is_outermost:
            self._thread.wrote = False
        yield
        if is_outermost and self._thread.wrote:
            log.outage("database").up()

    def _waited_for(self, error: Exception) -> str:
        """What PostgreSQL tells of the session that a statement has waited for; "" where that is not known."""
        if self.is_sqlite or not is_unexplained(error):
            return ""
        try:
            with pg_deadline.at_most(_LOOK_S):
                connection = connect(self)
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(_HOLDERS)
                        found = cursor.fetchone()
                finally:
                    connection.close()
        except (*DRIVER_ERRORS, SettingsError):
            return ""
        return _holder(*found) if found else ""

    def _forget_broken(self, error: Exception) -> None:
        """A connection that the server closed must not go back into use, nor those that it closed with it; nor one to a
        server that has become a standby, while the next connection may find another server."""
        try:
            if not self.is_sqlite and not self.database.is_closed() and not self.database.is_connection_usable():
                self.database.manual_close()
            if not self.is_sqlite and (is_lost(error) or is_read_only(error) or pg_deadline.SILENT in str(error)):
                self.database.close_idle()
        except (peewee.PeeweeException, OSError):
            self.database.close()


def _holder(pid: int, name: str, address: str, state: str | None, is_syncrep: bool | None, for_s: Any) -> str:
    who = f"pid {pid} ({name or 'without a name'}, {address})"
    if is_syncrep:
        return f"{who} waits for a synchronous standby: start it, or take it out of synchronous_standby_names"
    since = f" for {float(for_s):.0f} s" if for_s is not None else ""
    return f"the longest transaction that writes is that of {who}, {state or 'in a state unknown to us'}{since}"


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def marks(values: Sequence[Any]) -> str:
    """`%s, %s, %s` for an IN list."""
    return ", ".join(["%s"] * len(values))


def connect(store: Store) -> Any:
    """A connection of psycopg2 outside the pool, without transactions: for locks that live as long as it does."""
    connection = Direct._connect(store.database)
    connection.autocommit = True
    return connection
