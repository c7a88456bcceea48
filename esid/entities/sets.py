"""Whole sets: a URL is all rows of a table, or of one scope of it (a region's, a store's); what it names no more is gone.

A set is read whole before anything of it is written, and judged by its version, see `store.sets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from esid.entities.base import Edges, Entity, asked_for, done, sync_each
from esid.entities.members import Members, Page, Part
from esid.esi.paging import get_pages, version_of
from esid.esi.routes import Route
from esid.store.model import Done, Generation, Job

if TYPE_CHECKING:
    from esid.esi.answers import Answer


def whole_set(
    name: str,
    lane: str,
    route: Route,
    *parts: Part,
    of: str = "",
    stamp: str = "",
    least_share: float = 0.5,
    may_shrink: bool = False,
    unused: Iterable[str] = (),
) -> Entity:
    """A URL is a list of objects, which are all that there are.

    Args:
        parts: the tables that it fills, its own first.
        of: of a set that is there once for each id of another entity, the column that holds that id.
        stamp: of a set of which each version stays, the column that holds the version's time.
        least_share, may_shrink: how far an answer is believed that names less than the one before, see `Generation`.
        unused: fields of a member that no column holds, though they are known.
    """
    shape = _Shape(Members(parts, of or stamp, unused), bool(stamp), least_share, may_shrink)
    tables = tuple(part.table for part in parts)
    return Entity(name, lane, route, shape.refuse, tables, sync=partial(sync_each, ask=shape.ask))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What `whole_set` was told."""

    members: Members
    is_stamped: bool
    least_share: float
    may_shrink: bool

    def refuse(self, job: Job, answer: Answer) -> Done:
        """No answer by itself stands for a set: all of its pages do."""
        raise NotImplementedError

    def ask(self, entity: Entity, job: Job, edges: Edges) -> Done:
        """All pages of a set. Raises as `get_pages`."""
        asked, stored = asked_for(entity, job, edges), edges.stored(entity.name, job.id)
        if stored is None:
            asked["etag"] = None
        read = partial(self._page, job)
        pages = get_pages(edges.client, entity.route, read, stored=stored.at if stored else None, **asked)
        outcome = replace(done(job, pages.first), etag=pages.first.etag if pages.count == 1 else None)
        return outcome if pages.members is None else self._whole(entity, job, outcome, pages.members, pages.at, pages.count)

    def _page(self, job: Job, answer: Answer) -> list[Page]:
        return [self.members.page(job, answer, version_of(answer) if self.is_stamped else job.id)]

    def _whole(self, entity: Entity, job: Job, outcome: Done, pages: list[Page], at: Any, count: int) -> Done:
        owned = self.members.owned(job, pages, at if self.is_stamped else job.id, at)
        return replace(
            outcome,
            owned=owned,
            seen=self.members.seen(owned),
            generation=Generation(at, count, len(owned[0].rows), self.least_share, self.may_shrink, entity.route.cache_s),
            unknown=tuple(sorted(frozenset().union(*(page.unknown for page in pages)))),
        )
