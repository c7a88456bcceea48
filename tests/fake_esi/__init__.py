"""A fake ESI over real HTTP: the routes, headers, caches and limits of CCP's, and faults on demand."""

from __future__ import annotations

from tests.fake_esi.faults import Fault
from tests.fake_esi.log import Request
from tests.fake_esi.server import FakeEsi
from tests.fake_esi.world import World

__all__ = ["FakeEsi", "Fault", "Request", "World"]
