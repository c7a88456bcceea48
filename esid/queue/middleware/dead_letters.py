"""Dead-lettering of messages that carry no usable work: unknown actor, wrong arguments.

The record is written before the broker forgets the message (RabbitMQ's own dead letters end after seven days and keep
no reason). Ids that fail are recorded by `retries`.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

from esid import log
from esid.errors import EsidError
from esid.queue.actors import BadMessage
from esid.store import dead_letters
from esid.store.connection import Store

_log = log.get("work")


class DeadLetters(dramatiq.Middleware):
    """Records what is rejected."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
        words = str(exception) if exception else "rejected"
        body = message._message.encode().decode("utf-8", "backslashreplace")
        try:
            dead_letters.add_message(self._store, reason, words, body)
        except EsidError:
            # No record, no rejection: it is delivered again.
            message.requeue = True
            return
        log.event(_log, "work.dead", words, level=logging.WARNING, reason=reason, actor=message.actor_name)
