"""The tables hold these killmails, and no others."""

from __future__ import annotations

import datetime as dt
from typing import Any

from esid.entities.killmail import Attacker, Killmail, KillmailItem
from esid.store.connection import Store
from esid.store.model import utc_text
from tests.fake_feed import Mail
from tests.tools import mirror


def assert_equal(store: Store, mails: list[Mail]) -> None:
    """The tables hold these killmails, all of their attackers and items, and nothing else."""
    bodies = [(one.id, one.body) for one in mails]
    for model, wanted in (
        (Killmail, [mirror.killmail(one.id, one.hash, one.body) for one in mails]),
        (Attacker, [row for key, body in bodies for row in mirror.attackers(key, body).values()]),
        (KillmailItem, [row for key, body in bodies for row in mirror.items(key, body).values()]),
    ):
        columns = [name for name in model._meta.fields if name not in {"created_at", "updated_at"}]
        with store.connection():
            found = set(store.rows(f"SELECT {', '.join(columns)} FROM {model._meta.table_name}"))
        rows = {tuple(stored(store, row[name]) for name in columns) for row in wanted}
        assert len(rows) == len(wanted)
        assert found == rows, f"{model.__name__}: {list(found - rows)[:3]} != {list(rows - found)[:3]}"


def stored(store: Store, value: Any) -> Any:
    """A value as the database's driver gives it back."""
    return utc_text(value) if store.is_sqlite and isinstance(value, dt.datetime) else value


def everything(store: Store) -> list[Any]:
    """Every row that an import may touch, with its stamps."""
    names = ("killmails", "attackers", "killmail_items", "sync_jobs")
    with store.connection():
        return [sorted(store.rows(f"SELECT * FROM {name}"), key=repr) for name in names]
