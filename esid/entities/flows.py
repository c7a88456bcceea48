"""The flows that most entities share: each makes an `Entity` of what its page says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from esid import log
from esid.entities.base import Edges, Entity, asked_for, check_length, done, sync_each
from esid.entities.columns import Reader
from esid.entities.ids import seen
from esid.entities.members import Members, Part
from esid.esi.decode import Fields, id_list
from esid.esi.routes import Route
from esid.store.model import KEPT, Done, Job, Row, Seen, Table

if TYPE_CHECKING:
    from esid.esi.answers import Answer

_log = log.get("entities")


def each(
    name: str, lane: str, route: Route, table: type[Table], unused: Iterable[str] = (), lists: Sequence[str] = ()
) -> Entity:
    """An id is a row.

    Args:
        lane: on which its work goes (see `catalogue`).
        unused: fields of the answer that no column holds, though they are known.
        lists: entities that are there once for each id of this one (a list, a set): it becomes known.
    """
    return Entity(name, lane, route, partial(_row, table, Reader(table, unused=unused), lists), (table,))


def history(name: str, lane: str, route: Route, table: type[Table], of: str, unused: Iterable[str] = ()) -> Entity:
    """An id has records, which are asked for once: a record that an answer names no more stays.

    Args:
        of: the column that says whose records they are; the record's own id stands in the answer.
    """
    parse = partial(_records, Members((Part(table, gone=KEPT),), of, unused))
    return Entity(name, lane, replace(route, is_lasting=True), parse, (table,))


def listing(name: str, lane: str, route: Route, of: str, most: int, first: int = 1) -> Entity:
    """A URL is a list of ids, which become known.

    Args:
        of: the entity whose ids they are.
        most: how many are believed at the first look.
        first: the smallest id that there is.
    """
    return Entity(name, lane, route, partial(_ids, of, first), most=most)


def by_max_id(name: str, lane: str, route: Route, of: str, most: int, parameter: str) -> Entity:
    """A URL is a list of the newest ids, downwards; what is older is asked for by the query `parameter`, until it meets what
    is known or there are `most`. The first list of all is not followed: what is older is for the archives. The rest as in
    `listing`."""
    ask = partial(_down, parameter, of, most)
    return Entity(name, lane, route, partial(_ids, of, 1), most=most, sync=partial(sync_each, ask=ask))


def _row(table: type[Table], reader: Reader, lists: Sequence[str], job: Job, answer: Answer) -> Done:
    fields = Fields(f"{job.entity} {job.id}", answer.body)
    values = reader.values(fields, job.id)
    known = [*(Seen(name, job.id) for name in lists), *reader.seen(values)]
    return done(job, answer, [Row(table, values)], known, fields.unknown(reader.known))


def _records(members: Members, job: Job, answer: Answer) -> Done:
    page = members.page(job, answer, job.id)
    owned = members.owned(job, [page], job.id, answer.checked_at)
    outcome = done(job, answer, (), members.seen(owned), sorted(page.unknown))
    return replace(outcome, owned=owned, expires_at=None)


def _ids(of: str, first: int, job: Job, answer: Answer) -> Done:
    known = [one for key in id_list(answer.body, job.entity, first) for one in seen(of, key)]
    return replace(done(job, answer, seen=known), changed=answer.etag is None or answer.etag != job.etag)


def _down(parameter: str, of: str, most: int, entity: Entity, job: Job, edges: Edges) -> Done:
    def read(answer: Answer) -> Done:
        return entity.parse(job, answer) if answer.is_new else replace(done(job, answer), etag=job.etag)

    get: Callable[..., Done] = partial(edges.client.get, entity.route, **asked_for(entity, job, edges), read=read)
    first = get()
    check_length(entity, job, len(first.seen), edges)
    found, newest, lowest = list(first.seen), edges.largest(of), _lowest(first)
    while newest is not None and lowest is not None and newest < lowest:
        if len(found) >= most:
            words = f"more than {most:,} are new; those between {newest:,} and {lowest:,} are left to the archives"
            log.event(_log, "list.gap", words, level=logging.WARNING, entity=entity.name)
            break
        more = get(etag=None, query=((parameter, str(lowest)),))
        found += more.seen
        # The same ids again would go round for ever.
        lowest = below if (below := _lowest(more)) is not None and below < lowest else None
    return replace(first, seen=tuple(found))


def _lowest(one: Done) -> int | None:
    return min((seen.id for seen in one.seen), default=None)
