"""zKillboard's feed and history and EVE Ref's archives over real HTTP, with strict books of who asks how."""

from __future__ import annotations

from tests.fake_feed.killmails import Mail, generate
from tests.fake_feed.publisher import Publisher
from tests.fake_feed.server import FakeFeed

__all__ = ["FakeFeed", "Mail", "Publisher", "generate"]
