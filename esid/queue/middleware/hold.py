"""ESI's limits and outages as Dramatiq sees them: what the budget holds waits. Waiting is no failure and no attempt.

Before a message is begun its thread waits out a 420, an outage or an empty bucket, and at a stop or after 10 minutes
gives the message back. The 10 minutes are counted from its delivery: those that wait behind it in the worker's memory
hold theirs too. What is interrupted in the middle the unit of work has put back into the ledger.
"""

from __future__ import annotations

import datetime as dt
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.middleware import SkipMessage

from esid import clock, log
from esid.clock import Stop
from esid.entities import BY_NAME, ENTITIES
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, HeldAlone, Stopping
from esid.store import ledger
from esid.store.connection import Store

if TYPE_CHECKING:
    from esid.esi.client import Client

#: Seconds that a message is held unacknowledged at most: far less than RabbitMQ's consumer timeout of 30 minutes.
LONGEST_HOLD_S = 600.0
#: Seconds between two looks while holding.
_LOOK_S = 0.5
#: Seconds to wait after the database or the broker was found away, at least and at most.
_AWAY_S, _LONGEST_AWAY_S = 1.0, 15.0
#: How a reason begins that is one of ESI's limits.
_LIMITS = ("420", "429", "bucket", "error limit")
_log = log.get("hold")


class Hold(dramatiq.Middleware):
    """Holds messages while the budget, the database or a stop says so."""

    def __init__(self, store: Store, client: Client, stop: Stop) -> None:
        self._store, self._client, self._stop = store, client, stop
        self._away_s = _AWAY_S
        self._held_until = 0.0

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        """Wait while nothing may leave on the message's route; a message that waits too long is given back."""
        entity = BY_NAME.get(message.actor_name)
        ends_at = message.received_at + LONGEST_HOLD_S
        while entity and not self._stop.is_set() and (held_s := self._client.hold_s(entity.route)) > 0:
            self._say(held_s, "held before it was begun")
            if clock.monotonic() + min(held_s, _LOOK_S) > ends_at:
                message.requeue = True
                raise SkipMessage("held for too long")
            self._stop.wait(min(held_s, _LOOK_S))

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Give the message back where its work was not done, and wait while the database or the broker is away."""
        if isinstance(exception, Stopping):
            message.requeue = True
        elif isinstance(exception, (DatabaseUnavailable, BrokerUnavailable)):
            self._wait_out(message, exception)
        elif exception is None:
            self._away_s = _AWAY_S
        if outcome := message.outcome:
            message.requeue |= outcome.goes_back
            if outcome.held and not isinstance(outcome.held, HeldAlone):
                self._say(outcome.held.wait_s, outcome.held.reason)
        self._take_back()

    def _take_back(self) -> None:
        """What an outage that is over did to ids is undone."""
        for path, since in self._client.outages_over().items():
            names = [entity.name for entity in ENTITIES if entity.route.path == path] or list(BY_NAME)
            with suppress(EsidError):
                count = ledger.revive(self._store, names, dt.datetime.fromtimestamp(since, dt.UTC))
                self._client.forget_outage(path, since)
                if count:
                    words = "ids that failed shortly before an outage and in it are asked again, uncounted"
                    log.event(_log, "work.revived", words, ids=count)

    def _wait_out(self, message: Any, error: Exception) -> None:
        message.requeue = True
        log.outage("rabbitmq" if isinstance(error, BrokerUnavailable) else "database").down(error)
        self._stop.wait(random.uniform(self._away_s / 2, self._away_s))  # noqa: S311
        self._away_s = min(_LONGEST_AWAY_S, self._away_s * 2)

    def _say(self, wait_s: float, reason: str) -> None:
        """One line for each hold of a process, however many threads wait; the breaker has told of an outage itself."""
        now = clock.monotonic()
        if now >= self._held_until and not self._client.is_away():
            self._held_until = now + max(wait_s, 10.0)
            words = "ESI's limit is reached, work waits" if reason.startswith(_LIMITS) else "work waits"
            log.event(_log, "esi.held", words, reason=reason, for_s=round(wait_s, 1))
