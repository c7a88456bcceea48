"""What an answer owns: equal rows stay untouched, others are written, and what is gone ends by its entity's word."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import BigIntegerField, CompositeKey, DoubleField, TextField

from esid.store import owned
from esid.store.connection import Store
from esid.store.model import DELETED, EMPTIED, KEPT, Owned, StampedTable, UtcField
from tests.tools import mirror

NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(hours=1)


class Offer(StampedTable):
    """A table with a key of two columns, one of them a time."""

    store_id = BigIntegerField()
    offered_at = UtcField()
    name = TextField(null=True)
    price = DoubleField(null=True)
    gone_at = UtcField(null=True)

    class Meta:
        table_name = "offers"
        primary_key = CompositeKey("store_id", "offered_at")


COLUMNS = ("store_id", "offered_at", "name", "price")


@pytest.fixture
def offers(store: Store) -> Store:
    """A database with that table."""
    sql = (
        "CREATE TABLE offers (store_id BIGINT NOT NULL, offered_at TIMESTAMPTZ NOT NULL, name TEXT, "
        "price DOUBLE PRECISION, gone_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL, "
        "PRIMARY KEY (store_id, offered_at))"
    )
    store.run(lambda: store.rows(sql))
    return store


def row(store_id: int, hour: int, name: str | None = "n", price: float | None = 1.5) -> tuple[Any, ...]:
    """One offer."""
    return (store_id, NOW + dt.timedelta(hours=hour), name, price)


def write(store: Store, *rows: tuple[Any, ...], of: str = "", scopes: tuple[Any, ...] = (), **more: Any) -> set[Any]:
    """Replace what is there in a transaction of its own."""
    now = more.pop("now", NOW)
    copied = more.pop("copied", False)
    return store.run(lambda: owned.replace(store, Owned(Offer, COLUMNS, rows, of, scopes, **more), now, copied=copied))


def there(store: Store) -> list[tuple[Any, ...]]:
    """All rows, without their times of writing."""
    names = (*COLUMNS, "gone_at")
    return sorted(tuple(one[name] for name in names) for one in mirror.table(store, Offer).values())


def stamps(store: Store) -> dict[Any, tuple[dt.datetime, dt.datetime]]:
    """Key -> when the row came, and when it changed last."""
    with store.connection():
        rows = list(Offer.select().dicts())
    return {(one["store_id"], one["offered_at"]): (one["created_at"], one["updated_at"]) for one in rows}


def test_the_rows_are_those_of_the_answer_and_equal_ones_stay_untouched(offers: Store) -> None:
    # Given three rows
    assert write(offers, row(1, 0), row(1, 1), row(2, 0)) == {None}
    # When one stays, one changes, one is gone and one is new
    assert write(offers, row(2, 5), row(1, 0), row(1, 1, "other"), now=LATER) == {None}
    # Then the table is the answer
    assert there(offers) == sorted((*one, None) for one in (row(1, 0), row(1, 1, "other"), row(2, 5)))
    assert stamps(offers) == {
        row(1, 0)[:2]: (NOW, NOW),
        row(1, 1)[:2]: (NOW, LATER),
        row(2, 5)[:2]: (LATER, LATER),
    }
    # And the same again changes nothing
    assert write(offers, row(1, 0), row(1, 1, "other"), row(2, 5), now=LATER) == set()


@pytest.mark.parametrize("copied", [False, True])
def test_scopes_are_told_apart_and_others_are_left_alone(offers: Store, copied: bool) -> None:
    write(offers, row(1, 0), row(2, 0), row(3, 0), row(9, 0))
    changed = write(offers, row(1, 0), row(2, 1), row(4, 0), of="store_id", scopes=(1, 2, 3, 4, 5), copied=copied)
    assert changed == {2, 3, 4}
    assert [one[:2] for one in there(offers)] == [one[:2] for one in (row(1, 0), row(2, 1), row(4, 0), row(9, 0))]


def test_what_is_gone_is_noted_with_the_time_and_returns(offers: Store) -> None:
    write(offers, row(1, 0), row(1, 1), gone="gone_at", at=NOW)
    # When a row is gone, twice
    assert write(offers, row(1, 0), gone="gone_at", at=LATER, now=LATER) == {None}
    assert write(offers, row(1, 0), gone="gone_at", at=LATER + dt.timedelta(hours=1)) == set()
    # Then the first time stands
    assert [one[-1] for one in there(offers)] == [None, LATER]
    assert stamps(offers)[row(1, 1)[:2]] == (NOW, LATER)
    # And it is as before when it comes back
    assert write(offers, row(1, 0), row(1, 1), gone="gone_at", at=LATER) == {None}
    assert [one[-1] for one in there(offers)] == [None, None]


def test_what_has_moved_to_another_scope_meanwhile_is_not_gone(offers: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a row that somebody moves between the look at it and its end
    write(offers, row(1, 0, "here"), of="name", scopes=("here",))
    end = owned._end

    def move(*arguments: Any) -> None:
        offers.rows("UPDATE offers SET name = 'there'")
        end(*arguments)

    monkeypatch.setattr(owned, "_end", move)
    write(offers, of="name", scopes=("here",))
    assert [one[2] for one in there(offers)] == ["there"]


def test_what_is_gone_already_is_not_read_again(offers: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(offers, *(row(1, hour) for hour in range(100)), gone="gone_at", at=NOW)
    write(offers, row(1, 0), gone="gone_at", at=NOW)
    found = list[int]()
    rows = offers.rows
    monkeypatch.setattr(offers, "rows", lambda *asked: (answer := rows(*asked), found.append(len(answer)))[0])
    write(offers, row(1, 0), gone="gone_at", at=NOW)
    assert max(found) == 1


def test_what_cannot_be_gone_stays_without_values(offers: Store) -> None:
    write(offers, row(1, 0), row(1, 1))
    assert write(offers, row(1, 0), gone=EMPTIED) == {None}
    assert there(offers) == [(*row(1, 0), None), (*row(1, 1, None, None), None)]
    assert write(offers, row(1, 0), gone=EMPTIED) == set()


def test_what_is_kept_stays(offers: Store) -> None:
    write(offers, row(1, 0), row(1, 1))
    assert write(offers, row(1, 2), gone=KEPT) == {None}
    assert len(there(offers)) == 3


def test_a_scope_may_be_a_time(offers: Store) -> None:
    write(offers, row(1, 0), row(2, 0), row(1, 1))
    at = NOW
    assert write(offers, row(2, 0), row(3, 0), of="offered_at", scopes=(at,)) == {owned.plain(at)}
    assert [one[:2] for one in there(offers)] == [row(1, 1)[:2], row(2, 0)[:2], row(3, 0)[:2]]


def test_of_several_answers_those_are_told_whose_rows_have_changed(offers: Store) -> None:
    def answers(*rows: tuple[Any, ...]) -> list[tuple[int, Owned]]:
        return [
            (key, Owned(Offer, COLUMNS, [one for one in rows if one[0] == key], "store_id", (key,), DELETED))
            for key in (1, 2, 3)
        ]

    first = answers(row(1, 0), row(2, 0))
    assert offers.run(lambda: owned.write(offers, first, NOW)) == {1, 2}
    second = answers(row(1, 0), row(2, 0, "other"), row(3, 0))
    assert offers.run(lambda: owned.write(offers, second, NOW)) == {2, 3}


def test_answers_of_one_message_cost_as_many_statements_as_one(offers: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    rows = offers.rows
    monkeypatch.setattr(offers, "rows", lambda sql, *values: asked.append(sql) or rows(sql, *values))
    for count in (1, 20):
        parts = [(key, Owned(Offer, COLUMNS, [row(key, count)], "store_id", (key,))) for key in range(1, count + 1)]
        offers.run(lambda parts=parts: owned.write(offers, parts, NOW))
        assert len(asked) <= 3, asked
        asked.clear()


PRICES = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32)
SETS = st.dictionaries(
    st.tuples(st.integers(1, 3), st.integers(0, 8)), st.tuples(st.none() | st.text("ab", max_size=2), PRICES)
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(SETS, min_size=1, max_size=5), page=st.integers(1, 4))
def test_whatever_was_there_the_table_is_the_last_answer(
    offers: Store, monkeypatch: pytest.MonkeyPatch, answers: list[dict[tuple[int, int], tuple[Any, Any]]], page: int
) -> None:
    monkeypatch.setattr(owned, "PAGE", page)
    for answer in answers:
        rows = [row(*key, *values) for key, values in answer.items()]
        write(offers, *rows)
        assert there(offers) == sorted((*one, None) for one in rows)
    assert write(offers, *rows) == set()
