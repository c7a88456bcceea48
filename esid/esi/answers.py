"""What an HTTP answer is: a value, or an error that says whose fault it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from esid.errors import BadBody, EsiError, EsiUnavailable, Held, NotFound, Refused, Unreachable
from esid.esi.decode import parse_json
from esid.esi.headers import error_reset_s, retry_after_s

_ENCODINGS = {"", "identity", "gzip", "x-gzip"}
#: Fields of ESI's error bodies.
_ERROR_KEYS = {"error", "timeout", "sso_status", "details"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 or a 304.

    Attributes:
        body: the decoded JSON; None after a 304.
        etag: to be sent back next time, verbatim.
        checked_at: the time that the answer speaks of, by ESI's clock.
        expires_at: when it may be asked again, by our clock.
        headers: of the answer.
    """

    body: Any
    is_new: bool
    etag: str | None
    checked_at: dt.datetime
    expires_at: dt.datetime
    headers: Mapping[str, str] = field(default_factory=dict)


def check_held(status: int, headers: Mapping[str, str]) -> None:
    """Raises Held for an answer that says when to come again."""
    if status == 420:
        raise Held(error_reset_s(headers), "420")
    if status == 429:
        raise Held(retry_after_s(headers), "429")


def check_status(status: int, body: bytes) -> None:
    """Turn everything that is neither 200 nor 304 into an error of its kind."""
    if status == 200:
        if not body.strip():
            raise BadBody("the body is empty", status=200)
        return
    if status == 304:
        return
    words = f"HTTP {status}: {_error_text(body)}"
    if status == 404 and _is_worded(body):
        raise NotFound(words, status=404, sample=body)
    if status in {400, 422} and _is_worded(body):
        raise Refused(words, status=status, sample=body, reason="wrong_pair" if status == 422 else "")
    if status >= 500 or status < 300:
        raise EsiUnavailable(words, status=status, sample=body)
    if status < 400:
        words = f"HTTP {status}: redirects are not followed"
    # ESI itself gives no public route another code, and says why: a proxy, a gateway, or a ban.
    raise Unreachable(words, status=status, sample=body)


def check_encoding(status: int, headers: Mapping[str, str]) -> None:
    """Who packs an answer in a way that was not asked for is not ESI, and says nothing of the id. Raises Unreachable."""
    encoding = headers.get("Content-Encoding", "")
    if status == 200 and encoding.lower() not in _ENCODINGS:
        raise Unreachable(f"the answer is packed as {encoding[:40]!r}, which was not asked for; check proxies on the way")


def value_of(data: bytes) -> Any:
    """The value of a 200. Raises BadBody, EsiUnavailable for an error that comes as a 200."""
    value = parse_json(data)
    if isinstance(value, dict) and isinstance(value.get("error"), str) and value.keys() <= _ERROR_KEYS:
        raise EsiUnavailable(f"HTTP 200 with an error: {_error_text(data)}", status=200, sample=data)
    return value


def _is_worded(body: bytes) -> bool:
    """True for an error in ESI's own form."""
    try:
        value = parse_json(body)
    except EsiError:
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), str)


def _error_text(body: bytes) -> str:
    """ESI's own words where the body has them, else its first characters."""
    try:
        value = parse_json(body)
        text = value["error"] if isinstance(value, dict) and isinstance(value.get("error"), str) else body.decode()
    except (EsiError, UnicodeDecodeError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:200] or "(empty body)"
