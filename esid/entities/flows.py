"""The flows that most entities share: each makes an `Entity` of what its page says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from esid.entities.base import Entity, done
from esid.entities.columns import Reader
from esid.entities.ids import seen
from esid.esi.decode import Fields, id_list
from esid.esi.routes import Route
from esid.store.model import Done, Job, Row, Seen, Table

if TYPE_CHECKING:
    from esid.esi.answers import Answer


def each(
    name: str, route: Route, table: type[Table], unused: Iterable[str] = (), lists: Sequence[str] = (), lane: str = ""
) -> Entity:
    """An id is a row.

    Args:
        lane: on which its work goes (see `catalogue`); "" = its own, of its name.
        unused: fields of the answer that no column holds, though they are known.
        lists: entities with one list for each id of this one: it becomes known.
    """
    return Entity(name, lane or name, route, partial(_row, table, Reader(table, unused=unused), lists), (table,))


def listing(name: str, lane: str, route: Route, of: str, most: int) -> Entity:
    """A URL is a list of ids, which become known.

    Args:
        lane: on which its work goes.
        of: the entity whose ids they are.
        most: how many are believed at the first look.
    """
    parse: Callable[[Job, Answer], Done] = partial(_ids, of)
    return Entity(name, lane, route, parse, most=most)


def _row(table: type[Table], reader: Reader, lists: Sequence[str], job: Job, answer: Answer) -> Done:
    fields = Fields(f"{job.entity} {job.id}", answer.body)
    values = reader.values(fields, job.id)
    known = [*(Seen(name, job.id) for name in lists), *reader.seen(values)]
    return done(job, answer, [Row(table, values)], known, fields.unknown(reader.known))


def _ids(of: str, job: Job, answer: Answer) -> Done:
    known = [one for key in id_list(answer.body, job.entity) for one in seen(of, key)]
    return replace(done(job, answer, seen=known), changed=answer.etag is None or answer.etag != job.etag)
