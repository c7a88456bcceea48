"""Columns that read themselves: names, paths, needs and kinds; what is read fast is what `find` finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esid.entities import MIRRORED
from esid.entities.columns import Column, Flag, Id, Integer, Number, Reader, Text, Time
from esid.errors import BadField
from esid.esi.decode import Fields
from esid.store.model import EntityTable, Seen


class Thing(EntityTable):
    """One of everything."""

    name = Text()
    size = Integer(of="new_size")
    owner_id = Id(to="corporation", null=True)
    share = Number(of="rates.isk", null=True)
    part = Number(of="rates.inner.part", null=True)
    title = Text(of=("new_title", "title"), null=True)
    is_open = Flag(null=True, needed=True)
    since = Time(null=True)
    twice = Integer(of="half", read=lambda fields: fields.integer("half") * 2)


BODY: dict[str, Any] = {"name": "n", "new_size": 0, "is_open": False, "half": 2}
READER = Reader(Thing, unused=("palette",))


def read(**body: Any) -> dict[str, Any]:
    """The values of a body."""
    return READER.values(Fields("thing 7", BODY | body), 7)


def refusal(**body: Any) -> str:
    """What is said of a body."""
    with pytest.raises(BadField) as raised:
        read(**body)
    return str(raised.value)


def test_absent_fields_are_null_and_zero_is_a_value() -> None:
    assert read() == {
        "id": 7, "name": "n", "size": 0, "owner_id": None, "share": None, "part": None, "title": None, "is_open": False,
        "since": None, "twice": 4,
    }  # fmt: skip


def test_a_path_leads_into_objects_and_ends_where_one_is_absent() -> None:
    values = read(rates={"isk": 5, "inner": {"part": 0.5}})
    assert (values["share"], values["part"]) == (5.0, 0.5)
    assert (read(rates=None)["part"], read(rates={"inner": None})["part"]) == (None, None)


def test_of_several_names_the_first_that_is_there_counts_even_as_null() -> None:
    assert read(title="old")["title"] == "old"
    assert read(title="old", new_title="new")["title"] == "new"
    assert read(title="old", new_title=None)["title"] is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": None}, "thing 7: field 'name' has the value None"),
        ({"new_size": "1"}, "thing 7: field 'new_size' has the value '1'"),
        ({"is_open": None}, "thing 7: field 'is_open' has the value None"),
        ({"owner_id": 0}, "thing 7: field 'owner_id' has the value 0"),
        ({"owner_id": True}, "thing 7: field 'owner_id' has the value True"),
        ({"rates": 5}, "thing 7 rates: field '(body)' has the value 5"),
        ({"rates": {"isk": "5"}}, "thing 7 rates: field 'isk' has the value '5'"),
        ({"rates": {"inner": {"part": True}}}, "thing 7 rates inner: field 'part' has the value True"),
        ({"new_title": 1, "title": "old"}, "thing 7: field 'new_title' has the value 1"),
        ({"since": "soon"}, "thing 7: field 'since' has the value 'soon'"),
        ({"half": "x"}, "thing 7: field 'half' has the value 'x'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_place(body: dict[str, Any], words: str) -> None:
    assert refusal(**body) == words


def test_known_are_the_names_in_the_answer_and_no_other() -> None:
    assert READER.known == {
        "name", "new_size", "owner_id", "rates", "new_title", "title", "is_open", "since", "half", "palette"
    }  # fmt: skip


def test_an_id_with_an_entity_becomes_known_where_there_is_one() -> None:
    assert READER.seen(read()) == []
    assert READER.seen(read(owner_id=98000001)) == [Seen("corporation", 98000001)]
    assert READER.seen(read(owner_id=1)) == [Seen("corporation", 1, asked=False)]


def test_a_reader_of_some_columns_reads_no_other() -> None:
    assert Reader(Thing, only=("name",)).values(Fields("thing 7", {"name": "n"}), 7) == {"id": 7, "name": "n"}
    assert "name" not in Reader(Thing, but=("name",)).values(Fields("thing 7", BODY), 7)


TABLES = [
    entity.tables[0] for entity in MIRRORED if any(isinstance(one, Column) for one in entity.tables[0]._meta.sorted_fields)
]
ODDEST = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.just({"isk": 5.6})


@pytest.mark.heavy
@pytest.mark.parametrize("table", [*TABLES, Thing], ids=lambda table: table.__name__)
@given(data=st.data())
def test_the_fast_way_reads_what_each_column_finds(table: Any, data: st.DataObject) -> None:
    reader = Reader(table)
    body = data.draw(st.dictionaries(st.sampled_from(sorted(reader.known)), ODDEST))
    fields, columns = Fields("x", body), [one for one in table._meta.sorted_fields if isinstance(one, Column)]
    try:
        wanted = {"id": 1} | {one.name: one.find(fields) for one in columns}
    except BadField:
        with pytest.raises(BadField):
            reader.values(fields, 1)
    else:
        assert reader.values(fields, 1) == wanted
