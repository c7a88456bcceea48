"""Hashes of killmails as feeds and archives write them.

ESI knows 40 hexadecimal digits alone. Killmails that CCP made by hand carry `CCP VERIFIED` on zKillboard: they are
stored as they are, and ESI is not asked for them (107220741, 108794056).
"""

from __future__ import annotations

import re
from typing import Any

from esid.entities.killmail import HASH
from esid.errors import BadField

#: Printable, of a length that a column may hold, free of what COPY would have to escape, and not hexadecimal alone: a
#: hash that lost a digit is wrong and no word.
_WORDS = re.compile(r"(?=.*[^0-9A-Fa-f])[ -\[\]-~]{1,64}", re.ASCII)


def check_hash(key: int, value: Any) -> str:
    """The hash, in lower case where it is hexadecimal.

    Raises:
        BadField: neither a hash nor words in its place.
    """
    if isinstance(value, str):
        if HASH.fullmatch(value.lower()):
            return value.lower()
        if _WORDS.fullmatch(value) and value.strip() == value and value != "None":
            return value
    raise BadField(f"killmail {key}", "hash", value)


def is_askable(hash_: str) -> bool:
    """True where ESI can be asked for a killmail with this hash."""
    return bool(HASH.fullmatch(hash_))
