"""Bodies as older compatibility dates show them, made from the newest shape."""

from __future__ import annotations

from tests.fake_esi.world import Body

OLDEST = "2020-01-01"
CHARACTER_DATE = "2026-06-09"
CORPORATION_DATE = "2026-07-21"
_NEW_IN_CORPORATION = ("friendly_fire", "palette", "state", "type")


def old_corporation(body: Body) -> Body:
    """A corporation as answered before 2026-07-21: tax as a fraction, ceo and creator 1 when none."""
    old = {key: value for key, value in body.items() if key not in _NEW_IN_CORPORATION}
    old["tax_rate"] = round(old.pop("tax_rates")["isk"] / 100, 3)
    if "enlisted_faction_id" in old:
        old["faction_id"] = old.pop("enlisted_faction_id")
    old.setdefault("ceo_id", 1)
    old.setdefault("creator_id", 1)
    return old


def old_character(body: Body) -> Body:
    """A character as answered before 2026-06-09: `title`, no title id, no achievements."""
    new = ("character_title_id", "achievement_score")
    old = {key: value for key, value in body.items() if key not in new}
    if "corporation_title" in old:
        old["title"] = old.pop("corporation_title")
    return old
