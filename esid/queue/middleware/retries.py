"""The one layer that retries: failed ids wait in the ledger, in the transaction that counts the attempt.

No message is delayed in a worker's memory, and no retry depends on the broker being there.

| failure                                    | attempts in all | wait before the next, seconds (full jitter)  |
|--------------------------------------------|-----------------|----------------------------------------------|
| unavailable (5xx, network, timeout)        | 10              | up to 2, 4, 8, 16, 32, 64, 128, 256, 300     |
| bad_body (not JSON, empty, truncated)      | 2               | up to 2                                      |
| crash (an error of our own)                | 3               | up to 2, 4                                   |
| bad_field, too_large, wrong_pair, http_4xx | 1               | dead letter                                  |
| not_found, never seen before               | 1               | dead letter                                  |
| not_found of what was there                | 3               | 300, 3600 (no jitter)                        |
| held, ESI or the route away, stopping,     | not counted     | see `hold`                                   |
| database or broker away                    |                 |                                              |

A dead letter is no row's end: no row is ever deleted. What was not found is asked again after 21 days, what was
unavailable or had a bad body a day later, for a week.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dramatiq

from esid import log
from esid.entities.base import Failed
from esid.errors import BrokerUnavailable, DatabaseUnavailable, EsidError, EsiError, NotFound, Stopping
from esid.queue.actors import BadMessage, Unfinished
from esid.store import ledger
from esid.store.connection import Store
from esid.store.model import Failure

#: Seconds: upper bound of the first wait, doubling up to the longest.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
#: Seconds between attempts at an id that was there before and now answers 404: one 404 is no death.
GONE_WAITS_S = (300.0, 3600.0)
CRASH_ATTEMPTS = 3
_log = log.get("work")


class Retries(dramatiq.Middleware):
    """Counts failed attempts and lets them wait, or gives up."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Write what becomes of each failed id; while that cannot be written the message goes back."""
        if exception is None or isinstance(exception, (DatabaseUnavailable, BrokerUnavailable, Stopping, BadMessage)):
            return
        try:
            if isinstance(exception, Unfinished):
                self._retry(exception.entity, exception.failed)
            else:
                self._crashed(message, exception)
        except EsidError:
            message.requeue = True
        except Exception as error:  # noqa: BLE001
            # Dramatiq would say nothing of it, and acknowledge: the sweep asks for these ids again.
            words = f"what became of a message could not be written: {error!r}"
            log.event(_log, "work.unbooked", words, level=logging.ERROR)

    def _retry(self, entity: str, failed: Sequence[Failed]) -> None:
        failures = {one.job.id: replace(_failure(one.error), argument=one.job.argument) for one in failed}
        waits = {one.job.id: wait for one in failed if (wait := _wait_of(one)) is not None}
        counted = ledger.retry(self._store, entity, waits, failures)
        for one in failed:
            if one.job.id in counted:
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


def _wait_of(failed: Failed) -> float | None:
    """Seconds before the next attempt; None = it is given up."""
    attempt = failed.job.retry_count + 1
    if isinstance(failed.error, NotFound) and failed.job.checked_at is not None:
        return GONE_WAITS_S[attempt - 1] if attempt <= len(GONE_WAITS_S) else None
    return wait_s(attempt) if attempt < failed.error.max_attempts else None


def wait_s(attempt: int) -> float:
    """Seconds before the attempt after this one: uniform from 0 to 2, 4, 8 ... 300."""
    return random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (attempt - 1)))  # noqa: S311


def _failure(error: EsiError) -> Failure:
    return Failure(
        reason=error.reason,
        message=str(error),
        max_attempts=error.max_attempts,
        ask_again_after_s=error.ask_again_after_s,
        ask_again_for_s=error.ask_again_for_s,
        status=error.status,
        sample=error.sample.decode("utf-8", "backslashreplace"),
    )
