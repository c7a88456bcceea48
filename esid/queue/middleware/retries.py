"""The one layer that retries: failed ids wait in the ledger, in the transaction that counts the attempt.

No message is delayed in a worker's memory, and no retry depends on the broker being there.

| failure                                    | attempts in all | wait before the next, seconds (full jitter)  |
|--------------------------------------------|-----------------|----------------------------------------------|
| unavailable (5xx, network, timeout)        | 10              | up to 2, 4, 8, 16, 32, 64, 128, 256, 300     |
| bad_body (not JSON, empty, truncated)      | 2               | up to 2                                      |
| crash (an error of our own)                | 3               | up to 2, 4                                   |
| bad_field, too_large, wrong_pair, http_4xx | 1               | dead letter                                  |
| not_found                                  | 1               | dead letter; asked again after 21 days       |
| held, stopping, database or broker away    | not counted     | see `hold`                                   |
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Sequence
from typing import Any

import dramatiq

from esid import log
from esid.entities.base import Failed
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, EsiError, EsiUnavailable, Stopping
from esid.queue.actors import BadMessage, Unfinished
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Failure

#: Seconds: upper bound of the first wait, doubling up to the longest.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
CRASH_ATTEMPTS = 3
#: Messages in a row without an answer after which a process says that ESI is away.
OUTAGE_AFTER = 5
_log = log.get("work")


class Retries(dramatiq.Middleware):
    """Counts failed attempts and lets them wait, or gives up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._esi = log.outage("esi")
        self._unavailable_in_a_row = 0

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Write what becomes of each failed id; while that cannot be written the message goes back."""
        self._watch_esi(exception)
        if exception is None or isinstance(exception, (DatabaseUnavailable, BrokerUnavailable, Stopping, BadMessage)):
            return
        try:
            if isinstance(exception, Unfinished):
                self._retry(exception.entity, exception.failed)
            else:
                self._crashed(message, exception)
        except EsidError:
            message.requeue = True

    def _watch_esi(self, exception: BaseException | None) -> None:
        """Say once when ESI does not answer any more, and once when it does again; a failure now and then is no news."""
        if exception is None:
            self._unavailable_in_a_row = 0
            self._esi.up()
        elif isinstance(exception, Unfinished) and exception.failed:
            error = exception.failed[-1].error
            if isinstance(error, EsiUnavailable):
                self._unavailable_in_a_row += 1
                if self._unavailable_in_a_row >= OUTAGE_AFTER:
                    self._esi.down(f"ESI does not answer ({error})")

    def _retry(self, entity: str, failed: Sequence[Failed]) -> None:
        failures = {one.job.id: _failure(one.error) for one in failed}
        waits = {
            one.job.id: wait_s(one.job.retry_count + 1) for one in failed if one.job.retry_count + 1 < one.error.max_attempts
        }
        ledger.retry(self._store, entity, waits, failures)
        for one in failed:
            self._say(entity, one, waits.get(one.job.id))

    def _crashed(self, message: Any, exception: BaseException) -> None:
        """An error of our own: every id of the message has had an attempt."""
        text = "".join(traceback.format_exception(exception))[-8000:]
        words = f"{type(exception).__name__}: {exception}"[:500]
        failure = Failure("crash", words, max_attempts=CRASH_ATTEMPTS, traceback=text)
        entity, ids = message.actor_name, list(message.args[0])
        jobs = ledger.take(self._store, entity, ids, quarantined=True)
        waits = {job.id: wait_s(job.retry_count + 1) for job in jobs if job.retry_count + 1 < CRASH_ATTEMPTS}
        ledger.retry(self._store, entity, waits, {job.id: failure for job in jobs})
        log.event(_log, "work.crashed", words, level=logging.ERROR, entity=entity, ids=len(ids))

    def _say(self, entity: str, failed: Failed, waits_s: float | None) -> None:
        if waits_s is None:
            fields = {"entity": entity, "id": failed.job.id, "reason": failed.error.reason}
            log.event(_log, "work.dead", str(failed.error), level=logging.WARNING, **fields)
        else:
            fields = {
                "entity": entity,
                "id": failed.job.id,
                "attempt": failed.job.retry_count + 1,
                "again_in_s": waits_s,
            }
            log.event(_log, "work.retried", str(failed.error), level=logging.DEBUG, **fields)


def wait_s(attempt: int) -> float:
    """Seconds before the attempt after this one: uniform from 0 to 2, 4, 8 ... 300."""
    return random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (attempt - 1)))  # noqa: S311


def _failure(error: EsiError) -> Failure:
    return Failure(
        reason=error.reason,
        message=str(error),
        max_attempts=error.max_attempts,
        ask_again_after_s=error.ask_again_after_s,
        status=error.status,
        sample=error.sample.decode("utf-8", "backslashreplace"),
    )
