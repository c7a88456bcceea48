"""Errors of our own: an attempt of the id that is alone in its message, and no one's while several may be guilty.

What ESI and the database say of an id the unit of work books itself; an exception that leaves it is an outage's
(see `hold`), a bad message's (see `dead_letters`) or ours.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace
from typing import Any

import dramatiq

from esid import log
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, Stopping
from esid.queue.attempts import wait_s
from esid.queue.work import BadMessage
from esid.store import ledger, recoveries
from esid.store.connection import Store
from esid.store.model import Failure

#: Attempts at an id that crashes, in all.
CRASH_ATTEMPTS = 3
_log = log.get("work")


class Crashes(dramatiq.Middleware):
    """Counts an error of our own, or divides the message to find whose it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Book the error; while that cannot be written the message goes back."""
        if exception is None or isinstance(exception, (DatabaseUnavailable, BrokerUnavailable, Stopping, BadMessage)):
            return
        try:
            self._book(message, exception)
        except EsidError:
            message.requeue = True
        except Exception as error:  # noqa: BLE001
            # Dramatiq would say nothing of it, and acknowledge: the sweep asks for these ids again.
            words = f"what became of a message could not be written: {error!r}"
            log.event(_log, "work.unbooked", words, level=logging.ERROR)

    def _book(self, message: Any, exception: BaseException) -> None:
        """Of several ids nobody knows which one is guilty: the message is divided, uncounted, until that one is alone."""
        text = "".join(traceback.format_exception(exception))[-8000:]
        words = f"{type(exception).__name__}: {exception}"[:500]
        failure = Failure("crash", words, max_attempts=CRASH_ATTEMPTS, traceback=text)
        entity, ids = message.actor_name, list(message.args[0])
        jobs = ledger.take(self._store, entity, ids, quarantined=True)
        if len(jobs) > 1:
            recoveries.divide(self._store, entity, [job.id for job in jobs])
            words = f"{words}; the ids are asked for in smaller messages"
            log.event(_log, "work.divided", words, level=logging.WARNING, entity=entity, ids=len(jobs))
            return
        waits = {job.id: wait_s(job.retry_count + 1) for job in jobs if job.retry_count + 1 < CRASH_ATTEMPTS}
        ledger.retry(self._store, entity, waits, {job.id: replace(failure, attempt=job.retry_count) for job in jobs})
        log.event(_log, "work.crashed", words, level=logging.ERROR, entity=entity, ids=len(ids))
