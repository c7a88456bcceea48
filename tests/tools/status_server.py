"""The status server says how its daemon is."""

from __future__ import annotations

from http.client import HTTPConnection


def ready(port: int) -> int:
    """What /readyz says."""
    http = HTTPConnection("127.0.0.1", port, timeout=30)
    http.request("GET", "/readyz")
    status = http.getresponse().status
    http.close()
    return status
