"""Misbehaviour on demand."""

from __future__ import annotations

import random
import threading
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

from tests.fake_esi.content import CACHE_HEADERS, Content, Freshness, cacheable, encode, plain

_UNSET = object()
_ERRORS: dict[int, dict[str, object]] = {
    420: {
        "error": "This software has exceeded the error limit for ESI. If you are a user, please contact the "
        "maintainer of this software. If you are a developer/maintainer, please make a greater effort in the "
        "future to receive valid responses."
    },
    429: {"error": "Rate limit exceeded"},
    502: {"error": "Bad gateway"},
    503: {"error": "The datasource tranquility is temporarily unavailable"},
    504: {"error": "Timeout contacting tranquility", "timeout": 10},
}


def error_content(status: int) -> Content:
    """The JSON answer that ESI gives with this error status; a 204 has no body."""
    if status == 204:
        return Content(204, b"", {})
    return plain(status, _ERRORS.get(status, {"error": f"Undefined {status} response"}))


@dataclass(eq=False)
class Fault:
    """What goes wrong with the requests whose path starts with `path_prefix`.

    At most one field says what is answered (none: the ordinary answer): `status` an error with a JSON body,
    `html` a status with an HTML body, `body` 200 with these bytes, `json` 200 with this value, `gzip_bomb`
    200 with gzip that inflates to that many bytes, `redirect` 302 to that address. The 200s carry the
    route's cache headers.

    Any of these change the headers: `retry_after` adds Retry-After, `no_expires` leaves out all cache
    headers, `headers` adds or replaces some (None removes one).

    Any of these spoil the sending: `hang_s` waits so long first, `drop` closes and `reset` resets the
    connection without answering, `truncate` sends half of the body and closes, `drip_s` sends a byte of the
    body each so many seconds, `headers_drip_s` the same with the header block.

    `times` ends the fault after so many requests (None: never), `probability` lets it happen to some only,
    `exact` compares the whole path. `hits` counts the requests it happened to.
    """

    path_prefix: str
    times: int | None = None
    probability: float | None = None
    exact: bool = False
    status: int | None = None
    html: int | None = None
    body: bytes | None = None
    json: object = _UNSET
    gzip_bomb: int | None = None
    redirect: str | None = None
    retry_after: str | None = None
    no_expires: bool = False
    headers: dict[str, str | None] = field(default_factory=dict)
    hang_s: float = 0.0
    drop: bool = False
    reset: bool = False
    truncate: bool = False
    drip_s: float = 0.0
    headers_drip_s: float = 0.0
    hits: int = field(default=0, init=False)

    @property
    def is_silent(self) -> bool:
        """Whether no answer is sent at all."""
        return self.drop or self.reset

    @property
    def spoils_sending(self) -> bool:
        """Whether the answer may not arrive whole and at once."""
        return bool(self.is_silent or self.truncate or self.hang_s or self.drip_s or self.headers_drip_s)

    def matches(self, path: str) -> bool:
        """Whether the fault is about this path (with `exact`: only this path)."""
        return path == self.path_prefix if self.exact else path.startswith(self.path_prefix)

    def replacement(self, freshness: Freshness | None) -> Content | None:
        """What is answered instead of the ordinary answer, None when that one is to be given."""
        if self.status is not None:
            return error_content(self.status)
        if self.html is not None:
            return Content(self.html, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})
        if self.redirect is not None:
            return Content(302, b"", {"Location": self.redirect})
        if self.gzip_bomb is not None:
            content = cacheable(_gzip_of_blanks(self.gzip_bomb), freshness)
            return Content(200, content.body, content.headers | {"Content-Encoding": "gzip"})
        if self.body is not None:
            return cacheable(self.body, freshness)
        return None if self.json is _UNSET else cacheable(encode(self.json), freshness)

    def change_headers(self, headers: dict[str, str]) -> None:
        """Add, replace and remove headers of the answer in place."""
        if self.no_expires:
            for name in CACHE_HEADERS:
                headers.pop(name, None)
        retry_after = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        for name, value in (retry_after | self.headers).items():
            headers.pop(name.title(), None)
            if value is not None:
                headers[name.title()] = value


class Faults:
    """The faults in force; the first that was added and fits is the one that happens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._rng = random.Random(0)

    def add(self, path_prefix: str, **what: object) -> Fault:
        """Put a fault in force; `what` are fields of Fault, such as times=2, probability=0.1, status=503."""
        fault = Fault(path_prefix, **what)  # type: ignore[arg-type]
        with self._lock:
            self._faults.append(fault)
        return fault

    def end(self, fault: Fault) -> None:
        """End one fault, if it is in force."""
        with self._lock:
            self._faults = [each for each in self._faults if each is not fault]

    def clear(self) -> None:
        """End all faults; those already happening go on."""
        with self._lock:
            self._faults.clear()

    def pick(self, path: str) -> Fault | None:
        """The fault that happens to a request for this path now, None for none; counts the hit."""
        if not self._faults:
            return None
        with self._lock:
            fault = next((each for each in self._faults if self._happens(each, path)), None)
            if fault is not None:
                fault.hits += 1
            return fault

    def _happens(self, fault: Fault, path: str) -> bool:
        if fault.times is not None and fault.hits >= fault.times:
            return False
        if not fault.matches(path):
            return False
        return fault.probability is None or self._rng.random() < fault.probability


@lru_cache(maxsize=4)
def _gzip_of_blanks(size: int) -> bytes:
    """Gzip that inflates to `size` bytes, blanks and an empty JSON list."""
    block = b" " * 2**20
    blocks, rest = divmod(size - 2, len(block))
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(block) for _ in range(blocks)]
    return b"".join([*parts, packer.compress(block[:rest] + b"[]"), packer.flush()])
