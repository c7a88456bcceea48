"""Reads the tables of another program, killreport (github.com/umutyerebakmaz/killreport at 8eba269), from its PostgreSQL.

Page by page in the order of ids, each page as it stood at one moment. Nothing is written there. Its times are UTC without
saying so.
"""

from __future__ import annotations

import datetime as dt
import re
import select
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote

import psycopg2
from psycopg2 import extensions

from esid.errors import EsidError, SettingsError, SourceUnavailable, UsageError
from esid.settings import without_password
from esid.store.address import libpq

T = TypeVar("T")
#: How it is connected: who is gone is found out, and no statement waits for ever.
_CONNECTION = {
    "connect_timeout": 5, "client_encoding": "UTF8", "application_name": "esid import", "keepalives_idle": 10,
    "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 15_000,
}  # fmt: skip
_SESSION = {"statement_timeout": "'60s'", "lock_timeout": "'15s'"}
#: What PostgreSQL says where the address is wrong, or whoever it names may not come in.
_WRONG = re.compile(r"authentication failed|no pg_hba\.conf entry|does not exist|no password supplied|invalid .* value")
#: PostgreSQL's number of a type: a time that does not say in which zone.
_TIMESTAMP = 1114
_HEADS = """SELECT killmails.killmail_id, killmail_hash, killmail_time, solar_system_id, character_id, corporation_id,
    alliance_id, faction_id, ship_type_id, damage_taken, position_x, position_y, position_z, attacker_count
    FROM killmails LEFT JOIN victims ON victims.killmail_id = killmails.killmail_id
    WHERE killmails.killmail_id > %s ORDER BY killmails.killmail_id LIMIT %s"""
_ATTACKERS = """SELECT killmail_id, character_id, corporation_id, alliance_id, faction_id, ship_type_id, weapon_type_id,
    damage_done, final_blow, security_status FROM attackers WHERE killmail_id = ANY(%s) ORDER BY killmail_id, id"""
_ITEMS = """SELECT killmail_id, item_type_id, flag, quantity_dropped, quantity_destroyed, singleton
    FROM killmail_items WHERE killmail_id = ANY(%s) ORDER BY killmail_id, id"""
Values = tuple[Any, ...]
#: Killmail -> its rows, in order, without its id.
Parts = dict[int, list[Values]]


