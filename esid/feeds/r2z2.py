"""zKillboard's R2Z2: numbered files, one killmail each, for at least 24 h. The page of this feed.

`/ephemeral/sequence.json` names a recent number (it lags by up to 51 files), `/ephemeral/N.json` is a killmail with
ESI's body and zKillboard's values, or a 404 where N is not there yet. A killmail that is worked out anew gets another
number; `sequence_updated` names an older one whose file was written anew. Now and then a number stays without a file.
Rules: at most 15 requests a second, 6 s after a 404, a User-Agent, 429 obeyed (https://zkillboard.com/api/docs/,
2026-09-01).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from esid import bounds, clock
from esid.entities.killmail import rows_of
from esid.entities.killmail_body import read
from esid.errors import BadBody, BadField, NotFound, Refused, TooLarge
from esid.esi.decode import Fields, check_id, parse_json
from esid.feeds.feed import Feed, Part, Raw
from esid.feeds.hashes import check_hash
from esid.feeds.http import Source
from esid.store.cursors import Cursor
from esid.store.model import Done

NAME = "zkillboard"
#: Seconds: after a 404; that a file stays away before the present is looked up; that a file lives at least.
AFTER_404_S, STUCK_S, LIFE_S = 6.0, 60.0, 86_400.0
#: Numbers without a file in a row that are passed one by one, and files behind the present that are not read one by one.
MOST_HOLES, FAR = 3, 500
#: Numbers that the present may lie behind a cursor before the sequence counts as begun anew (it lags by 51).
_LAG = 1000
_VALUES = {
    "total_value": "totalValue",
    "destroyed_value": "destroyedValue",
    "dropped_value": "droppedValue",
    "fitted_value": "fittedValue",
}
_KNOWN = frozenset({"killmail_id", "hash", "esi", "zkb", "uploaded_at", "sequence_id", "sequence_updated"})
_KNOWN_VALUES = frozenset(
    {*_VALUES.values(), "locationID", "hash", "points", "npc", "solo", "awox", "labels", "attackerCount", "href"}
)


def feed(after_404_s: float = AFTER_404_S, stuck_s: float = STUCK_S) -> Feed:
    """The feed, with its own memory of what stays away. The seconds are zKillboard's rule; tests take shorter ones."""
    return Feed(NAME, start, _Reader(after_404_s, stuck_s).fetch, decode)


def start(source: Source) -> str:
    """The present."""
    body = parse_json(source.get("/ephemeral/sequence.json"))
    return str(Fields("sequence.json", body).id("sequence"))


class _Reader:
    """Reads file after file, and finds its way where a file stays away."""

    def __init__(self, after_404_s: float, stuck_s: float) -> None:
        self._after_404_s, self._stuck_s = after_404_s, stuck_s
        self._away_since: float | None = None
        self._head_at = 0.0
        self._is_late = False
        self._holes = 0

    def fetch(self, source: Source, cursor: Cursor) -> Part:
        """The file at the cursor, and the older one that it says was written anew."""
        number = _number(cursor.position)
        if self._away_since is not None and clock.monotonic() >= self._head_at and (part := self._found(source, number)):
            return part
        try:
            bodies = [_file(source, number)]
        except NotFound:
            source.hold(self._after_404_s)
            return self._away(number, cursor.moved_at)
        self._away_since, self._is_late, self._holes = None, False, 0
        if older := _rewritten(bodies[0], number):
            try:
                bodies.append(_file(source, older))
            except NotFound:
                # It has expired: what it said is what stands in the newer file.
                source.hold(self._after_404_s)
                return Part(tuple(bodies), str(number + 1), self._after_404_s)
            except Refused as error:
                # Asking for the newer one again would end here again.
                bodies.append(Raw(f"sequence {older}", error.sample, error))
        return Part(tuple(bodies), str(number + 1))

    def _away(self, number: int, moved_at: dt.datetime | None) -> Part:
        """There is no such file: wait. When it stays away, or must have expired, the present is looked up next."""
        if self._away_since is None:
            self._away_since = clock.monotonic()
            self._head_at = self._away_since + self._stuck_s
        if moved_at is not None and (clock.now() - moved_at).total_seconds() > LIFE_S:
            self._is_late, self._head_at = True, 0.0
        return Part((), str(number), self._after_404_s)

    def _found(self, source: Source, number: int) -> Part | None:
        """Where to go on, after a look at the present; None = stay."""
        head = _number(start(source))
        self._head_at = clock.monotonic() + self._stuck_s
        if head <= number and head + _LAG > number:
            return None
        self._away_since = None
        is_late, self._is_late = self._is_late, False
        self._holes += 1
        if number < head <= number + FAR and self._holes <= MOST_HOLES and not is_late:
            return Part((), str(number + 1), news=f"sequence {number} has no file and is passed")
        self._holes = 0
        if head < number:
            return Part((), str(head), news=f"the sequence was begun anew: from {number} to {head}")
        words = f"the files from sequence {number} to {head - 1} have expired or are missing; the history will fill the gap"
        return Part((), str(head), news=words)


