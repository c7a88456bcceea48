"""The pairs of one large JSON object as they stream by, so that memory holds one value and not a day."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from esid.entities.killmail_body import LARGEST_KILLMAIL
from esid.errors import DamagedArchive
from esid.esi.decode import STRICT

_CHUNK = 256 * 1024
_BLANKS = " \t\r\n"
#: What may stand behind a key or a value.
_ENDS = frozenset(_BLANKS + ":,}")


def pairs(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """(key, value) of every pair of the object, in order, read as strictly as an answer of ESI.

    Raises:
        DamagedArchive: it is no JSON object, or ends too early.
    """
    text = _Text(stream)
    text.expect("{")
    if text.next_is("}"):
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise DamagedArchive("a key is no text")
        text.expect(":")
        yield key, text.value()
        if text.next_is("}"):
            return
        text.expect(",")


class _Text:
    """The unread part of the text."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._is_end = "", 0, False

    def expect(self, sign: str) -> None:
        """Pass one sign. Raises DamagedArchive where another stands."""
        if not self.next_is(sign):
            found = self._text[self._at : self._at + 20]
            raise DamagedArchive(f"{sign!r} is missing before {found!r}" if found else "it ends in the middle")

    def next_is(self, sign: str) -> bool:
        """Pass blanks, and one sign where it stands next."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                break
        if self._text[self._at : self._at + 1] != sign:
            return False
        self._at += 1
        return True

    def value(self) -> Any:
        """The next value. A number may go on in the next chunk, so a value counts once its end stands behind it."""
        self.next_is("\0")
        while True:
            try:
                value, end = STRICT.raw_decode(self._text, self._at)
                length = end - self._at
                if self._text[end : end + 1] in _ENDS or not self._more():
                    self._at += length
                    return value
            except RecursionError:
                raise DamagedArchive("a value is nested too deep") from None
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LARGEST_KILLMAIL or not self._more():
                    raise DamagedArchive(f"a value is not JSON or ends too early: {error.msg}") from None
            except ValueError as error:
                raise DamagedArchive(f"a value is not JSON: {str(error)[:80]}") from None

    def _more(self) -> bool:
        """Read on; False at the end."""
        if self._is_end:
            return False
        try:
            data = self._stream.read(_CHUNK)
            self._is_end = not data
            self._text = self._text[self._at :] + self._decoder.decode(data, final=not data)
            self._at = 0
        except (EOFError, OSError, UnicodeDecodeError) as error:
            raise DamagedArchive(str(error)[:200]) from error
        return not self._is_end
