"""What stands in a day archive: EVE Ref's tar.bz2 and zKillboard's raw JSON, killmail after killmail.

A member that cannot be read is a `BadMember` and the others go on; a damaged file ends the iteration with DamagedArchive.
Facts: EVE Ref holds ESI's body with `killmail_hash` and `http_last_modified` (seen in seven archives); zKillboard's raw
files hold ESI's body by id, the hashes stand in a file of their own.
"""

from __future__ import annotations

import bz2
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from esid.entities.killmail_body import Body, of_shape, read
from esid.entities.killmail_shape import of_text
from esid.errors import BadBody, BadField, DamagedArchive
from esid.esi.decode import Fields, check_id, parse_json
from esid.feeds.hashes import check_hash
from esid.feeds.http import LARGEST_FILE
from esid.feeds.json_stream import pairs
from esid.feeds.tar import members

#: Bytes that are decompressed at a time: a whole block of bzip2, whose tables then stay in the processor's cache.
_READ_BYTES = 1024 * 1024
#: Characters of a member's name that are kept.
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class BadMember:
    """A member that is no killmail, and why."""

    name: str
    why: str


def _refused(name: str, error: BadBody | BadField) -> BadMember:
    """With a name that is one line of a length that a person reads, whatever stands in the file."""
    return BadMember("".join(sign if sign.isprintable() else "?" for sign in name[:_LONGEST_NAME]), str(error))


class _Unpacked(io.RawIOBase):
    """What a file unpacks to. Each read ends with what there is, so that nothing good is lost to the damage behind it."""

    def __init__(self, file: bz2.BZ2File) -> None:
        self._file, self._left = file, LARGEST_FILE

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of the buffer."""
        data = self._file.read1(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DamagedArchive(f"it unpacks to more than {LARGEST_FILE >> 20} MiB")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def unpacked(file: BinaryIO) -> Iterator[BinaryIO]:
    """What a bz2 file unpacks to, read in large pieces."""
    with bz2.BZ2File(file) as unpacking, io.BufferedReader(_Unpacked(unpacking), _READ_BYTES) as stream:
        yield stream


def everef(file: BinaryIO, skip: int = 0) -> Iterator[Body | BadMember]:
    """The killmails of an EVE Ref archive.

    Args:
        skip: members that were read before; they are passed without a look.

    Raises:
        DamagedArchive: it ends too early, or is none.
    """
    with unpacked(file) as stream:
        for place, (name, content) in enumerate(members(stream)):
            if place >= skip:
                yield _everef(name, content)


def zkillboard(file: BinaryIO, hashes: Mapping[int, str], skip: int = 0) -> Iterator[Body | BadMember]:
    """The killmails of a raw file of zKillboard.

    Args:
        hashes: id -> hash, from the day's other file. Raises otherwise as `everef`.
    """
    for place, (name, value) in enumerate(pairs(file)):
        if place >= skip:
            yield _zkillboard(name, value, hashes)


def hashes_of(body: bytes) -> dict[int, str]:
    """Id -> hash of a day, from zKillboard's file. Pairs that are neither are left out: occasionally a hash is empty.

    Raises:
        BadBody: it is no JSON object.
    """
    found = {}
    try:
        for name, value in pairs(io.BytesIO(body)):
            try:
                found[_id(name)] = check_hash(_id(name), value)
            except BadField:
                continue
    except DamagedArchive as error:
        raise BadBody(f"the hashes: {error}", sample=body) from None
    return found


def _everef(name: str, content: bytes) -> Body | BadMember:
    try:
        if shape := of_text(content):
            key = shape.killmail_id
            if body := of_shape(key, check_hash(key, shape.killmail_hash), shape):
                return body
        value = parse_json(content)
        key = Fields("killmail", value).id("killmail_id")
        return read(key, check_hash(key, value.get("killmail_hash")), value)
    except (BadBody, BadField) as error:
        return _refused(name, error)


def _zkillboard(name: str, value: Any, hashes: Mapping[int, str]) -> Body | BadMember:
    try:
        key = _id(name)
        if Fields(f"killmail {key}", value).id("killmail_id") != key:
            raise BadField(f"killmail {key}", "killmail_id", value["killmail_id"])
        return read(key, check_hash(key, hashes.get(key)), value)
    except BadField as error:
        return _refused(name, error)


def _id(text: str) -> int:
    return check_id(int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text, "killmail")
