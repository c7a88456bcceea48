"""What a failed attempt counts, and how long its id waits: in the ledger, from the transaction that books it on.

The one layer that retries. No message is delayed in a worker's memory, and no retry depends on the broker being there.

| failure                                    | attempts in all | wait before the next, seconds (full jitter)  |
|--------------------------------------------|-----------------|----------------------------------------------|
| unavailable (5xx, network, timeout, a code | 10              | up to 2, 4, 8, 16, 32, 64, 128, 256, 300     |
| of a proxy or ban)                         |                 |                                              |
| bad_body (not JSON, empty, truncated)      | 2               | up to 2                                      |
| crash (an error of our own, or a value     | 3               | up to 2, 4                                   |
| that the database refuses) of one id alone |                 |                                              |
| anything else, of what never had an answer | 1               | dead letter                                  |
| anything else, of what had an answer once  | 3               | 300, 3600 (no jitter)                        |
| held, ESI or the route away, stopping,     | not counted     | see `middleware.hold`                        |
| database or broker away                    |                 |                                              |

Ids that failed wait for one another, too, so that their attempts take no more than half of the error limit. What
failed between the last good answer before an outage and its end was the outage's: it is asked again, uncounted
(`middleware.hold`).

A dead letter is no row's end: no row is ever deleted, and nothing is given up for good. What was not found is asked
again after 21 days, what was unavailable or had a bad body a day later for a week; else, and then, what had an answer
once is asked again after a day, and what never had one after a week. What never had an answer is asked again hourly for
a day where its route has answered nobody else in the minute before: it may be the route's fault.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from esid import log
from esid.entities.base import Entity, Failed
from esid.errors import DAY_S, EsiError
from esid.store.ledger import Ends
from esid.store.model import Failure, Job

if TYPE_CHECKING:
    from esid.esi.client import Client

#: Seconds: upper bound of the first wait, doubling up to the longest.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
#: Seconds between attempts at an id that had an answer before and has none now: one look is no death.
GONE_WAITS_S = (300.0, 3600.0)
#: Seconds after which an id that never had an answer is asked again, where nothing tells that it is the id's fault.
DOUBTED_S = 3600.0
#: Seconds, and up to twice as many, that what failed in an outage waits: about a probe.
OUTAGE_S = 6.0
_log = log.get("work")


class Attempts:
    """Judges failed ids."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def judge(self, entity: Entity, failed: Sequence[Failed]) -> Ends:
        """What is to be booked of ids that failed: an attempt and a wait, a dead letter, or an outage's delay."""
        outage = {one.job.id for one in failed if self._client.was_outage(one.error.path, one.error.at)}
        counted = [one for one in failed if one.job.id not in outage]
        failures = {
            one.job.id: replace(self._failure(one), argument=one.job.argument, attempt=one.job.retry_count)
            for one in counted
        }
        waits = {one.job.id: wait for one in counted if (wait := self._wait_of(entity, one)) is not None}
        # An outage that nobody knew of yet when they failed: they are open, as those that it held.
        later = ((sorted(outage), random.uniform(OUTAGE_S, 2 * OUTAGE_S)),) if outage else ()  # noqa: S311
        return Ends(failures=failures, waits=waits, later=later)

    def _failure(self, failed: Failed) -> Failure:
        """What is booked. Of an id without any answer before it is not known who failed, where its route has answered nobody
        else lately: it is asked again soon."""
        failure = _failure(failed.error)
        if _had_answer(failed.job) or not failed.error.path or self._client.has_answered(failed.error.path):
            return failure
        after_s = min(failure.ask_again_after_s or DOUBTED_S, DOUBTED_S)
        return replace(failure, ask_again_after_s=after_s, ask_again_for_s=DAY_S)

    def _wait_of(self, entity: Entity, failed: Failed) -> float | None:
        """Seconds before the next attempt; None = it is given up."""
        attempt, most = failed.job.retry_count + 1, failed.error.max_attempts
        if attempt < most:
            return self._client.retry_wait_s(entity.route, failed.error.again_in_s or wait_s(attempt))
        if _had_answer(failed.job) and attempt <= len(GONE_WAITS_S):
            return GONE_WAITS_S[attempt - 1]
        return None


def say(entity: Entity, failed: Sequence[Failed], ends: Ends, counted: Collection[int]) -> None:
    """Log what was booked of ids that failed.

    Args:
        counted: those of which an attempt was counted.
    """
    for one in (one for one in failed if one.job.id in counted):
        fields = {"entity": entity.name, "id": one.job.id}
        if (again_in_s := ends.waits.get(one.job.id)) is None:
            log.event(_log, "work.dead", str(one.error), level=logging.WARNING, **fields, reason=one.error.reason)
        else:
            fields |= {"attempt": one.job.retry_count + 1}
            log.event(_log, "work.retried", str(one.error), level=logging.DEBUG, **fields, again_in_s=again_in_s)


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
