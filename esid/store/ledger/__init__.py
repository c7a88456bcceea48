"""The ledger `sync_jobs`: what is known, pending, fresh, failed. The memory of all work.

A pending row either has a live message in the queue (`due_at` NULL) or a time at which one is published (`due_at`).
Every function is one transaction, or one for each part of its ids, unless it says that it joins the caller's.
"""

from esid.store.ledger.asking import Accepted, forget_etags, purge, reopen, request
from esid.store.ledger.discovery import discover
from esid.store.ledger.failures import defer, give_back, retry, revive, touch
from esid.store.ledger.figures import (
    counts,
    failed_since,
    is_open,
    job,
    oldest_open,
    open_count,
    purged,
    states,
    unanswered,
    was_asked,
)
from esid.store.ledger.outcomes import Booked, Ends, book, finish, take
from esid.store.ledger.publishing import (
    adopt,
    claim,
    gathered,
    orphaned,
    publish_again,
    queued,
    unpublished,
    waiting,
    with_orphans,
)
from esid.store.ledger.words import LONGEST_GATHER_S, OPEN, PENDING, PUBLISH_GRACE_S, UNPLANNED, by_entity

__all__ = [
    "LONGEST_GATHER_S",
    "OPEN",
    "PENDING",
    "PUBLISH_GRACE_S",
    "UNPLANNED",
    "Accepted",
    "Booked",
    "Ends",
    "adopt",
    "book",
    "by_entity",
    "claim",
    "counts",
    "defer",
    "discover",
    "failed_since",
    "finish",
    "forget_etags",
    "gathered",
    "give_back",
    "is_open",
    "job",
    "oldest_open",
    "open_count",
    "orphaned",
    "publish_again",
    "purge",
    "purged",
    "queued",
    "reopen",
    "request",
    "retry",
    "revive",
    "states",
    "take",
    "touch",
    "unanswered",
    "unpublished",
    "waiting",
    "was_asked",
    "with_orphans",
]
