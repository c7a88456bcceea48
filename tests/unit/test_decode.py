"""Decoding: what is not JSON is a `BadBody`; a field of the wrong type names entity, field and value; nothing is guessed."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esid.errors import BadBody, BadField
from esid.esi.decode import Fields, check_id, id_list, parse_json

BIG = 2**63
WRONG_IDS = [1.5, 1.0, True, False, "7", "", -1, 0, BIG, 10**30, [], [7], {}, {"id": 7}]
READERS = ["id", "integer", "number", "text", "flag", "time", "object"]


def fields(**values: object) -> Fields:
    """The fields of one answer about `thing 7`."""
    return Fields("thing 7", values)


def refusal(reader: str, value: object, *, optional: bool = False) -> str:
    """The words with which a reader refuses the value of the field `x`."""
    with pytest.raises(BadField) as caught:
        getattr(fields(x=value), reader)("x", optional=optional)
    return str(caught.value)


# -- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"NaN",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"\xef\xbb\xbf[1]",
        b"<html><body>Bad gateway</body></html>",
        b'{"a": 1',
        b'{"a": 1}{"b": 2}',
        b"{'a': 1}",
        b"[1,]",
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "\\u0061": 2}}',
        b"[" + b"1" * 5000 + b"]",
        b"-" + b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        "[1]".encode("utf-16"),
        b'"\x00"',
        b"[01]",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json_is_a_bad_body(body: bytes) -> None:
    with pytest.raises(BadBody) as caught:
        parse_json(body)
    assert caught.value.sample == body[:200]
    assert len(str(caught.value)) < 200


def test_a_bad_body_is_asked_once_more() -> None:
    assert (BadBody.reason, BadBody.max_attempts, BadField.max_attempts) == ("bad_body", 2, 1)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 0.0, "", [], {}, [{"a": {"b": [1, "ü", None, -1.5e-7]}}], 9223372036854775807, "\u2028 \0"],
    ids=repr,
)
def test_a_json_text_is_its_value(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value or "\0" in str(value)


def test_one_name_may_stand_in_two_objects() -> None:
    assert parse_json(b'[{"a": 1}, {"a": 2, "b": {"a": 3}}]') == [{"a": 1}, {"a": 2, "b": {"a": 3}}]


@pytest.mark.parametrize("margin", range(12))
def test_a_body_nested_almost_too_deep_is_still_refused_by_name(margin: int) -> None:
    """The deepest body that can be read at all, and a few less deep: showing the wrong value must not fail either."""
    depth = deepest() - margin
    with pytest.raises(BadField, match=r"thing 7: field 'x' has the value \[\[\["):
        fields(x=parse_json(b"[" * depth + b"]" * depth)).id("x")


def deepest() -> int:
    """How deep a list may be nested so that `parse_json` still reads it."""
    low, high = 1, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            parse_json(b"[" * middle + b"]" * middle)
            low = middle
        except BadBody:
            high = middle
    return low


# -- ids


@pytest.mark.parametrize("value", WRONG_IDS, ids=repr)
@pytest.mark.parametrize("optional", [False, True], ids=["needed", "optional"])
def test_what_is_no_id_is_refused_by_entity_field_and_value(value: object, optional: bool) -> None:
    assert refusal("id", value, optional=optional) == f"thing 7: field 'x' has the value {value!r}"


@pytest.mark.parametrize("value", [1, 98468592, 1_035_466_617_946, BIG - 1])
def test_an_id_is_taken_up_to_the_largest_bigint(value: int) -> None:
    assert fields(x=value).id("x") == value
    assert check_id(value, "thing") == value


@pytest.mark.parametrize("value", [*WRONG_IDS, None], ids=repr)
def test_an_id_from_outside_is_checked_the_same_way(value: object) -> None:
    with pytest.raises(BadField, match="message: field 'id' has the value"):
        check_id(value, "message")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(derandomize=True)
@given(value=JSON | st.integers(-3, 3) | st.integers(BIG - 2, BIG + 2), optional=st.booleans())
@example(value=True, optional=False)
@example(value=1.0, optional=True)
def test_an_id_field_gives_an_id_or_is_refused_whatever_stands_in_it(value: Any, optional: bool) -> None:
    is_id = type(value) is int and 0 < value < BIG
    if is_id or (value is None and optional):
        assert fields(x=value).id("x", optional=optional) is value
    else:
        assert "thing 7: field 'x'" in refusal("id", value, optional=optional)


@pytest.mark.heavy
@settings(derandomize=True)
@given(value=JSON, optional=st.booleans(), reader=st.sampled_from(READERS))
def test_every_reader_gives_its_type_or_refuses(value: Any, optional: bool, reader: str) -> None:
    types = {"id": int, "integer": int, "number": float, "text": str, "flag": bool, "time": dt.datetime, "object": Fields}
    try:
        got = getattr(fields(x=value), reader)("x", optional=optional)
    except BadField:
        return
    assert (got is None and optional and value is None) or type(got) is types[reader]


# -- lists of ids


def test_a_list_of_ids_keeps_its_order_and_each_once() -> None:
    assert id_list([5, 3, 5, 9, 3], "npccorps") == [5, 3, 9]


def test_an_empty_list_of_ids_is_a_list() -> None:
    assert id_list([], "npccorps") == []


@pytest.mark.parametrize("value", [*WRONG_IDS, None], ids=repr)
def test_a_list_with_one_member_that_is_no_id_is_refused_whole(value: object) -> None:
    with pytest.raises(BadField, match=r"npccorps: field '\(member\)'"):
        id_list([1, value, 2], "npccorps")


@pytest.mark.parametrize("value", [None, {}, {"ids": [1]}, 7, "7", True], ids=repr)
def test_what_is_no_list_of_ids_is_refused(value: object) -> None:
    with pytest.raises(BadField, match=r"npccorps: field '\(body\)'"):
        id_list(value, "npccorps")


# -- the other readers


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("integer", 0),
        ("integer", -BIG),
        ("integer", BIG - 1),
        ("number", 0.0),
        ("number", -10.0),
        ("text", ""),
        ("text", "\u2028 ünï 🚀"),
        ("flag", False),
        ("flag", True),
    ],
)
def test_nothing_that_is_a_value_is_taken_for_an_absence(reader: str, value: object) -> None:
    for optional in (False, True):
        got = getattr(fields(x=value), reader)("x", optional=optional)
        assert got == value
        assert type(got) is type(value)


def test_a_whole_number_is_a_number_too() -> None:
    got = fields(x=0).number("x")
    assert (got, type(got)) == (0.0, float)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        *[("integer", value) for value in (1.0, 0.0, "0", True, False, BIG, -BIG - 1, [], {})],
        *[("number", value) for value in ("0", True, False, math.inf, -math.inf, math.nan, 10**301, 1e300, [], {})],
        *[("text", value) for value in (0, 1.5, True, [], {}, "a\0b", "\0", "\ud800", "a\udfffb", b"bytes")],
        *[("flag", value) for value in (0, 1, "true", "", [], {})],
        *[("object", value) for value in (0, "", [], [{}], True, "{}")],
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_refused_by_name(reader: str, value: object) -> None:
    assert refusal(reader, value, optional=True).startswith("thing 7")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("values", [{}, {"x": None}, {"X": 1}], ids=["absent", "null", "another"])
def test_an_absent_and_a_null_field_are_none_where_optional_and_else_refused(reader: str, values: dict[str, Any]) -> None:
    assert getattr(fields(**values), reader)("x", optional=True) is None
    with pytest.raises(BadField, match="thing 7: field 'x' has the value None"):
        getattr(fields(**values), reader)("x")


def test_a_long_value_is_shown_in_part() -> None:
    text = refusal("id", "y" * 10_000)
    assert len(text) < 150
    assert text.endswith("...")


@pytest.mark.parametrize(
    "body", ['"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud800"'], ids=["NUL", "lone surrogate", "surrogates in the wrong order"]
)
def test_a_text_that_no_database_keeps_is_refused(body: str) -> None:
    words = refusal("text", parse_json(body.encode()))
    words.encode()
    assert "\0" not in words


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert fields(x=parse_json(b'"\\ud83d\\ude80"')).text("x") == "🚀"


# -- times


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2020-02-14T23:25:07Z", (2020, 2, 14, 23, 25, 7)),
        ("2020-02-14T23:25:07", (2020, 2, 14, 23, 25, 7)),
        ("2020-02-14T23:25:07+00:00", (2020, 2, 14, 23, 25, 7)),
        ("2020-02-14T23:25:07+02:30", (2020, 2, 14, 20, 55, 7)),
        ("2020-02-14T23:25:07-05:00", (2020, 2, 15, 4, 25, 7)),
        ("2020-02-14T23:25:07.250Z", (2020, 2, 14, 23, 25, 7, 250_000)),
        ("0001-01-01T00:00:00Z", (1, 1, 1)),
    ],
)
def test_a_time_is_aware_and_utc(text: str, wanted: tuple[int, int, int]) -> None:
    got = fields(x=text).time("x")
    assert got == dt.datetime(*wanted, tzinfo=dt.UTC)
    assert got.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize(
    "value",
    ["", "now", "2020-02-30T00:00:00Z", "2020-02-14T25:00:00Z", "2020-02-14T23:25:07+99:99", "0001-01-01T00:00:00+14:00",
     "9999-12-31T23:59:59-14:00", "14.02.2020", "Fri, 14 Feb 2020 23:25:07 GMT", 1581722707, 0, True, [], {}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_time_is_refused_by_name(value: object) -> None:
    assert refusal("time", value, optional=True) == f"thing 7: field 'x' has the value {value!r}"


# -- objects


@pytest.mark.parametrize("value", [None, [], [{}], 7, "x", True], ids=repr)
def test_a_body_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(BadField, match=r"thing 7: field '\(body\)'"):
        Fields("thing 7", value)


def test_a_nested_field_is_named_with_its_parent() -> None:
    with pytest.raises(BadField, match="killmail 5 victim: field 'ship_type_id' has the value 'x'"):
        Fields("killmail 5", {"victim": {"ship_type_id": "x"}}).object("victim").id("ship_type_id")


def test_a_field_of_a_member_is_named_with_its_place() -> None:
    members = Fields("killmail 5", {"attackers": [{"id": 1}, {"id": None}]}).objects("attackers")
    assert next(members).id("id") == 1
    with pytest.raises(BadField, match=r"killmail 5 attackers\[1\]: field 'id' has the value None"):
        next(members).id("id")


def test_an_empty_list_of_objects_is_none_of_them() -> None:
    assert list(fields(x=[]).objects("x")) == []


def test_an_absent_list_of_objects_is_none_of_them_where_optional() -> None:
    assert list(fields().objects("x", optional=True)) == []
    assert list(fields(x=None).objects("x", optional=True)) == []
    with pytest.raises(BadField):
        list(fields().objects("x"))


@pytest.mark.parametrize("value", [{}, "", 0, [None], [[]], [{}, 7]], ids=repr)
def test_a_list_that_holds_anything_but_objects_is_refused(value: object) -> None:
    with pytest.raises(BadField):
        list(fields(x=value).objects("x", optional=True))


def test_unknown_fields_are_named_in_order() -> None:
    assert fields(a=1, b=2, c=None).unknown(frozenset({"b"})) == ["a", "c"]


def test_a_null_field_is_there() -> None:
    assert [fields(x=None).has("x"), fields().has("x")] == [True, False]


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "lone surrogate"])
def test_the_name_of_an_unknown_field_can_be_kept_by_every_database(name: str) -> None:
    for one in Fields("thing 7", {name: 1}).unknown(frozenset()):
        assert "\0" not in one
        one.encode()
