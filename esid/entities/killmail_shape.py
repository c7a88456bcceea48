"""The body of a killmail as every well-formed one is, checked and read in one pass (msgspec).

What fits has exactly the types and ranges that its columns must have. What does not fit is no error here: it is read
again field by field, which says what is wrong with it or that it is only unusual (an item that lies in another, an
offset in a time).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

_Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Number = Annotated[float, Meta(gt=-1e300, lt=1e300)]
#: What msgspec raises at what does not fit; the last at lone surrogates.
_UNFIT = (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError)


class _Somebody(Struct, kw_only=True, gc=False, omit_defaults=True):
    character_id: _Id | None = None
    corporation_id: _Id | None = None
    alliance_id: _Id | None = None
    faction_id: _Id | None = None


class Attacker(_Somebody, kw_only=True, gc=False, omit_defaults=True):
    """The fields stand in the order of the columns."""

    ship_type_id: _Id | None = None
    weapon_type_id: _Id | None = None
    damage_done: _Integer
    final_blow: bool
    security_status: _Number


class Item(Struct, kw_only=True, gc=False, omit_defaults=True):
    """The fields stand in the order of the columns, `items` in the place of the container's number."""

    items: None = None
    item_type_id: _Id
    flag: _Integer
    quantity_dropped: _Integer | None = None
    quantity_destroyed: _Integer | None = None
    singleton: _Integer


class Position(Struct, gc=False):
    """In metres from the sun."""

    x: _Number
    y: _Number
    z: _Number


class Victim(_Somebody, kw_only=True, gc=False, omit_defaults=True):
    """The first six fields stand in the order of the columns."""

    ship_type_id: _Id
    damage_taken: _Integer
    position: Position
    items: list[Item] | None = None


class Killmail(Struct, kw_only=True, gc=False, omit_defaults=True):
    """ESI's body. `killmail_id` is for the caller to compare."""

    killmail_time: str
    solar_system_id: _Id
    moon_id: _Id | None = None
    war_id: _Id | None = None
    victim: Victim
    attackers: list[Attacker]


class Archived(Killmail, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """ESI's body as EVE Ref keeps it, and no field more."""

    killmail_id: _Id
    killmail_hash: str
    http_last_modified: Any = None


_archived, _json = msgspec.json.Decoder(Archived), msgspec.json.Encoder()


def of_value(value: Any) -> Killmail | None:
    """The shape of decoded JSON; fields that nobody knows are passed over. None: read it field by field."""
    try:
        return msgspec.convert(value, Killmail)
    except _UNFIT:
        return None


def of_text(text: bytes) -> Archived | None:
    """The shape of JSON text, where nothing in it was passed over. None: parse it and read it field by field."""
    # msgspec takes the last of two values of one key, and does not look at the encoding of what it passes over. In a text
    # without escapes each key, and each sign of a text, is one colon or none: as many as in the shape, or there is more.
    if not text.isascii() or b"\\" in text:
        return None
    try:
        shape = _archived.decode(text)
        return shape if text.count(b":") == _json.encode(shape).count(b":") else None
    except _UNFIT:
        return None
