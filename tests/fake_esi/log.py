"""What was asked of the fake, and which requests came before their cached answer had expired."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One request and how it was answered.

    `at` is the fake's time of arrival in seconds since 1970; `path` holds the query string too; `status` is 0
    when the connection was dropped or reset without an answer; `ids` are those of a POST; `headers` holds
    the sent ones among user-agent, x-compatibility-date, if-none-match and accept-language; `early` tells
    that the answer given before to the same URL, language and date had not yet expired.
    """

    at: float
    method: str
    path: str
    status: int
    ids: tuple[int, ...]
    headers: dict[str, str]
    early: bool


CacheKey = tuple[str, str, str]


class Expiries:
    """When the last good answer to each URL, language and compatibility date expires."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expires: dict[CacheKey, float] = {}

    def remember(self, key: CacheKey, expires: float | None) -> None:
        """An answer that expires then was given; None when it says nothing about expiry."""
        with self._lock:
            if expires is None:
                self._expires.pop(key, None)
            else:
                self._expires[key] = expires

    def is_early(self, key: CacheKey, at: float) -> bool:
        """Whether a request arriving at `at` asks again for an answer that is still valid."""
        with self._lock:
            return at < self._expires.get(key, at)
