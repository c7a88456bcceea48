"""The plain pages: each of their columns reads its field, and what a column cannot be is refused by its name.

All follows from the columns and from one body of each entity (`tests/fake_esi/bodies`): a new page needs no test of its own.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from peewee import BigIntegerField, BooleanField, DoubleField, TextField

from esid.entities import BY_NAME, ENTITIES
from esid.entities.base import LIST_ID, Edges, Failed
from esid.entities.columns import Column, Id
from esid.errors import EsiError
from esid.esi.answers import Answer
from esid.store.model import Job, UtcField
from tests.fake_esi import fixtures

AT = dt.datetime(2026, 9, 27, 22, 0, tzinfo=dt.UTC)
#: Their pages have code of their own, and tests of it: `test_entities`.
ODD = {"character", "killmail"}
PLAIN = [entity.name for entity in ENTITIES if entity.tables and entity.name not in ODD]
#: Type of a column -> values that it never has, null among them.
WRONG: list[tuple[Any, list[Any]]] = [
    (Id, [1.5, True, "7", -1, 2**63, [], {}]),
    (BigIntegerField, [1.5, True, "7", 2**63, [], {}]),
    (DoubleField, [True, "1", 1e301, [], {}]),
    (TextField, [1, True, "a\0", "\ud800", [], {}]),
    (BooleanField, [0, "true", [], {}]),
    (UtcField, [1, "yesterday", True, [], {}]),
]


@dataclass
class OneAnswer:
    """An ESI that gives this body."""

    body: Any

    def get(self, _: Any, *, read: Callable[[Answer], Any], **__: Any) -> Any:
        """What is read of it."""
        headers = {"Last-Modified": "Sun, 27 Sep 2026 22:00:00 GMT"}
        return read(Answer(copy.deepcopy(self.body), True, '"e"', AT, AT + dt.timedelta(hours=1), headers))


@dataclass
class Written:
    """What a body has led to: the values of its rows, by table, and the fields that nobody knows."""

    rows: dict[Any, list[dict[str, Any]]]
    unknown: tuple[str, ...]


def read(name: str, body: Any) -> Written:
    """What the page makes of a body. Raises EsiError."""
    entity, esi = BY_NAME[name], OneAnswer(body)
    client: Any = esi
    job = Job(name, fixtures.BY_NAME[name].id if fixtures.BY_NAME[name].id is not None else LIST_ID)
    (result,) = entity.sync(entity, [job], Edges(client, lambda *_: set(), lambda *_: None))
    if isinstance(result, Failed):
        raise result.error
    rows: dict[Any, list[dict[str, Any]]] = {}
    for row in result.rows:
        rows.setdefault(row.model, []).append(row.values)
    for owned in result.owned:
        rows.setdefault(owned.table, []).extend(dict(zip(owned.columns, row, strict=True)) for row in owned.rows)
    return Written(rows, result.unknown)


def member(body: Any) -> Any:
    """The object that a row is made of: the body, or the first member of a list."""
    return body[0] if isinstance(body, list) else body


def columns() -> list[Any]:
    """Each column that is a field of a body as it stands there."""
    found = []
    for name in PLAIN:
        body = member(fixtures.BY_NAME[name].body) if name in fixtures.BY_NAME else {}
        for one in BY_NAME[name].tables[0]._meta.sorted_fields:
            if isinstance(one, Column) and one.of[0] in body and not one.read:
                found.append(pytest.param(name, one, id=f"{name}.{one.name}"))
    return found


def changed(name: str, field: str, *value: Any) -> Any:
    """The body with another value in a field of its object, or without it."""
    body = copy.deepcopy(fixtures.BY_NAME[name].body)
    member(body).pop(field)
    if value:
        member(body)[field] = value[0]
    return body


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_page_has_a_body_of_which_it_knows_each_field(name: str) -> None:
    assert name in fixtures.BY_NAME, f"write tests/fake_esi/bodies/{name}.json"
    written = read(name, fixtures.BY_NAME[name].body)
    assert written.unknown == ()
    assert list(written.rows) == list(BY_NAME[name].tables), "the body fills each of its tables"


@pytest.mark.parametrize("name", PLAIN)
def test_the_body_fills_every_column_that_reads_itself(name: str) -> None:
    rows = read(name, fixtures.BY_NAME[name].body).rows
    empty = {
        (table.__name__, column.name)
        for table, found in rows.items()
        for column in table._meta.sorted_fields
        if isinstance(column, Column) and all(row[column.name] is None for row in found)
    }
    assert not empty


@pytest.mark.parametrize("name", PLAIN)
def test_a_new_field_is_named_and_ignored(name: str) -> None:
    body = copy.deepcopy(fixtures.BY_NAME[name].body)
    before = read(name, body)
    member(body)["new_field"] = {"a": [1]}
    after = read(name, body)
    assert (after.unknown, after.rows) == (("new_field",), before.rows)


@pytest.mark.parametrize(("name", "column"), columns())
def test_a_field_is_its_column(name: str, column: Any) -> None:
    value = member(fixtures.BY_NAME[name].body)[column.of[0]]
    row = read(name, fixtures.BY_NAME[name].body).rows[BY_NAME[name].tables[0]][0]
    wanted = dt.datetime.fromisoformat(value) if isinstance(column, UtcField) else value
    assert row[column.name] == wanted


@pytest.mark.parametrize(("name", "column"), columns())
@pytest.mark.parametrize("value", [(), (None,)], ids=["absent", "null"])
def test_a_field_that_is_missing_is_null_or_refused_by_name(name: str, column: Any, value: tuple[Any, ...]) -> None:
    body = changed(name, column.of[0], *value)
    if column.is_needed:
        with pytest.raises(EsiError, match=column.of[-1]):
            read(name, body)
    else:
        assert read(name, body).rows[BY_NAME[name].tables[0]][0][column.name] is None


@pytest.mark.parametrize(("name", "column"), columns())
def test_a_value_of_another_kind_is_refused_by_name(name: str, column: Any) -> None:
    wrong = next(values for kind, values in WRONG if isinstance(column, kind))
    if isinstance(column, Id):
        wrong = [*wrong, column.first - 1]
    for value in wrong:
        with pytest.raises(EsiError, match=column.of[0]):
            read(name, changed(name, column.of[0], value))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("body", [None, "x", 7, True, [None], [[]]], ids=repr)
def test_a_body_of_another_shape_is_refused(name: str, body: Any) -> None:
    with pytest.raises(EsiError):
        read(name, body)
