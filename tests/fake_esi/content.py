"""The body of an answer with the headers that describe it, and ESI's own cache of them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.fake_esi.clock import http_date
from tests.fake_esi.log import CacheKey

JSON_TYPE = "application/json; charset=UTF-8"
CACHE_HEADERS = ("Cache-Control", "Etag", "Expires", "Last-Modified")


@dataclass(frozen=True, slots=True)
class Content:
    """A status, its body, and the headers about the body: type, and cache headers where it may be cached."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Freshness:
    """From when to when a cached answer is valid, in seconds since 1970; daily data has weak ETags."""

    made: int
    expires: int
    weak: bool = False


def encode(body: object) -> bytes:
    """A body as compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def plain(status: int, body: object) -> Content:
    """A JSON answer that may not be cached."""
    return Content(status, encode(body), {"Content-Type": JSON_TYPE})


def cacheable(body: bytes, freshness: Freshness | None) -> Content:
    """A 200 with these bytes, with cache headers unless `freshness` is None."""
    headers = {"Content-Type": JSON_TYPE}
    if freshness is not None:
        etag = f'"{hashlib.sha224(body).hexdigest()}"'
        headers["Cache-Control"] = "public"
        headers["Etag"] = f"W/{etag}" if freshness.weak else etag
        headers["Expires"] = http_date(freshness.expires)
        headers["Last-Modified"] = http_date(freshness.made)
    return Content(200, body, headers)


def unless_known(content: Content, if_none_match: str) -> Content:
    """The 304 for a client that has this body already (ETags are accepted bare, too), else the content."""
    etag = content.headers.get("Etag")
    if content.status != 200 or etag is None or _bare(if_none_match) != _bare(etag):
        return content
    return Content(304, b"", {key: content.headers[key] for key in CACHE_HEADERS if key in content.headers})


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


class ContentCache:
    """ESI's cache: the first answer to a URL is repeated, unchanged, until it expires."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[CacheKey, tuple[int, int, Content]] = {}

    def get(self, key: CacheKey, now: float, freshness: Freshness, body: Callable[[], object]) -> Content:
        """The valid answer under this key, made by `body` when there is none; what `body` raises passes."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not kept[1] <= now < kept[0]:  # of a time to come: the clock was set back
                kept = freshness.expires, freshness.made, cacheable(encode(body()), freshness)
                self._kept[key] = kept
            return kept[2]
