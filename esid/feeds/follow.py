"""Follows a feed: takes the lease, reads part after part, writes killmails and cursor in one transaction.

No request goes to ESI for a body. Ids that stand in killmails and are new become intents in the ledger, which the
scheduler publishes in bulk. A body that cannot be read is a dead letter with its reason, and the feed goes on.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Sequence

from esid import clock, host, log
from esid.clock import Stop
from esid.errors import BadBody, DatabaseUnavailable, DataRefused, EsidError, EsiError, Held, Stopping
from esid.feeds.feed import Feed, Part, Raw
from esid.feeds.http import Source
from esid.queue.work import GATHERING
from esid.store import cursors, dead_letters, ledger, notes
from esid.store.connection import Store
from esid.store.cursors import Cursor, LeaseLost
from esid.store.model import Done

#: Seconds: a lease, between two looks of a stand-by at it, and between renewals while the feed waits.
LEASE_S, STANDBY_S, RENEW_S = 12.0, 2.0, 4.0
#: Seconds before a source that does not answer is asked again: doubling from the first to the second, with jitter.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
#: Seconds before a body that is not JSON is asked for once more.
AGAIN_S = 6.0
#: A body that is not written, and why.
Spoiled = tuple[Raw, EsiError]
_log = log.get("feed")


class Follower:
    """Reads one feed for one daemon. With several daemons on one database one reads, and the others stand by."""

    def __init__(self, store: Store, feed: Feed, source: Source, stop: Stop) -> None:
        self._store, self._feed, self._source, self._stop = store, feed, source, stop
        self._owner = f"{host.me()}:{uuid.uuid4().hex[:12]}"
        self._unknown = notes.UnknownFields()
        self._source_outage = log.Outage(_log, "feed")
        self._failures = 0
        self._reads = self._stands_by = False
        self._asked_again = ""
        self._cursor: Cursor | None = None
        self._renew_at = 0.0

    def run(self) -> None:
        """Read until the process stops; the lease is given back then."""
        while not self._stop.is_set():
            try:
                self._rest(self.step())
            except Stopping:
                break
            except LeaseLost:
                self._cursor, self._reads = None, False
            except DatabaseUnavailable as error:
                self._cursor = None
                log.outage("database").down(error)
                self._failures += 1
                self._stop.wait(self._backoff_s())
        self._end()

    def step(self) -> float:
        """One look at the feed; seconds until the next.

        Raises:
            DatabaseUnavailable, LeaseLost: nothing was written, the cursor stands where it stood.
            Stopping: the process stops.
        """
        cursor = self._leased()
        if cursor is None:
            self._say_standby()
            return STANDBY_S
        try:
            part = self._look(cursor)
        except Held as held:
            return held.wait_s
        except EsiError as error:
            self._source_outage.down(error)
            self._failures += 1
            return self._backoff_s()
        self._source_outage.up()
        self._failures = 0
        done, spoiled = self._decoded(part.bodies)
        if self._is_worth_another_look(part, spoiled):
            return max(part.wait_s, AGAIN_S)
        self._keep(part, cursor, done, spoiled)
        return part.wait_s

    def _leased(self) -> Cursor | None:
        """Where the feed stands; None while another process reads it. The lease is not renewed with every request."""
        if self._cursor is None or clock.monotonic() >= self._renew_at:
            self._renew_at = clock.monotonic() + RENEW_S
            self._cursor = cursors.take(self._store, self._feed.name, self._owner, LEASE_S)
        return self._cursor

    def _look(self, cursor: Cursor) -> Part:
        if cursor.position is None:
            cursor = Cursor(self._feed.start(self._source), None)
        if not self._reads:
            log.event(_log, "feed.reading", f"from {cursor.position}", feed=self._feed.name, host=self._source.host)
            self._reads, self._stands_by = True, False
        return self._feed.fetch(self._source, cursor)

    def _decoded(self, bodies: Sequence[Raw]) -> tuple[list[Done], list[Spoiled]]:
        done: list[Done] = []
        spoiled: list[Spoiled] = []
        for raw in bodies:
            try:
                if raw.error:
                    raise raw.error
                done.append(self._feed.decode(raw.body))
            except EsiError as error:
                spoiled.append((raw, error))
            except Exception as error:  # noqa: BLE001
                # Whatever a body does to the decoder, the feed does not stop at it.
                spoiled.append((raw, EsiError(f"{type(error).__name__}: {error}"[:300])))
        return done, spoiled

    def _is_worth_another_look(self, part: Part, spoiled: Sequence[Spoiled]) -> bool:
        """A body that is not JSON may be a gateway's page: it is asked for once more."""
        is_new = part.position != self._asked_again
        if is_new and any(isinstance(error, BadBody) for _, error in spoiled):
            self._asked_again = part.position
            return True
        return False

    def _keep(self, part: Part, cursor: Cursor, done: list[Done], spoiled: list[Spoiled]) -> None:
        """Write a part; what the database refuses is refused like any spoiled body."""
        if not part.bodies and part.position == cursor.position:
            return
        try:
            self._write(part.position, done, spoiled)
        except DataRefused as error:
            spoiled = [(raw, EsiError(str(error)[:300])) for raw in part.bodies]
            done = []
            self._write(part.position, done, spoiled)
        for raw, why in spoiled:
            words = f"{raw.where}: {why}; see `esid dead list`"
            log.event(_log, "feed.refused", words, level=logging.WARNING, feed=self._feed.name, reason=why.reason)
        for one in done:
            self._unknown.add("killmail", one.unknown)
        self._unknown.flush(self._store)
        if part.news:
            log.event(_log, "feed.jumped", part.news, feed=self._feed.name)

    def _write(self, position: str, done: Sequence[Done], spoiled: Sequence[Spoiled]) -> None:
        """Killmails, what became known, spoiled bodies and the cursor: all of it or nothing."""
        # Outside: a commit whose answer was lost is repeated, and its letters are to count once.
        refused = [(raw, error, clock.now()) for raw, error in spoiled]

        def work() -> None:
            # One by one: two bodies of a part may be about one killmail, and the one uploaded later stands.
            for one in done:
                ledger.finish(self._store, "killmail", [one], GATHERING)
            for raw, error, at in refused:
                words = f"feed {self._feed.name}, {raw.where}: {error}"
                text = raw.body[:4000].decode("utf-8", "backslashreplace")
                dead_letters.add_message(self._store, error.reason, words, text, f"{self._feed.name}: {error}", at)
            cursors.move(self._store, self._feed.name, self._owner, position, LEASE_S)

        self._cursor = None
        self._store.run(work)
        self._cursor = Cursor(position, clock.now())

    def _rest(self, seconds: float) -> None:
        """Wait, and keep the lease meanwhile."""
        ends_at = clock.monotonic() + seconds
        while (left_s := ends_at - clock.monotonic()) > 0:
            if self._stop.wait(min(left_s, RENEW_S)):
                return
            if self._reads:
                self._leased()

    def _backoff_s(self) -> float:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311

    def _say_standby(self) -> None:
        if not self._stands_by:
            words = "another daemon reads it; this one takes over when that ends"
            log.event(_log, "feed.standby", words, feed=self._feed.name)
        self._reads, self._stands_by = False, True

    def _end(self) -> None:
        try:
            cursors.release(self._store, self._feed.name, self._owner)
            self._unknown.flush(self._store, now=True)
        except EsidError:
            # The lease ends by itself.
            pass
