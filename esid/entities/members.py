"""Lists of objects, read as rows of one table or several."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esid.entities.columns import Reader
from esid.errors import BadField
from esid.esi.decode import Fields
from esid.store.model import DELETED, EMPTIED, Job, Owned, Seen, Table

if TYPE_CHECKING:
    from esid.esi.answers import Answer


@dataclass(frozen=True, slots=True)
class Part:
    """A table that members of a list fill.

    Attributes:
        split: the objects of a member that are a row each; None = the member itself is one.
        gone: what becomes of rows that vanish, see `Owned`.
    """

    table: type[Table]
    split: Callable[[Fields], Iterable[Fields]] | None = None
    gone: str = DELETED

    @property
    def keys(self) -> set[str]:
        """The columns that have a value in each row, whatever becomes of it."""
        return {*self.table.key(), "created_at", "updated_at"}


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer held: rows for each part, and fields that nobody here knows."""

    rows: tuple[Sequence[tuple[Any, ...]], ...]
    unknown: frozenset[str]


class Members:
    """Reads the members of lists.

    Args:
        of: the column of each part that says whose rows they are; "" = the answer has all that there are.
        unused: fields of a member that no column holds, though they are known.
    """

    def __init__(self, parts: Sequence[Part], of: str, unused: Iterable[str] = ()) -> None:
        for part in parts:
            if part.gone == EMPTIED and any(
                not one.null for one in part.table._meta.sorted_fields if one.name not in part.keys
            ):
                raise ValueError(f"{part.table.__name__}: what cannot be gone has no column that must have a value")
        self._of = of
        self._parts = [(part, Reader(part.table, key=of)) for part in parts]
        self._known = frozenset(unused).union(*(reader.known for _, reader in self._parts))

    def page(self, job: Job, answer: Answer, scope: Any) -> Page:
        """One answer. Raises BadField."""
        if not isinstance(answer.body, list):
            raise BadField(f"{job.entity} {job.id}", "(body)", answer.body)
        rows: list[list[tuple[Any, ...]]] = [[] for _ in self._parts]
        unknown = set[str]()
        for place, body in enumerate(answer.body):
            member = Fields(f"{job.entity} {job.id}[{place}]", body)
            unknown.update(member.unknown(self._known))
            for some, (part, reader) in zip(rows, self._parts, strict=True):
                for fields in part.split(member) if part.split else (member,):
                    some.append(tuple(reader.values(fields, scope).values()))
                    if part.split:
                        unknown.update(fields.unknown(reader.known))
        return Page(tuple(rows), frozenset(unknown))

    def owned(self, job: Job, pages: Sequence[Page], scope: Any, at: dt.datetime) -> tuple[Owned, ...]:
        """The rows of all pages, each key once.

        Raises:
            BadField: two of them have one key and differ.
        """
        found = []
        for place, (part, reader) in enumerate(self._parts):
            rows = _once(job, part.table, reader.names, (row for page in pages for row in page.rows[place]))
            scopes = (scope,) if self._of else ()
            found.append(Owned(part.table, reader.names, rows, self._of, scopes, part.gone, at))
        return tuple(found)

    def seen(self, owned: Sequence[Owned]) -> tuple[Seen, ...]:
        """The ids in these rows that become known, each once."""
        found = dict[Seen, None]()
        for (_, reader), part in zip(self._parts, owned, strict=True):
            if reader.names_ids:
                for row in part.rows:
                    found.update(dict.fromkeys(reader.seen(dict(zip(reader.names, row, strict=True)))))
        return tuple(found)


def _once(job: Job, table: type[Table], names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    key_of = [names.index(name) for name in table.key()]
    found = dict[tuple[Any, ...], tuple[Any, ...]]()
    for row in rows:
        key = tuple(row[place] for place in key_of)
        if found.setdefault(key, row) != row:
            raise BadField(f"{job.entity} {job.id}", ", ".join(table.key()), f"{key} twice, with different values")
    return list(found.values())
