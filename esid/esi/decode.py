"""Reads answers field by field. A wrong type names entity, field and value; nothing is guessed or converted.

Ids are checked here and nowhere below: integers from 1 (or where the ids of an entity begin) and below 2^63.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from esid.errors import BadBody, BadField

#: NUL and lone surrogates, which no database keeps.
_not_kept = re.compile("[\0\ud800-\udfff]").search
#: The first integer that no BIGINT holds.
TOO_BIG = 2**63
#: What `as_id` to `as_time` raise at a value of another kind.
WRONG = (TypeError, ValueError, OverflowError)


def parse_json(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        BadBody: not JSON, not UTF-8, NaN or Infinity, a doubled key, nested too deep, a number too long.
    """
    try:
        return STRICT.decode(body.decode("utf-8"))
    except RecursionError:
        raise BadBody("the body is nested too deep", sample=body) from None
    except ValueError as error:
        raise BadBody(f"the body is not JSON: {str(error)[:80]}", sample=body) from None


def as_id(value: Any, first: int = 1) -> int:
    """An integer from `first` and below 2^63. True and 1.0 are none."""
    if type(value) is not int or not first <= value < TOO_BIG:
        raise ValueError
    return value


def as_integer(value: Any) -> int:
    """An integer that fits BIGINT."""
    if type(value) is not int or not -TOO_BIG <= value < TOO_BIG:
        raise ValueError
    return value


def as_number(value: Any) -> float:
    """A float; a whole number is one too."""
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        raise ValueError
    return float(value)


def as_text(value: Any) -> str:
    """A text that both databases can keep: no NUL, no lone surrogate."""
    if not isinstance(value, str) or _not_kept(value):
        raise ValueError
    return value


def as_flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def as_time(value: Any) -> dt.datetime:
    """An aware UTC time."""
    time = dt.datetime.fromisoformat(value)
    return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)


def check_id(value: object, entity: str, field: str = "id", first: int = 1) -> int:
    """The id, if it is one.

    Raises:
        BadField: see `as_id`.
    """
    try:
        return as_id(value, first)
    except WRONG:
        raise BadField(entity, field, value) from None


def id_list(value: object, entity: str, first: int = 1) -> list[int]:
    """A list of ids, in order, each once.

    Raises:
        BadField: not a list, or one of its members is no id.
    """
    if not isinstance(value, list):
        raise BadField(entity, "(body)", value)
    return list(dict.fromkeys(check_id(member, entity, "(member)", first) for member in value))


class Fields:
    """The fields of one object of an answer.

    Each reader takes the field's name; a field that is absent or null is None where `optional`, else a `BadField`.

    Args:
        entity: what the object is, for error messages, like `corporation 98000001`.
    """

    def __init__(self, entity: str, value: object) -> None:
        if not isinstance(value, dict):
            raise BadField(entity, "(body)", value)
        self.entity = entity
        self._values: dict[str, Any] = value

    @property
    def value(self) -> dict[str, Any]:
        """The object itself, unchecked."""
        return self._values

    def unknown(self, known: frozenset[str]) -> list[str]:
        """Names of fields that are not in `known`, in characters that every database keeps."""
        return [_printable(name) for name in self._values if name not in known]

    def has(self, name: str) -> bool:
        """True where the field is there, even as null."""
        return name in self._values

    def read(self, kind: Callable[[Any], Any], name: str, *, optional: bool = False) -> Any:
        """A value of this kind: one of the functions `as_id` to `as_time`."""
        value = self._values.get(name)
        if value is None and optional:
            return None
        try:
            return kind(value)
        except WRONG:
            raise BadField(self.entity, name, value) from None

    def id(self, name: str, *, optional: bool = False) -> Any:
        """An id."""
        return self.read(as_id, name, optional=optional)

    def integer(self, name: str, *, optional: bool = False) -> Any:
        """An integer that fits BIGINT; 0 is a value."""
        return self.read(as_integer, name, optional=optional)

    def number(self, name: str, *, optional: bool = False) -> Any:
        """A float; 0.0 is a value."""
        return self.read(as_number, name, optional=optional)

    def text(self, name: str, *, optional: bool = False) -> Any:
        """A text that both databases can keep; "" is a value."""
        return self.read(as_text, name, optional=optional)

    def flag(self, name: str, *, optional: bool = False) -> Any:
        """True or False."""
        return self.read(as_flag, name, optional=optional)

    def time(self, name: str, *, optional: bool = False) -> Any:
        """An aware UTC time from RFC 3339 text."""
        return self.read(as_time, name, optional=optional)

    def object(self, name: str, *, optional: bool = False) -> Any:
        """A nested object, as `Fields`."""
        value = self._get(name, optional)
        return None if value is None else Fields(f"{self.entity} {name}", value)

    def objects(self, name: str, *, optional: bool = False) -> Iterator[Fields]:
        """The objects of a list, as `Fields`; none where an optional list is absent."""
        value = self._get(name, optional)
        if value is None:
            return
        if not isinstance(value, list):
            raise BadField(self.entity, name, value)
        for place, member in enumerate(value):
            yield Fields(f"{self.entity} {name}[{place}]", member)

    def _get(self, name: str, optional: bool) -> Any:
        value = self._values.get(name)
        if value is None and not optional:
            raise BadField(self.entity, name, value)
        return value


def _printable(name: str) -> str:
    return name.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


#: The one way in which JSON from outside is read.
STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)
