"""The one layer that retries: failed ids wait in the ledger, in the transaction that counts the attempt.

No message is delayed in a worker's memory, and no retry depends on the broker being there.

| failure                                    | attempts in all | wait before the next, seconds (full jitter)  |
|--------------------------------------------|-----------------|----------------------------------------------|
| unavailable (5xx, network, timeout, a code | 10              | up to 2, 4, 8, 16, 32, 64, 128, 256, 300     |
| of a proxy or ban)                         |                 |                                              |
| bad_body (not JSON, empty, truncated)      | 2               | up to 2                                      |
| crash (an error of our own, or a value     | 3               | up to 2, 4                                   |
| that the database refuses) of one id alone |                 |                                              |
| anything else, of what never had an answer | 1               | dead letter                                  |
| anything else, of what had an answer once  | 3               | 300, 3600 (no jitter)                        |
| held, ESI or the route away, stopping,     | not counted     | see `hold`                                   |
| database or broker away                    |                 |                                              |

Ids that failed wait for one another, too, so that their attempts take no more than half of the error limit. What
failed between the last good answer before an outage and its end was the outage's: it is asked again, uncounted
(`hold`).

A dead letter is no row's end: no row is ever deleted, and nothing is given up for good. What was not found is asked
again after 21 days, what was unavailable or had a bad body a day later for a week; else, and then, what had an answer
once is asked again after a day, and what never had one after a week. What never had an answer is asked again hourly for
a day where its route has answered nobody else in the minute before: it may be the route's fault.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dramatiq

from esid import log
from esid.entities import BY_NAME
from esid.entities.base import Failed
from esid.errors import DAY_S, BrokerUnavailable, DatabaseUnavailable, EsidError, EsiError, Stopping
from esid.queue.work import BadMessage, Unfinished
from esid.store import ledger, recoveries
from esid.store.connection import Store
from esid.store.model import Failure, Job

if TYPE_CHECKING:
    from esid.esi.client import Client

#: Seconds: upper bound of the first wait, doubling up to the longest.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
#: Seconds between attempts at an id that had an answer before and has none now: one look is no death.
GONE_WAITS_S = (300.0, 3600.0)
CRASH_ATTEMPTS = 3
#: Seconds after which an id that never had an answer is asked again, where nothing tells that it is the id's fault.
DOUBTED_S = 3600.0
#: Seconds, and up to twice as many, that what failed in an outage waits: about a probe.
OUTAGE_S = 6.0
_log = log.get("work")


class Retries(dramatiq.Middleware):
    """Counts failed attempts and lets them wait, or gives up."""

    def __init__(self, store: Store, client: Client) -> None:
        self._store, self._client = store, client

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
        outage = {one.job.id for one in failed if self._client.was_outage(one.error.path, one.error.at)}
        # An outage that nobody knew of yet when they failed: they are open, as those that it held.
        ledger.defer(self._store, entity, sorted(outage), random.uniform(OUTAGE_S, 2 * OUTAGE_S))  # noqa: S311
        failed = [one for one in failed if one.job.id not in outage]
        failures = {
            one.job.id: replace(self._failure(one), argument=one.job.argument, attempt=one.job.retry_count) for one in failed
        }
        waits = {one.job.id: wait for one in failed if (wait := self._wait_of(entity, one)) is not None}
        counted = ledger.retry(self._store, entity, waits, failures)
        for one in failed:
            if one.job.id in counted:
                self._say(entity, one, waits.get(one.job.id))

    def _failure(self, failed: Failed) -> Failure:
        """What is booked. Of an id without any answer before it is not known who failed, where its route has answered nobody
        else lately: it is asked again soon."""
        failure = _failure(failed.error)
        if _had_answer(failed.job) or not failed.error.path or self._client.has_answered(failed.error.path):
            return failure
        after_s = min(failure.ask_again_after_s or DOUBTED_S, DOUBTED_S)
        return replace(failure, ask_again_after_s=after_s, ask_again_for_s=DAY_S)

    def _wait_of(self, entity: str, failed: Failed) -> float | None:
        """Seconds before the next attempt; None = it is given up."""
        attempt, most = failed.job.retry_count + 1, failed.error.max_attempts
        if attempt < most:
            return self._client.retry_wait_s(BY_NAME[entity].route, wait_s(attempt))
        if _had_answer(failed.job) and attempt <= len(GONE_WAITS_S):
            return GONE_WAITS_S[attempt - 1]
        return None

    def _crashed(self, message: Any, exception: BaseException) -> None:
        """An error of our own. Of several ids nobody knows which one it is about: the message is divided, uncounted, until
        the guilty one is alone and has had an attempt.
        """
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


def _had_answer(job: Job) -> bool:
    """Whether it was ever answered, by a bulk route or its own."""
    return job.is_known or job.checked_at is not None


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
