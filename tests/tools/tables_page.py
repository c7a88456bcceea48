"""Writes docs/tables.md from the models: `python -m tests.tools.tables_page` (`make docs`)."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from esid.entities import ENTITIES
from tests.tools.tables import TABLES

PATH = Path(__file__).parents[2] / "docs" / "tables.md"
#: Every table: those of the entities, then our own.
MODELS: tuple[Any, ...] = tuple(dict.fromkeys([*(table for entity in ENTITIES for table in entity.tables), *TABLES]))
#: The word for each type of a column.
KINDS_OF = {
    "BIGINT": "integer", "INT": "integer", "AUTO": "integer", "BIGAUTO": "integer", "DOUBLE": "float", "TEXT": "text",
    "BOOL": "true/false", "TIMESTAMPTZ": "time", "DATE": "date",
}  # fmt: skip
_HEAD = """# Tables

`make docs` writes this page. Times are UTC. `?` = may be NULL: ESI did not send the field. 0 and 0.0 are values. Every id is
a BIGINT. Reading is safe at any time; writing to these tables is not.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(_section, MODELS)])


def _section(model: Any) -> str:
    words, key = [" ".join(inspect.getdoc(model).split())], model.key()
    if len(key) > 1:
        words.append(f"Key: ({', '.join(key)}).")
    lines = [f"| {name}{'?' if one.null else ''} | {KINDS_OF[one.field_type]} |" for name, one in model._meta.fields.items()]
    return "\n".join([f"## {model._meta.table_name}", "", *words, "", "| column | type |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
