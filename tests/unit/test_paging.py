"""Lists in pages: all of one version, or read again, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from esid.errors import BadBody, BadField
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.headers import MOST_PAGES
from esid.esi.paging import MOST_READS, get_pages
from esid.esi.routes import Route
from tests.simulation import _Raw

ROUTE = Route("/wars/{id}/killmails")
Answer = tuple[int, Any, dict[str, str]]


class Pages(requests.adapters.BaseAdapter):
    """Answers page N of read M as the test says."""

    def __init__(self, answer: Callable[[int, int], Answer]) -> None:
        super().__init__()
        self._answer = answer
        self.asked: list[int] = []
        self.etags: list[str | None] = []

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        """One page."""
        page = int(parse_qs(urlsplit(request.url).query).get("page", ["1"])[0])
        self.asked.append(page)
        self.etags.append(request.headers.get("If-None-Match"))
        status, body, headers = self._answer(page, self.asked.count(1))
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url
        response.headers.update(headers)
        response.raw = _Raw(json.dumps(body).encode())
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Any]:
    """Reads a list from such an adapter."""
    budget = Budget(tmp_path / "budget", Limits(max_rps=0))

    def run(pages: Pages, etag: str | None = None) -> Any:
        return get_pages(Client("http://127.0.0.1", budget, adapter=pages), ROUTE, id=7, etag=etag)

    yield run
    budget.close()


def headers(version: str, pages: int) -> dict[str, str]:
    """Those of a page of one version."""
    return {"Last-Modified": version, "X-Pages": str(pages)}


def test_the_members_of_all_pages_in_order(read: Any) -> None:
    pages = Pages(lambda page, _: (200, [page * 10, page * 10 + 1], headers("v1", 3)))
    assert read(pages)[1] == [10, 11, 20, 21, 30, 31]
    assert pages.asked == [1, 2, 3]


def test_a_list_that_names_no_pages_is_one_page(read: Any) -> None:
    assert read(Pages(lambda *_: (200, [1], {})))[1] == [1]


def test_after_a_304_nothing_more_is_asked(read: Any) -> None:
    pages = Pages(lambda *_: (304, None, headers("v1", 3)))
    first, members = read(pages, '"etag"')
    assert (first.is_new, members, pages.asked) == (False, [], [1])


@pytest.mark.parametrize(
    "change",
    [lambda: (200, [0], headers("v2", 3)), lambda: (200, [0], headers("v1", 2)), lambda: (404, {"error": "?"}, {})],
    ids=["another version", "fewer pages", "a page is gone"],
)
def test_a_set_that_changes_under_the_reader_is_read_again_without_its_etag(read: Any, change: Callable[[], Answer]) -> None:
    pages = Pages(
        lambda page, reads: change() if reads == 1 and page == 3 else (200, [reads * 100 + page], headers(f"v{reads}", 3))
    )
    assert read(pages, '"old"')[1] == [201, 202, 203]
    assert pages.etags[0] == '"old"'
    assert set(pages.etags[1:]) == {None}


def test_a_set_that_never_holds_still_is_no_answer(read: Any) -> None:
    pages = Pages(lambda page, reads: (200, [1], headers(f"v{page}", 2)))
    with pytest.raises(BadBody, match="changed while they were read"):
        read(pages)
    assert pages.asked.count(1) == MOST_READS


@pytest.mark.parametrize("count", [str(MOST_PAGES + 1), "1000000", "many", "-1"])
def test_a_count_of_pages_that_cannot_be_is_not_believed(read: Any, count: str) -> None:
    with pytest.raises(BadField, match="X-Pages"):
        read(Pages(lambda *_: (200, [1], {"X-Pages": count})))


def test_a_page_that_is_no_list_is_refused(read: Any) -> None:
    with pytest.raises(BadField):
        read(Pages(lambda page, _: (200, [1] if page == 1 else {"a": 1}, headers("v1", 2))))
