"""One thing with everything that belongs to it, for `esid show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from esid.store.connection import Store
from esid.store.model import Table


def rows_of(store: Store, tables: Sequence[type[Table]], key: int) -> dict[str, list[dict[str, Any]]]:
    """Table name -> its rows of one id, in order of their keys. The first column of each key is that id."""
    found: dict[str, list[dict[str, Any]]] = {}
    with store.connection():
        for table in tables:
            fields = [getattr(table, name) for name in table.key()]
            query: Any = table.select().where(fields[0] == key).order_by(*fields).dicts()
            found[table._meta.table_name] = list(query)
    return found
