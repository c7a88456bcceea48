"""What comes off a queue, before anything is done with it: decoded, its shape checked, bad ones recorded, others parked.

A broker is an input, not a friend: bytes of any shape must neither stop a consumer nor vanish.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import dramatiq
from dramatiq.errors import DecodeError

from esid import clock, log
from esid.errors import DatabaseUnavailable, EsidError
from esid.store import dead_letters
from esid.store.connection import Store

T = TypeVar("T")
_log = log.get("queue")
#: Seconds after which a message whose actor nobody here knows is to be had again, by a newer worker.
PARKED_S = 10.0
#: Seconds between looks of a consumer whether it is to end, once its worker stops.
STOPPING_LOOK_S = 0.05
#: The option of a message whose ids may kill their worker.
QUARANTINE = "quarantine"
_SHAPE = {
    "queue_name": str, "actor_name": str, "args": (list, tuple), "kwargs": dict, "options": dict, "message_id": str,
    "message_timestamp": int,
}  # fmt: skip
#: The options that our messages have, in this and every older release, and what they may be. Any other may mean something
#: to Dramatiq: a `throws` that is no exception ends the thread that works on the message.
_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "broker_priority": lambda value: value is None or (type(value) is int and 0 <= value <= 255),
    QUARANTINE: lambda value: isinstance(value, bool),
}


class NoMessage(EsidError):
    """Bytes on a queue that are no message of ours."""


def is_recorded(store: Store, body: str, error: NoMessage) -> bool:
    """Record bytes that are no message; False while that cannot be: they come again later, and keep no other waiting."""
    try:
        dead_letters.add_message(store, "bad_message", str(error), body)
    except DatabaseUnavailable as away:
        log.outage("database").down(away)
        return False
    except EsidError as refusal:
        log.event(_log, "queue.not_recorded", f"{refusal}; tried again", level=logging.WARNING)
        return False
    return True


def decode(body: bytes, queue: str) -> dramatiq.Message[Any]:
    """The message in these bytes.

    Args:
        queue: where they came from; a message that names another one is none of ours.

    Raises:
        NoMessage: they are none, or of another shape than those that we publish.
    """
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(body)
    except (DecodeError, TypeError, ValueError, RecursionError) as error:
        raise NoMessage(f"not a message: {str(error)[:200]}") from None
    for name, kind in _SHAPE.items():
        if not isinstance(getattr(message, name), kind):  # type: ignore[arg-type]
            raise NoMessage(f"not a message: {name} is {getattr(message, name)!r:.80}")
    if message.queue_name != queue:
        raise NoMessage(f"not a message for this queue but for {message.queue_name[:80]!r}")
    if "eta" in message.options:
        raise NoMessage("a message with a delay; delays are kept in the ledger")
    for option, value in message.options.items():
        if option not in _OPTIONS or not _OPTIONS[option](value):
            raise NoMessage(f"not a message of ours: it has the option {option!r:.80} with the value {value!r:.80}")
    return message


class Parked(Generic[T]):
    """Messages that are kept for a while before they are given back. Safe from every thread."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, T]] = []
        self._lock = threading.Lock()

    def add(self, what: T, seconds: float) -> None:
        """Keep it for so long."""
        with self._lock:
            self._kept.append((clock.monotonic() + seconds, what))

    def due(self) -> list[T]:
        """Take out what has been kept long enough."""
        now = clock.monotonic()
        with self._lock:
            out = [what for at, what in self._kept if at <= now]
            self._kept = [(at, what) for at, what in self._kept if at > now]
        return out

    def wait_s(self, most: float) -> float:
        """Seconds until the next one is due, but `most` of them."""
        with self._lock:
            due_s = [at - clock.monotonic() for at, _ in self._kept]
        return max(0.0, min([most, *due_s]))


class Moves:
    """When each consumer of a process last moved: what tells a consumer that hangs from one that has nothing to do."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def move(self, queue: str) -> None:
        """The consumer of this queue is alive."""
        self._at[queue] = clock.monotonic()

    def oldest(self) -> float:
        """When the slowest consumer moved; now where there is none."""
        return min(list(self._at.values()), default=clock.monotonic())