def decode(body: bytes) -> Done:
    """A killmail with zKillboard's values. Of two files about one killmail, the one uploaded later stands.

    Raises:
        BadBody, BadField: naming the killmail, the field and its value.
    """
    value = parse_json(body)
    key = Fields("feed", value).id("killmail_id")
    fields = Fields(f"killmail {key}", value)
    hash_ = check_hash(key, fields.text("hash"))
    esi = fields.object("esi")
    found = read(key, hash_, esi.value)
    if esi.id("killmail_id") != key:
        raise BadField(f"killmail {key} esi", "killmail_id", esi.value["killmail_id"])
    values, checked_at, unknown = _values(fields)
    return Done(
        id=key,
        rows=tuple(rows_of(found, values)),
        seen=tuple(found.seen()),
        argument=hash_,
        checked_at=checked_at,
        unknown=(*found.unknown, *fields.unknown(_KNOWN), *unknown),
    )


def _values(fields: Fields) -> tuple[dict[str, Any] | None, dt.datetime | None, list[str]]:
    """zKillboard's columns, since when they are so, and names that nobody here knows. Where they are spoiled the killmail is
    still whole: it has none then, and that is counted among what nobody knows."""
    try:
        zkb = fields.object("zkb")
        values: dict[str, Any] = {column: zkb.number(name, optional=True) for column, name in _VALUES.items()}
        values["points"] = zkb.integer("points", optional=True)
        values |= {name: zkb.flag(name, optional=True) for name in ("npc", "solo", "awox")}
        return values, _uploaded_at(fields), [f"zkb.{name}" for name in zkb.unknown(_KNOWN_VALUES)]
    except BadField:
        return None, None, ["zkb (spoiled)"]


def _uploaded_at(fields: Fields) -> dt.datetime | None:
    seconds = fields.integer("uploaded_at", optional=True)
    try:
        time = None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        raise BadField("feed", "uploaded_at", seconds) from None
    # One from the future would have its values stand for ever.
    return bounds.happened(time, clock.now())


def _file(source: Source, number: int) -> Raw:
    """One file, of which too large a one is its beginning. Raises as `Source.get` otherwise."""
    try:
        return Raw(f"sequence {number}", source.get(f"/ephemeral/{number}.json"))
    except TooLarge as error:
        return Raw(f"sequence {number}", error.sample, error)


def _rewritten(raw: Raw, number: int) -> int | None:
    """The older sequence that a file says was written anew. A spoiled body names none: `decode` says what is wrong."""
    if raw.error:
        return None
    try:
        value = parse_json(raw.body)
    except BadBody:
        return None
    older = value.get("sequence_updated") if isinstance(value, dict) else None
    return older if type(older) is int and 0 < older < number else None


def _number(position: str | None) -> int:
    text = position or ""
    return check_id(int(text) if text.isascii() and text.isdigit() else text, "feed", "position")
