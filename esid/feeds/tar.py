"""The members of a tar archive as they stream by. Strict: Python's `tarfile` takes an archive that is cut off between
two members for a whole one; here only the end-of-archive mark is the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from esid.entities.killmail_body import LARGEST_KILLMAIL
from esid.errors import DamagedArchive

_BLOCK = 512
_EMPTY = bytes(_BLOCK)
_FILES = b"0\0"


class Readable(Protocol):
    """What is read: a file, or a stream that decompresses one."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or fewer at the end."""


def members(stream: Readable) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file in an uncompressed archive, in order.

    Raises:
        DamagedArchive: it ends too early, or is none.
    """
    while (header := _read(stream, _BLOCK)) != _EMPTY:
        size = _number(header[124:136])
        if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise DamagedArchive("what should be the head of a member is none")
        if not 0 <= size <= LARGEST_KILLMAIL:
            raise DamagedArchive(f"a member is larger than {LARGEST_KILLMAIL >> 20} MiB")
        content = _read(stream, -(-size // _BLOCK) * _BLOCK)[:size]
        # Whatever is neither a file nor a mark (folders, long names, comments) tells nothing about killmails.
        if header[156] in _FILES:
            yield header[:100].rstrip(b"\0").decode("utf-8", "replace"), content


def _read(stream: Readable, size: int) -> bytes:
    try:
        data = stream.read(size)
    except (EOFError, OSError) as error:
        raise DamagedArchive(str(error)) from error
    if len(data) < size:
        raise DamagedArchive("it ends in the middle")
    return data


def _number(field: bytes) -> int:
    """An octal number, in spaces or NULs; anything else is the sign of damage."""
    text = field.strip(b" \0")
    if not text or not text.isdigit():
        return 0 if not text else -1
    try:
        return int(text, 8)
    except ValueError:
        return -1
