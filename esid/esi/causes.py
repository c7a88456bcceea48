"""Why a request did not come through, in the words of who knew it first: the innermost error, without what wraps it."""

from __future__ import annotations

import re
import ssl
from http.client import IncompleteRead


def cause(error: BaseException) -> str:
    """One cause, without the objects that requests and urllib3 wrap around it."""
    seen = [error]
    while (inner := _inner(seen[-1])) and inner not in seen:
        seen.append(inner)
    found = seen[-1]
    if isinstance(found, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({found.verify_message.rstrip('.')}); of a company's own authority, name the "
            "certificates in ESID_CA_FILE"
        )
    if isinstance(found, IncompleteRead):
        return "the answer ended too early"
    words = getattr(found, "strerror", None) or str(found.args[-1] if found.args else found) or type(found).__name__
    words = re.sub(r"^<[^>]*>: |^\w+\(host=[^)]*\): | \(_ssl\.c:\d+\)$", "", words)
    return f"no TLS: {words}" if isinstance(found, ssl.SSLError) else words


def _inner(error: BaseException) -> BaseException | None:
    """What an error wraps."""
    wrapped = [getattr(error, "reason", None), *error.args, error.__cause__]
    return next((one for one in wrapped if isinstance(one, BaseException)), None)
