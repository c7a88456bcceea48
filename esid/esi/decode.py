"""Reads answers field by field. A wrong type names entity, field and value; nothing is guessed or converted.

Ids are checked here and nowhere below: positive integers below 2^63.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

from esid.errors import BadBody, BadField

#: NUL and lone surrogates, which no database keeps.
_NOT_KEPT = re.compile("[\0\ud800-\udfff]")
#: The first integer that no BIGINT holds.
TOO_BIG = 2**63


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


def check_id(value: object, entity: str, field: str = "id") -> int:
    """The id, if it is one.

    Raises:
        BadField: not an integer from 1 to 2^63 - 1 (True and 1.0 are none).
    """
    if type(value) is not int or not 0 < value < TOO_BIG:
        raise BadField(entity, field, value)
    return value


def id_list(value: object, entity: str) -> list[int]:
    """A list of ids, in order, each once.

    Raises:
        BadField: not a list, or one of its members is no id.
    """
    if not isinstance(value, list):
        raise BadField(entity, "(body)", value)
    return list(dict.fromkeys(check_id(member, entity, "(member)") for member in value))


class Fields:
    """The fields of one object of an answer.

    Each reader takes the field's name; a field that is absent or null is None where `optional`, else a `BadField`.

    Args:
        entity: what the object is, for error messages, like `corporation 98000001`.
    """

    def __init__(self, entity: str, value: object) -> None:
        if not isinstance(value, dict):
            raise BadField(entity, "(body)", value)
        self._entity = entity
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

    def id(self, name: str, *, optional: bool = False) -> Any:
        """An id."""
        value = self._get(name, optional)
        return None if value is None else check_id(value, self._entity, name)

    def integer(self, name: str, *, optional: bool = False) -> Any:
        """An integer that fits BIGINT; 0 is a value."""
        value = self._get(name, optional)
        if value is not None and (type(value) is not int or not -TOO_BIG <= value < TOO_BIG):
            raise BadField(self._entity, name, value)
        return value

    def number(self, name: str, *, optional: bool = False) -> Any:
        """A float; 0.0 is a value."""
        value = self._get(name, optional)
        if value is None:
            return None
        if type(value) not in (int, float) or not -1e300 < value < 1e300:
            raise BadField(self._entity, name, value)
        return float(value)

    def text(self, name: str, *, optional: bool = False) -> Any:
        """A text that both databases can keep: no NUL, no lone surrogate; "" is a value."""
        value = self._get(name, optional)
        if value is None:
            return None
        if not isinstance(value, str) or _NOT_KEPT.search(value):
            raise BadField(self._entity, name, value)
        return value

    def flag(self, name: str, *, optional: bool = False) -> Any:
        """True or False."""
        value = self._get(name, optional)
        if value is not None and not isinstance(value, bool):
            raise BadField(self._entity, name, value)
        return value

    def time(self, name: str, *, optional: bool = False) -> Any:
        """An aware UTC time from RFC 3339 text."""
        value = self._get(name, optional)
        if value is None:
            return None
        try:
            time = dt.datetime.fromisoformat(value)
            return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
        except (TypeError, ValueError, OverflowError):
            raise BadField(self._entity, name, value) from None

    def object(self, name: str, *, optional: bool = False) -> Any:
        """A nested object, as `Fields`."""
        value = self._get(name, optional)
        return None if value is None else Fields(f"{self._entity} {name}", value)

    def objects(self, name: str, *, optional: bool = False) -> Iterator[Fields]:
        """The objects of a list, as `Fields`; none where an optional list is absent."""
        value = self._get(name, optional)
        if value is None:
            return
        if not isinstance(value, list):
            raise BadField(self._entity, name, value)
        for place, member in enumerate(value):
            yield Fields(f"{self._entity} {name}[{place}]", member)

    def _get(self, name: str, optional: bool) -> Any:
        value = self._values.get(name)
        if value is None and not optional:
            raise BadField(self._entity, name, value)
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