class Killreport:
    """Its database, connected.

    Args:
        url: as its `.env` has it, with Prisma's parameters.

    Raises:
        SourceUnavailable: it cannot be reached.
        SettingsError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        self.where = without_password(url)
        schemas = [unquote(text) for text in re.findall(r"[?&]schema=([^&]+)", url)]
        address: dict[str, Any] = libpq(re.sub(r"(?<=[?&])schema=[^&]*&?", "", url), "killreport") | _CONNECTION
        # Prisma's default, whatever the role's own is. Said in each transaction: a pooler takes no options.
        is_told = not schemas and "search_path" in address.get("options", "")
        self._schema = "" if is_told else (schemas or ["public"])[-1]
        self._session = [f"SET LOCAL {name} = {value}" for name, value in _SESSION.items()]
        if self._schema:
            self._session.append(f"SET LOCAL search_path = {_quoted(self._schema)}")
        # Whose tables are meant, however it is reached.
        whose = [address.get(name, "") for name in ("host", "hostaddr", "port", "service", "dbname")]
        self.name = " ".join([*whose, self._schema or address["options"]])
        self._connection = self._translated(lambda: psycopg2.connect(**address))
        self._connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        self._is_interrupted = False

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def check(self, tables: Mapping[str, Sequence[str]]) -> None:
        """See that everything that will be read can be, before anything is written.

        Args:
            tables: those whose rows have an id, and what is read of each.

        Raises:
            SourceUnavailable: a table, a column or a right is missing.
            UsageError: these are esid's own tables.
        """
        lacks = "SELECT 1 FROM pg_namespace WHERE nspname = %s AND NOT has_schema_privilege(oid, 'USAGE')"
        if self._rows(lacks, (self._schema,)):
            raise SourceUnavailable(f"{self.where} lets us not into schema {self._schema}: {self._grant()}")
        if self._rows("SELECT 1 WHERE to_regclass('sync_jobs') IS NOT NULL", ()):
            raise UsageError(f"{self.where} is a database of esid; name that of killreport")
        for table, columns in tables.items():
            self.page(table, columns, 0, 0)
        self.killmails(0, 0)
        self.parts([])

    def about(self, table: str) -> int | None:
        """About how many rows a table has; None where PostgreSQL has never counted them."""
        sql = "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)"
        ((count,),) = self._rows(sql, (table,)) or [(-1,)]
        return int(count) if count >= 0 else None

    def page(self, table: str, columns: Sequence[str], after: int, limit: int) -> list[Values]:
        """Rows with ids above `after`: the id, the columns, and when it was looked at last."""
        names = ", ".join(("id", *columns, "updated_at"))
        sql = f"SELECT {names} FROM {table} WHERE id > %s ORDER BY id LIMIT %s"
        return self._rows(sql, (after, limit))

    def killmails(self, after: int, limit: int) -> list[Values]:
        """The same of killmails: id, hash, time, system, nine columns of the victim (None without one), attackers that there
        were (None where it does not say)."""
        return self._rows(_HEADS, (after, limit))

    def parts(self, ids: Sequence[int]) -> tuple[Parts, Parts]:
        """(attackers, items) of some killmails."""
        listed = (list(ids),)
        return _grouped(self._rows(_ATTACKERS, listed)), _grouped(self._rows(_ITEMS, listed))

    def _rows(self, sql: str, parameters: tuple[Any, ...]) -> list[Values]:
        def read() -> list[Values]:
            with self._connection, self._connection.cursor() as cursor:
                cursor.execute("; ".join(self._session))
                cursor.execute(sql, parameters)
                times = [place for place, column in enumerate(cursor.description or ()) if column.type_code == _TIMESTAMP]
                return [_aware(row, times) for row in cursor.fetchall()] if times else cursor.fetchall()

        with self._interruptible():
            return self._translated(read)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C cancels the statement; libpq by itself would wait for its answer first. Only meanwhile: COPY, by which
        our rows are written, cannot be waited for so."""
        before, self._is_interrupted = extensions.get_wait_callback(), False
        extensions.set_wait_callback(self._wait)
        try:
            yield
        except EsidError:
            if self._is_interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            extensions.set_wait_callback(before)
        if self._is_interrupted:
            raise KeyboardInterrupt

    def _wait(self, connection: Any) -> None:
        """Raises KeyboardInterrupt the second time alone: the first one has PostgreSQL answer at once."""
        while True:
            try:
                if (state := connection.poll()) == extensions.POLL_OK:
                    return
                ends = [connection.fileno()]
                is_read = state == extensions.POLL_READ
                select.select(ends if is_read else [], [] if is_read else ends, [])
            except KeyboardInterrupt:
                if self._is_interrupted:
                    raise
                self._is_interrupted = True
                connection.cancel()

    def _translated(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except psycopg2.Error as error:
            # The end of a transaction fails, too, on a connection that is gone, and says less.
            cause = error.__context__
            raise self._fault(cause if isinstance(cause, psycopg2.Error) else error) from None
        except (ValueError, OverflowError) as error:
            raise SourceUnavailable(f"{self.where} holds a value that cannot be read: {_line(error)}") from None

    def _fault(self, error: psycopg2.Error) -> EsidError:
        words = f"killreport's database {self.where} cannot be read: {_line(error)}"
        if isinstance(error, (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn)):
            words = f"{self.where} is not the database of a killreport that esid knows ({_line(error)})"
            return SourceUnavailable(f"{words}; see docs/from-killreport.md")
        if isinstance(error, psycopg2.errors.InsufficientPrivilege):
            return SourceUnavailable(f"{words}: {self._grant()}")
        if isinstance(error, psycopg2.errors.QueryCanceled):
            return SourceUnavailable(f"{words}; it is busy: run it again, it goes on where it was")
        if isinstance(error, psycopg2.errors.LockNotAvailable):
            return SourceUnavailable(f"{words}; another session holds a lock on it: run it again later, it goes on")
        if _WRONG.search(str(error)):
            return SettingsError(f"{words}; check user, password and name in --from-url or its DATABASE_URL")
        return SourceUnavailable(f"{words}; is it running, and is its address right? Run it again: it goes on where it was")

    def _grant(self) -> str:
        schema = _quoted(self._schema or "public")
        cure = f"GRANT USAGE ON SCHEMA {schema} TO …; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO …"
        return f"as the owner of its tables run: {cure}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _grouped(rows: Sequence[Values]) -> Parts:
    found: Parts = defaultdict(list)
    for key, *rest in rows:
        found[key].append(tuple(rest))
    return found


def _aware(row: Values, times: Sequence[int]) -> Values:
    """A row with aware times in these places."""
    values = list(row)
    for place in times:
        values[place] = values[place] and values[place].replace(tzinfo=dt.UTC)
    return tuple(values)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
