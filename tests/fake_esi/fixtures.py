"""The bodies of `bodies/ENTITY.json`: what the fake ESI answers on routes of which it knows no more than that.

A file has `route` (with `{}` for the id), `body`, `ttl_s` (seconds, or "daily"), and where they are needed `id` and `group`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Fixture:
    """One file. `id` is that of the body, None where there is one of it; `ttl_s` is None for daily data."""

    route: str
    body: Any
    id: int | None
    ttl_s: int | None
    group: str | None


def _read(path: Path) -> Fixture:
    told = json.loads(path.read_text(encoding="utf-8"))
    ttl_s = None if told["ttl_s"] == "daily" else int(told["ttl_s"])
    return Fixture(told["route"], told["body"], told.get("id"), ttl_s, told.get("group"))


#: Entity -> its fixture.
BY_NAME = {path.stem: _read(path) for path in sorted((Path(__file__).parent / "bodies").glob("*.json"))}
