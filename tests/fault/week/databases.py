"""Ways in which a database refuses for a while, of each kind, done behind the back of those who use it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from esid.errors import EsidError
from esid.store.connection import Store
from esid.store.drivers import sqlite_path
from tests.tools.servers import Postgres
from tests.tools.wire import Wire

#: A role that owns nothing, and the tables of which it may lose its rights.
ROLE, TABLES = Postgres.plain_role, ("corporations", "characters", "sync_jobs", "messages", "feed_cursors")
#: What breaks, and how it is mended again.
Refusal = tuple[Callable[[], object], Callable[[], object]]


class Sqlite:
    """A file.

    Attributes:
        url: how the daemon opens it.
    """

    def __init__(self, store: Store) -> None:
        self._store, self.url = store, store.url
        self._other: sqlite3.Connection | None = None

    def refusal(self, dice: random.Random) -> tuple[str, Refusal]:
        """One way, and its name."""
        renamed = "ALTER TABLE corporations RENAME {} TO {}"
        ways: dict[str, Refusal] = {
            "renamed": (
                lambda: self._change(renamed.format("ticker", "other")),
                lambda: self._change(renamed.format("other", "ticker")),
            ),
            "no table": (
                lambda: self._change("ALTER TABLE messages RENAME TO others"),
                lambda: self._change("ALTER TABLE others RENAME TO messages"),
            ),
            "held by another program": (self._hold, self._let_go),
        }
        name = dice.choice(sorted(ways))
        return name, ways[name]

    def close(self) -> None:
        """Let go of the file."""
        self._let_go()

    def _change(self, sql: str) -> None:
        self._store.run(lambda: self._store.rows(sql))

    def _hold(self) -> None:
        self._other = sqlite3.connect(sqlite_path(self.url), timeout=5, isolation_level=None)
        self._other.execute("BEGIN IMMEDIATE")

    def _let_go(self) -> None:
        if self._other:
            self._other.close()
        self._other = None


class Postgresql:
    """A server, behind a wire."""

    def __init__(self, store: Store) -> None:
        parts = urlsplit(store.url)
        self._store, self._name = store, parts.path[1:]
        self._wire = Wire(parts.port or 5432)
        self._wire.up()
        self.url = f"postgresql://{ROLE}@127.0.0.1:{self._wire.port}/{self._name}"
        with suppress(EsidError):
            self._change(f"CREATE ROLE {ROLE} LOGIN")
        self._change(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}")
        self._change(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")

    def refusal(self, dice: random.Random) -> tuple[str, Refusal]:
        """One way, and its name."""
        table = dice.choice(TABLES)
        read_only = f'ALTER ROLE {ROLE} IN DATABASE "{self._name}" {{}} default_transaction_read_only {{}}'
        ways: dict[str, Refusal] = {
            f"no rights on {table}": (
                lambda: self._change(f"REVOKE ALL ON {table} FROM {ROLE}"),
                lambda: self._change(f"GRANT ALL ON {table} TO {ROLE}"),
            ),
            "read-only": (
                lambda: (self._change(read_only.format("SET", "= on")), self._end_sessions()),
                lambda: (self._change(read_only.format("RESET", "")), self._end_sessions()),
            ),
            "sessions are ended": (self._end_sessions, self._end_sessions),
            "away": (self._wire.down, self._wire.up),
        }
        name = dice.choice(sorted(ways))
        return name, ways[name]

    def close(self) -> None:
        """Take the wire away."""
        self._wire.__exit__()

    def _change(self, sql: str) -> None:
        with self._store.connection():
            self._store.rows(sql)

    def _end_sessions(self) -> None:
        sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND datname = %s"
        with self._store.connection():
            self._store.rows(sql, (ROLE, self._name))
