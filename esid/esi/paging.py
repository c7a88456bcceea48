"""Lists that ESI answers in pages: all of one version, or none of it.

Source: CCP's pagination page (X-Pages): all pages must show the same Last-Modified, otherwise the set is torn. An ETag is of
one page: others can differ under an equal first one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from esid import bounds, clock
from esid.errors import BadField, HeldAlone, NotFound
from esid.esi.answers import Answer
from esid.esi.cache import http_date
from esid.esi.headers import pages as pages_of
from esid.esi.routes import Route

if TYPE_CHECKING:
    from esid.esi.client import Client

#: How often a torn set is begun anew.
MOST_READS = 3
#: A set is read where its version lasts so many times as long as the reading takes at least.
_MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class Pages:
    """A set as it was read.

    Attributes:
        first: the first page's answer, without its body.
        at: the version.
        members: what was read of all pages, in order; None where the version is that which is stored, or an older one.
        count: the pages.
    """

    first: Answer
    at: dt.datetime
    members: list[Any] | None
    count: int


def get_pages(
    client: Client,
    route: Route,
    read: Callable[[Answer], list[Any]],
    *,
    etag: str | None = None,
    stored: dt.datetime | None = None,
    **of: Any,
) -> Pages:
    """Read a list of one page or many.

    Args:
        read: the members of one page; what it refuses counts as no answer.
        etag: of a set that had one page.
        stored: the version that is stored.
        of: as for `Client.get`, like `id`.

    Raises:
        BadField: a page is no list, or the pages are too many.
        HeldAlone: its version ends too soon to begin with it, or the set changed under each of 3 reads.
        EsiError, Held, Stopping: as `Client.get`.
    """

    def ask(page: int, etag: str | None = None) -> tuple[Answer, list[Any]]:
        query = (("page", str(page)),) if page > 1 else ()
        found: tuple[Answer, list[Any]] = client.get(route, etag=etag, query=query, read=page_of, **of)
        return found

    def page_of(answer: Answer) -> tuple[Answer, list[Any]]:
        if answer.is_new and not isinstance(answer.body, list):
            raise BadField(route.path, "(body)", answer.body)
        return replace(answer, body=None), read(answer) if answer.is_new else []

    for attempt in range(MOST_READS):
        first, members = ask(1, None if attempt else etag)
        at, count = version_of(route, first), pages_of(first.headers)
        if count is None:
            raise BadField(route.path, "X-Pages", first.headers.get("X-Pages"))
        if not first.is_new and count > 1:
            # It has grown under an equal first page, of which alone the ETag is.
            continue
        if not first.is_new or _is_known(route, at, stored):
            return Pages(first, at, None, count)
        if count > 1:
            _check_time(client, route, first, count)
        if _add_rest(ask, first, count, members):
            return Pages(first, at, members, count)
    raise HeldAlone(_left_s(first), f"{route.path}: its pages changed while they were read, {MOST_READS} times in a row")


def version_of(route: Route, answer: Answer) -> dt.datetime:
    """The version of the set that an answer belongs to. Of daily routes `Last-Modified` says nothing."""
    told = None if route.is_daily else http_date(answer.headers.get("Last-Modified"))
    # What lies ahead would be newer than all that follows.
    return min(told, bounds.ahead(clock.now())) if told else answer.checked_at


def _is_known(route: Route, at: dt.datetime, stored: dt.datetime | None) -> bool:
    """True of the version that is stored, where that says all, and of an older one."""
    return stored is not None and (at < stored or (at == stored and not route.is_daily))


def _check_time(client: Client, route: Route, first: Answer, count: int) -> None:
    if not first.headers.get("Last-Modified"):
        raise BadField(route.path, "Last-Modified", None)
    date, expires = http_date(first.headers.get("Date")), http_date(first.headers.get("Expires"))
    takes_s = _MARGIN * client.takes_s(count - 1)
    # Where no version lasts long enough, one more lucky than the others is all that there is to hope for.
    if date and expires and 0 < (expires - date).total_seconds() < takes_s < route.cache_s:
        raise HeldAlone(_left_s(first), f"{count} pages take longer than their version lasts")


def _left_s(first: Answer) -> float:
    """Seconds until there is another version."""
    return max(1.0, (first.expires_at - clock.now()).total_seconds())


def _add_rest(ask: Callable[[int], tuple[Answer, list[Any]]], first: Answer, count: int, members: list[Any]) -> bool:
    """Whether all pages are of the first one's version; their members are added."""
    for page in range(2, count + 1):
        try:
            answer, some = ask(page)
        except NotFound:
            return False
        if _mark(answer) != _mark(first):
            return False
        members += some
    return True


def _mark(answer: Answer) -> tuple[str | None, str | None]:
    return answer.headers.get("Last-Modified"), answer.headers.get("X-Pages")
