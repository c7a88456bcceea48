"""Lists that ESI answers in pages: all of one version, or none of it.

Source: CCP's pagination page (X-Pages): all pages must show the same Last-Modified, otherwise the set is torn.
"""

from __future__ import annotations

from typing import Any

from esid.errors import BadBody, BadField, NotFound
from esid.esi.answers import Answer
from esid.esi.client import Client
from esid.esi.headers import pages
from esid.esi.routes import Route

#: How often a torn set is begun anew.
MOST_READS = 3


def get_pages(client: Client, route: Route, *, id: int = 0, etag: str | None = None) -> tuple[Answer, list[Any]]:  # noqa: A002
    """(the first page's answer, the members of all pages in order).

    After a 304 of the first page the list is empty and nothing else is asked: the set is what it was.

    Raises:
        BadBody: the set changed under each of 3 reads. BadField: a page is no list, or the pages are too many.
        EsiError, Held, Stopping: as `Client.get`.
    """
    for _ in range(MOST_READS):
        first = client.get(route, id=id, etag=etag)
        if not first.is_new:
            return first, []
        members = _rest(client, route, id, first)
        if members is not None:
            return first, members
        etag = None
    raise BadBody(f"{route.path}: its pages changed while they were read, {MOST_READS} times in a row")


def _rest(client: Client, route: Route, key: int, first: Answer) -> list[Any] | None:
    """All members; None where a page is of another version than the first."""
    members = _members(route, first)
    count = pages(first.headers)
    if count is None:
        raise BadField(route.path, "X-Pages", first.headers.get("X-Pages"))
    for page in range(2, count + 1):
        try:
            answer = client.get(route, id=key, page=page)
        except NotFound:
            return None
        if _version(answer) != _version(first):
            return None
        members += _members(route, answer)
    return members


def _members(route: Route, answer: Answer) -> list[Any]:
    if not isinstance(answer.body, list):
        raise BadField(route.path, "(body)", answer.body)
    return list(answer.body)


def _version(answer: Answer) -> tuple[str | None, str | None]:
    return answer.headers.get("Last-Modified"), answer.headers.get("X-Pages")
