"""Dead-lettering of messages that carry no usable work: unknown actor (for a while it is left to others), wrong arguments.

The record is written before the broker forgets the message (RabbitMQ's own dead letters end after seven days and keep
no reason). The unit of work records the ids that fail.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

from esid import clock, log
from esid.errors import EsidError
from esid.queue.incoming import PARKED_S
from esid.queue.work import BadMessage
from esid.store import dead_letters
from esid.store.connection import Store

_log = log.get("work")


#: Seconds for which a message of an unknown actor goes back to the queue: during an upgrade a newer worker knows it.
UNKNOWN_S = 600.0
_MOST_SEEN = 10_000


class DeadLetters(dramatiq.Middleware):
    """Records what is rejected."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._first_seen: dict[str, float] = {}

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """A message with wrong arguments will not get better; one that our function cannot even take neither."""
        if isinstance(exception, BadMessage):
            message.fail()

    def before_nack(self, broker: dramatiq.Broker, message: Any) -> None:
        """Write the record."""
        exception = message._exception
        reason = "unknown_actor" if isinstance(exception, ActorNotFound) else "bad_message"
        if reason == "unknown_actor" and self._may_be_known_elsewhere(message.message_id):
            message.requeue, message.parked_s = True, PARKED_S
            return
        words = str(exception) if exception else "rejected"
        body = message._message.encode().decode("utf-8", "backslashreplace")
        try:
            dead_letters.add_message(self._store, reason, words, body)
        except EsidError:
            # No record, no rejection: it is delivered again.
            message.requeue = True
            return
        self._first_seen.pop(message.message_id, None)
        log.event(_log, "work.dead", words, level=logging.WARNING, reason=reason, actor=message.actor_name)

    def _may_be_known_elsewhere(self, message_id: str) -> bool:
        """True for the first minutes after this process has seen the message; a restart begins them again."""
        if len(self._first_seen) > _MOST_SEEN:
            self._first_seen.clear()
        now = clock.monotonic()
        return now - self._first_seen.setdefault(message_id, now) < UNKNOWN_S
