"""Whole sets: a URL is all rows of a table, or of one scope of it (a region's, a store's); what it names no more is gone.

A set is read whole before anything of it is written, and judged by its version, see `store.sets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from esid.entities.base import Edges, Entity, asked_for, done, sync_each, unavailable
from esid.entities.members import Members, Page, Part
from esid.errors import BadBody, BadField, TooLarge
from esid.esi.paging import Pages, get_pages, version_of
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
    if of and stamp:
        raise ValueError(f"{name}: rows of a scope have no versions of their own")
    # A version that stays takes nothing away, however small it is.
    shape = _Shape(Members(parts, of or stamp, unused), bool(stamp), 0.0 if stamp else least_share, may_shrink)
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
        if stored is None or self.is_stamped:
            asked["etag"] = None
        try:
            read = partial(self._page, entity, job)
            pages = get_pages(edges.client, entity.route, read, stored=stored.at if stored else None, **asked)
            # An ETag stands for what is stored: for all of it, and no older version.
            is_of_all = pages.count == 1 and not self.is_stamped and not entity.route.is_daily
            is_older = stored is not None and pages.first.is_new and pages.at < stored.at
            etag = pages.first.etag if is_of_all and not is_older else None
            outcome = replace(done(job, pages.first), etag=etag, is_confirmed=not pages.first.is_new)
            return self._whole(entity, job, outcome, pages) if pages.members is not None else outcome
        except (BadBody, BadField, TooLarge) as error:
            # The same version says the same again.
            raise unavailable(error, entity.route.cache_s) from error

    def _page(self, entity: Entity, job: Job, answer: Answer) -> list[Page]:
        return [self.members.page(job, answer, version_of(entity.route, answer) if self.is_stamped else job.id)]

    def _whole(self, entity: Entity, job: Job, outcome: Done, pages: Pages) -> Done:
        at, members = pages.at, list[Page](pages.members or ())
        owned = self.members.owned(job, members, at if self.is_stamped else job.id, at)
        return replace(
            outcome,
            owned=owned,
            seen=self.members.seen(owned),
            generation=Generation(
                at, pages.count, len(owned[0].rows), self.least_share, self.may_shrink, entity.route.cache_s
            ),
            unknown=tuple(sorted(frozenset().union(*(page.unknown for page in members)))),
        )
