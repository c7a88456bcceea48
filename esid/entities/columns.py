"""Columns that read themselves: a table says where each of its values stands in ESI's answer, and of what kind it is.

`Reader` makes rows of that. The names that ESI uses are the default; whatever is odd about a value is a function in the
page of its entity (`read=`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from peewee import BigIntegerField, BooleanField, DoubleField, Field, TextField

from esid.entities.ids import asked_from
from esid.esi.decode import TOO_BIG, WRONG, Fields, as_flag, as_id, as_integer, as_number, as_text, as_time
from esid.store.model import Seen, Table, UtcField


class Column(Field):
    """What a Peewee field must know to read its value from an answer. An absent field and a null are NULL.

    Args:
        of: the field's name in the answer, where it is another one than the column's; `a.b` is field b of the object a.
            Of several names the first that is in the answer counts.
        to: the entity that the id names: it becomes known, and is asked.
        asked: False = it becomes known alone.
        needed: the answer must have it. The default: wherever the column must not be NULL.
        read: makes the value of the whole object; `of` says then which fields it reads.
    """

    kind: Callable[[Any], Any]

    def __init__(
        self,
        *,
        of: str | tuple[str, ...] = (),
        to: str = "",
        asked: bool = True,
        needed: bool = False,
        read: Callable[[Fields], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.to, self.is_asked, self.read, self.is_needed = to, asked, read, needed or not self.null
        self._of = (of,) if isinstance(of, str) else of

    @property
    def of(self) -> tuple[str, ...]:
        """Where it stands in the answer."""
        return self._of or (self.name,)

    def find(self, fields: Fields) -> Any:
        """The value. Raises BadField."""
        if self.read:
            return self.read(fields)
        for path in self.of:
            if fields.has(path.partition(".")[0]):
                break
        *objects, name = path.split(".")
        inner: Fields | None = fields
        for one in objects:
            if inner is not None:
                inner = inner.object(one, optional=not self.is_needed)
        return inner and inner.read(self.kind, name, optional=not self.is_needed)


class Id(Column, BigIntegerField):
    """An id: a whole number from 1.

    Args:
        first: the smallest one, where it is another.
    """

    def __init__(self, *, first: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.first = first
        self.kind = as_id if first == 1 else partial(as_id, first=first)


class Integer(Column, BigIntegerField):
    """A whole number."""

    kind = staticmethod(as_integer)


class Number(Column, DoubleField):
    """A number."""

    kind = staticmethod(as_number)


class Text(Column, TextField):
    """A text."""

    kind = staticmethod(as_text)


class Flag(Column, BooleanField):
    """True or false."""

    kind = staticmethod(as_flag)


class Time(Column, UtcField):
    """A time."""

    kind = staticmethod(as_time)


class Reader:
    """Reads the columns of one table that read themselves.

    Args:
        only, but: the names of columns, where it is not all of them.
        key: the column that holds what was asked for; "" = none.
        unused: fields of the answer that are known, and that no column holds.

    Attributes:
        known: fields of the answer that are known.
        names: the columns, in the order of the values.
    """

    def __init__(
        self,
        table: type[Table],
        only: Collection[str] = (),
        but: Collection[str] = (),
        key: str = "id",
        unused: Iterable[str] = (),
    ) -> None:
        columns: list[Column] = [one for one in table._meta.sorted_fields if isinstance(one, Column)]
        columns = [one for one in columns if one.name not in (key, *but) and (not only or one.name in only)]
        self.known = frozenset(unused).union(path.partition(".")[0] for one in columns for path in one.of)
        self.names = (*filter(None, (key,)), *(one.name for one in columns))
        self._columns, self._values = columns, _compiled(columns, key)
        self._ids = [(one.name, one.to, asked_from(one.to) if one.is_asked else TOO_BIG) for one in columns if one.to]

    def values(self, fields: Fields, key: int = 0) -> dict[str, Any]:
        """The row of what was asked for: column -> value. Raises BadField."""
        try:
            return self._values(key, fields, fields.value)
        except WRONG:
            for one in self._columns:
                one.find(fields)  # says which
            raise

    @property
    def names_ids(self) -> bool:
        """Whether an id in its values may become known."""
        return bool(self._ids)

    def seen(self, values: dict[str, Any]) -> list[Seen]:
        """The ids in these values that become known."""
        return [Seen(to, key, asked=key >= first) for column, to, first in self._ids if (key := values[column]) is not None]


def _compiled(columns: Sequence[Column], key: str) -> Callable[[int, Fields, dict[str, Any]], dict[str, Any]]:
    """What `find` finds in each column, as one expression: thousands of answers a minute are read by it."""
    names: dict[str, Any] = {}
    parts = [f"{key!r}: key"] if key else []
    for place, one in enumerate(columns):
        *others, name = one.of
        where = "".join(f"{other!r} if {other!r} in answer else " for other in others) + repr(name)
        is_odd = one.read or "." in "".join(one.of)
        names[f"_{place}"] = one.find if is_odd else one.kind
        if is_odd:
            value = f"_{place}(fields)"
        elif one.is_needed:
            value = f"_{place}(answer.get({where}))"
        else:
            value = f"None if (value := answer.get({where})) is None else _{place}(value)"
        parts.append(f"{one.name!r}: {value}")
    exec(f"def values(key, fields, answer): return {{{', '.join(parts)}}}", names)  # noqa: S102
    values: Callable[[int, Fields, dict[str, Any]], dict[str, Any]] = names["values"]
    return values
