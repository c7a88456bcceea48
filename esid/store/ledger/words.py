"""What the states of the ledger are called, and its times."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence

from esid import clock
from esid.store.model import Seen, utc_text

#: Seconds that the writer of an intent has to publish it before the scheduler does so.
PUBLISH_GRACE_S = 10.0
#: Seconds that an id for a bulk route waits for company at most, if nobody gathers; far beyond any other wait.
LONGEST_GATHER_S = 86_400.0
OPEN = ("pending", "processing")
IS_OPEN = f"status IN {OPEN}"
#: What a job becomes that is to be published at a time, or has a message: its parameters are that time, or NULL, and now.
PENDING = "status = 'pending', due_at = %s, updated_at = %s"
#: The schedule asks for no job that is open.
UNPLANNED = "next_at = NULL, refresh_at = NULL"


def planned(*, in_bulk: bool) -> str:
    """SQL: a job that goes back to the answer that it has is asked again as soon as that may be."""
    return f"next_at = expires_at, refresh_at = {'checked_at' if in_bulk else 'NULL'}"


def each(entities: Sequence[str]) -> str:
    """SQL: a row for each entity with its name in `column1`, as both databases call the first column of VALUES. So one
    statement asks of all of them what an index answers for each."""
    return f"(VALUES {', '.join(['(%s)'] * len(entities))}) AS entities"


def around(seconds: float) -> tuple[str | None, str | None]:
    """So long ago, and so far ahead."""
    now, span = clock.now(), dt.timedelta(seconds=seconds)
    return utc_text(now - span), utc_text(now + span)


def waits_for_company(now: dt.datetime) -> str | None:
    """Ids with a later `due_at` are gathered: no other wait is as long."""
    return utc_text(now + dt.timedelta(seconds=LONGEST_GATHER_S / 24))


def grace(now: dt.datetime, seconds: float = PUBLISH_GRACE_S) -> str | None:
    """When an intent is published that its writer has not published by then."""
    return utc_text(now + dt.timedelta(seconds=seconds))


def by_entity(seen: Iterable[Seen]) -> dict[str, list[int]]:
    """The ids of each entity, in order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for one in seen:
        groups[one.entity].append(one.id)
    return {entity: sorted(ids) for entity, ids in groups.items()}
