"""What a feed of killmails is: cursor, fetch, decode. Another one is a page like `r2z2.py`, named in `daemon.roles.feed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from esid.errors import EsiError
from esid.feeds.http import Source
from esid.store.cursors import Cursor
from esid.store.model import Done


@dataclass(frozen=True, slots=True)
class Raw:
    """One body as it came.

    Attributes:
        where: where it stood, for a person: like `sequence 96088891`.
        error: why it was not read to its end; its beginning is kept for a person to look at.
    """

    where: str
    body: bytes
    error: EsiError | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one look at a feed brought.

    Attributes:
        bodies: in the order in which they are to be written; () where there is nothing yet.
        position: what is read next.
        wait_s: seconds before the next look, beyond the source's pace.
        news: one line for the log, where the position does more than move on.
    """

    bodies: tuple[Raw, ...]
    position: str
    wait_s: float = 0.0
    news: str = ""


@dataclass(frozen=True)
class Feed:
    """One feed.

    Attributes:
        name: in the table `feed_cursors`, in log lines and in `esid status`.
        start: the present: where a new installation begins to read.
        fetch: what stands at a cursor. Raises as `Source.get`; keeps nothing that a restart must not lose.
        decode: what a body means, checked as strictly as an answer of ESI. Raises BadBody, BadField.
    """

    name: str
    start: Callable[[Source], str]
    fetch: Callable[[Source, Cursor], Part]
    decode: Callable[[bytes], Done]
