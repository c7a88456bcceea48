"""Lists in pages: all of one version, or read again, or none."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from esid import bounds, clock
from esid.errors import BadField, HeldAlone
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.headers import MOST_PAGES
from esid.esi.paging import MOST_READS, get_pages
from esid.esi.routes import Route
from tests.tools.simulation import Raw

ROUTE = Route("/wars/{id}/killmails")
Answer = tuple[int, Any, dict[str, str]]


class Pages(requests.adapters.BaseAdapter):
    """Answers page N of read M as the test says."""

    def __init__(self, answer: Callable[[int, int], Answer]) -> None:
        super().__init__()
        self._answer = answer
        self.asked: list[int] = []
        self.etags: list[str | None] = []
        self.urls: list[str] = []

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        """One page."""
        page = int(parse_qs(urlsplit(request.url).query).get("page", ["1"])[0])
        self.asked.append(page)
        self.urls.append(request.path_url)
        self.etags.append(request.headers.get("If-None-Match"))
        status, body, headers = self._answer(page, self.asked.count(1))
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url
        response.headers.update(headers)
        response.raw = Raw(json.dumps(body).encode())
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Any]:
    """Reads a list from such an adapter."""
    budget = Budget(tmp_path / "budget", Limits(max_rps=0))

    def run(pages: Pages, route: Route = ROUTE, **known: Any) -> Any:
        client = Client("http://127.0.0.1", budget, adapter=pages)
        return get_pages(client, route, lambda answer: list(answer.body), id=7, **known)

    yield run
    budget.close()


def headers(version: str, pages: int) -> dict[str, str]:
    """Those of a page of one version."""
    return {"Last-Modified": version, "X-Pages": str(pages)}


def test_the_members_of_all_pages_in_order(read: Any) -> None:
    pages = Pages(lambda page, _: (200, [page * 10, page * 10 + 1], headers("v1", 3)))
    assert read(pages).members == [10, 11, 20, 21, 30, 31]
    assert pages.asked == [1, 2, 3]


def test_a_list_that_names_no_pages_is_one_page(read: Any) -> None:
    assert read(Pages(lambda *_: (200, [1], {}))).members == [1]


def test_after_a_304_nothing_more_is_asked(read: Any) -> None:
    pages = Pages(lambda *_: (304, None, headers("v1", 1)))
    found = read(pages, etag='"etag"')
    assert (found.first.is_new, found.members, pages.asked) == (False, None, [1])


@pytest.mark.parametrize(
    "change",
    [lambda: (200, [0], headers("v2", 3)), lambda: (200, [0], headers("v1", 2)), lambda: (404, {"error": "?"}, {})],
    ids=["another version", "fewer pages", "a page is gone"],
)
def test_a_set_that_changes_under_the_reader_is_read_again_without_its_etag(read: Any, change: Callable[[], Answer]) -> None:
    pages = Pages(
        lambda page, reads: change() if reads == 1 and page == 3 else (200, [reads * 100 + page], headers(f"v{reads}", 3))
    )
    assert read(pages, etag='"old"').members == [201, 202, 203]
    assert pages.etags[0] == '"old"'
    assert set(pages.etags[1:]) == {None}


def test_a_set_that_never_holds_still_is_no_answer(read: Any) -> None:
    pages = Pages(lambda page, reads: (200, [1], headers(f"v{page}", 2)))
    # It waits for the next version, and nobody has failed.
    with pytest.raises(HeldAlone, match="changed while they were read") as held:
        read(pages)
    assert pages.asked.count(1) == MOST_READS
    assert 3500 < held.value.wait_s <= 3600


def test_a_set_that_has_grown_under_an_equal_first_page_is_read_whole(read: Any) -> None:
    pages = Pages(lambda page, reads: (304, None, headers("v2", 2)) if reads == 1 else (200, [page], headers("v2", 2)))
    assert read(pages, etag='"first page"').members == [1, 2]
    assert pages.etags == ['"first page"', None, None]


def test_pages_that_name_no_version_cannot_be_put_together(read: Any) -> None:
    with pytest.raises(BadField, match="Last-Modified"):
        read(Pages(lambda page, _: (200, [page], {"X-Pages": "2"})))


def test_a_version_from_the_future_is_one_of_now(read: Any) -> None:
    found = read(Pages(lambda *_: (200, [1], headers("Sun, 24 Nov 2999 12:00:00 GMT", 1))))
    assert found.at <= clock.now() + dt.timedelta(seconds=bounds.SKEW_S)


@pytest.mark.parametrize("count", [str(MOST_PAGES + 1), "1000000", "many", "-1"])
def test_a_count_of_pages_that_cannot_be_is_not_believed(read: Any, count: str) -> None:
    with pytest.raises(BadField, match="X-Pages"):
        read(Pages(lambda *_: (200, [1], {"X-Pages": count})))


def test_a_page_that_is_no_list_is_refused(read: Any) -> None:
    with pytest.raises(BadField):
        read(Pages(lambda page, _: (200, [1] if page == 1 else {"a": 1}, headers("v1", 2))))


VERSION = "Tue, 24 Nov 2026 12:00:00 GMT"
AT = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("stored", "is_daily", "is_read"),
    [
        (None, False, True),
        (AT - dt.timedelta(seconds=1), False, True),
        (AT, False, False),
        (AT + dt.timedelta(seconds=1), False, False),
        # Daily sets are compared by content: many share one time.
        (AT, True, True),
        (AT + dt.timedelta(seconds=1), True, True),
    ],
)
def test_the_version_that_is_stored_and_older_ones_are_not_read_on(
    read: Any, stored: dt.datetime | None, is_daily: bool, is_read: bool
) -> None:
    pages = Pages(lambda page, _: (200, [page], headers(VERSION, 2)))
    found = read(pages, Route(ROUTE.path, is_daily=is_daily), stored=stored)
    assert (found.members, found.count) == ([1, 2] if is_read else None, 2)
    assert is_daily or found.at == AT
    assert pages.asked == ([1, 2] if is_read else [1])


def test_a_set_whose_version_ends_before_it_can_be_read_waits_for_the_next(tmp_path: Path) -> None:
    # Given 401 pages at the usual pace, of a version that lasts 10 s more
    dates = {"Date": "Tue, 24 Nov 2026 12:04:50 GMT", "Expires": "Tue, 24 Nov 2026 12:05:00 GMT"}
    pages = Pages(lambda *_: (200, [1], headers(VERSION, 401) | dates))
    budget = Budget(tmp_path / "budget", Limits())
    # When it is read
    with pytest.raises(HeldAlone) as held:
        get_pages(Client("http://127.0.0.1", budget, adapter=pages), ROUTE, lambda answer: list(answer.body), id=7)
    budget.close()
    # Then nothing is asked in vain, and the next version is waited for
    assert pages.asked == [1]
    assert 50 < held.value.wait_s <= 60


def test_a_query_goes_along_with_each_page(read: Any) -> None:
    pages = Pages(lambda page, _: (200, [page], headers("v1", 2)))
    read(pages, Route("/markets/{id}/orders", query=(("order_type", "all"),)))
    assert pages.urls == ["/markets/7/orders?order_type=all", "/markets/7/orders?order_type=all&page=2"]
