"""What ESI, a gateway or a proxy has answered to everybody for minutes."""

from __future__ import annotations

from typing import Any

#: Name -> what everything answers meanwhile.
ODD: dict[str, dict[str, Any]] = {
    "an error as a 200": {"json": {"error": "The datasource tranquility is temporarily unavailable"}},
    "another shape": {"json": {"status": "ok"}},
    "a list of nonsense": {"json": ["a", "b"]},
    "204": {"status": 204},
    "302": {"redirect": "http://127.0.0.1:1/"},
    **{str(status): {"status": status} for status in (400, 401, 403, 404, 407, 422, 451, 500, 503)},
    **{f"{status} in HTML": {"html": status} for status in (200, 400, 401, 403, 404, 407, 422, 451, 500, 503)},
    "a body that ends early": {"truncate": True},
    "no answer": {"reset": True},
}
