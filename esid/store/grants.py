"""Rights in PostgreSQL: our own role's to write, and another program's to read and to do nothing else."""

from __future__ import annotations

import re

from esid.errors import DatabaseForbids, UsageError
from esid.store import migrate
from esid.store.connection import Store

#: What a daemon needs on each table.
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.M)


def let_read(store: Store, role: str) -> int:
    """Let a role connect and read every table of esid, also those that later migrations make. Twice is one effect.

    Returns:
        How many tables there are now.

    Raises:
        UsageError: SQLite has no roles, PostgreSQL has none of this name, or what is granted is not ours to grant.
        EsidError: the database refuses.
    """
    check(store)
    return store.run(lambda: _let_read(store, role))


def check_ours(store: Store) -> None:
    """Refuse a role that may not do all that a daemon does; one by one its statements would be found out otherwise.

    Raises:
        DatabaseForbids: with the statement that mends it. A standby is none of this: it may become the primary.
    """
    if store.is_sqlite:
        return
    with store.connection():
        state = "SELECT current_user, current_setting('transaction_read_only') = 'on' AND NOT pg_is_in_recovery()"
        ((we, is_read_only),) = store.rows(state)
        lacks = " OR ".join(f"NOT has_table_privilege(to_regclass(%s), '{right}')" for right in _RIGHTS)
        lacking = [table for table in _tables(store) if store.rows(f"SELECT {lacks}", [table] * len(_RIGHTS))[0][0]]
    if lacking:
        cure = f"GRANT {', '.join(_RIGHTS)} ON {', '.join(lacking)} TO {we}"
        raise DatabaseForbids(f"{store.where} lets our role read and not write: as the owner of the tables run: {cure}")
    if is_read_only:
        cure = f"ALTER ROLE {we} RESET default_transaction_read_only, or the same for the database"
        raise DatabaseForbids(f"{store.where} is set to be read only for our role: {cure}")


def check(store: Store) -> None:
    """Refuse SQLite. Raises UsageError."""
    if store.is_sqlite:
        raise UsageError(
            "--grant-read is for PostgreSQL: SQLite has no roles; ESID_DATA_MODE=group lets a group read the file "
            "(docs/operating.md, readers)"
        )


def _let_read(store: Store, role: str) -> int:
    if not store.rows("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)):
        raise UsageError(f"PostgreSQL at {store.where} has no role {role}; make it first, for example: createuser {role}")
    if store.rows("SELECT 1 WHERE current_user = %s", (role,)):
        raise UsageError(f"{role} is esid's own role, which reads and writes already; name the role of the other program")
    names = "SELECT quote_ident(%s), quote_ident(current_database()), quote_ident(current_schema())"
    ((reader, database, schema),) = store.rows(names, (role,))
    tables = _tables(store)
    store.rows(f"GRANT CONNECT ON DATABASE {database} TO {reader}")
    store.rows(f"GRANT USAGE ON SCHEMA {schema} TO {reader}")
    store.rows(f"GRANT SELECT ON {', '.join(f'{schema}.{name}' for name in tables)} TO {reader}")
    store.rows(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {reader}")
    # PostgreSQL only warns where what is granted is not ours to grant; often everybody has it already.
    has = (
        "SELECT has_database_privilege(%s, current_database(), 'CONNECT'), "
        "has_schema_privilege(%s, current_schema(), 'USAGE'), current_user"
    )
    ((may_connect, may_use, we),) = store.rows(has, (role, role))
    lacking = [f"CONNECT ON DATABASE {database}"] * (not may_connect) + [f"USAGE ON SCHEMA {schema}"] * (not may_use)
    if lacking:
        cure = "; ".join(f"GRANT {what} TO {reader}" for what in lacking)
        raise UsageError(f"role {we} may not grant all that {role} needs; as the owner of the database run: {cure}")
    return len(tables)


def _tables(store: Store) -> list[str]:
    """Every table that a migration has made and that is there."""
    made = {"schema_migrations", *(name for _, _, sql in migrate.known() for name in _TABLE.findall(sql))}
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
    return [name for (name,) in store.rows(sql) if name in made]
