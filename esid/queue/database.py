"""A durable Dramatiq broker on the database, for the embedded default and for PostgreSQL without RabbitMQ.

A consumer claims messages with a lease and renews it; what a dead process held comes back when its lease ends, or at
once when a worker starts on the same host. There is no delay queue: delays are times in the table, not a worker's memory.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dramatiq

from esid import clock, host, log
from esid.errors import DatabaseUnavailable, EsidError
from esid.queue.incoming import PARKED_S, STOPPING_LOOK_S, Moves, NoMessage, decode, is_recorded
from esid.queue.outcome import Outcome
from esid.store import messages
from esid.store.connection import Store

#: Seconds: a lease, and how often it is renewed.
LEASE_S, RENEW_S = 30.0, 10.0
#: Seconds between looks at an empty queue: doubling from the first to the second.
_POLL_S, _IDLE_POLL_S = 0.02, 0.5


class DatabaseBroker(dramatiq.Broker):
    """See `queue.broker.Queue` for what it adds.

    Args:
        store: an open database whose schema is there.
    """

    def __init__(
        self, store: Store, middleware: list[dramatiq.Middleware], slow_queues: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(middleware=middleware)
        self.store, self.slow_queues = store, slow_queues
        self.outage = log.outage("database")
        self.moves, self.is_stopping = Moves(), False

    @property
    def stored_here(self) -> list[str]:
        """All of our queues."""
        return sorted(self.queues)

    def check(self) -> None:
        """The queue is where the database is: nothing to declare."""
        messages.counts(self.store)

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known; idempotent."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Store one message for good.

        Args:
            delay: milliseconds before which nobody gets it (Dramatiq's unit), less than a minute.
        """
        self.emit_before("enqueue", message, delay)
        messages.put(self.store, [_stored(message, (delay or 0) / 1000)])
        self.emit_after("enqueue", message, delay)
        return message

    def enqueue_many(self, many: Sequence[dramatiq.Message[Any]]) -> None:
        """Store messages for good, 1000 in a transaction."""
        for start in range(0, len(many), 1000):
            messages.put(self.store, [_stored(message, 0.0) for message in many[start : start + 1000]])

    def consume(self, queue_name: str | tuple[str, ...], prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """A consumer of one queue, or of several; up to `prefetch` messages of each, `timeout` in milliseconds."""
        names = (queue_name,) if isinstance(queue_name, str) else queue_name
        most = {name: 1 if name in self.slow_queues else prefetch for name in names}
        return DatabaseConsumer(self, most, timeout / 1000)

    def ready(self) -> None:
        """It is, where the database is."""
        self.depths()

    def depths(self) -> dict[str, int]:
        """Messages that wait, by queue name."""
        counts = messages.counts(self.store)
        return {name: counts.get(name, (0, 0))[0] for name in sorted(self.queues)}

    def busy(self) -> set[str]:
        """Names of the queues with messages that a worker would get now: not those that are parked."""
        return set(messages.ready(self.store, sorted(self.queues)))

    def purge(self, queue_name: str) -> int:
        """Empty one queue."""
        return messages.clear(self.store, queue_name)

    def release_dead(self) -> None:
        """Give back at once what processes of this host held that are gone; without it their leases would have to end."""
        try:
            for owner in messages.owners(self.store):
                if host.is_gone(owner):
                    messages.release(self.store, owner)
        except DatabaseUnavailable as error:
            # The leases end by themselves.
            self.outage.down(error)

    def flush(self, queue_name: str) -> None:
        """Dramatiq's word for `purge`."""
        self.purge(queue_name)

    def close(self) -> None:
        """The store is closed by whoever opened it."""


class DatabaseMessage(dramatiq.MessageProxy):
    """A claimed message. Set `requeue` to have it given back where it would be acknowledged, `parked_s` to have nobody get
    it for so many seconds. `outcome` is what became of its ids."""

    #: It is claimed until it is settled.
    comes_back = True
    outcome: Outcome | None = None

    def __init__(self, claimed: messages.Claimed, consumer: DatabaseConsumer) -> None:
        super().__init__(decode(claimed.body.encode(), claimed.queue))
        self.consumer = consumer
        self.claim = claimed.id
        self.redelivered = claimed.deliveries > 1
        self.requeue, self.received_at = False, clock.monotonic()
        self.parked_s = 0.0


class DatabaseConsumer(dramatiq.Consumer):
    """Claims messages of all its queues in one statement. Acks come from worker threads; the consumer's own writes them.

    Args:
        most: queue -> how many of its messages it holds at most.
    """

    def __init__(self, broker: DatabaseBroker, most: Mapping[str, int], timeout_s: float) -> None:
        self._broker, self._most, self._timeout_s = broker, most, timeout_s
        self.owner = f"{host.me()}:{uuid.uuid4().hex[:12]}"
        self._claimed: deque[messages.Claimed] = deque()
        #: Claim -> its queue.
        self._held: dict[int, str] = {}
        self._acked: list[int] = []
        self._returned: list[tuple[int, float]] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._poll_s = _POLL_S
        self._renew_at = clock.monotonic() + RENEW_S

    def ack(self, message: Any) -> None:
        """Delete the message with the next turn, or give it back where it asks for that."""
        if message.consumer is not self:
            # The consumer that it came from has given it back.
            return
        self._settle(message.claim, back_in_s=message.parked_s if message.requeue else None)

    def nack(self, message: Any) -> None:
        """Leave the queue: the dead-letter middleware has recorded it, or asks for it to be given back."""
        self.ack(message)

    def requeue(self, many: Iterable[Any]) -> None:
        """Give back what was claimed and not begun."""
        for message in many:
            self._settle(message.claim, back_in_s=0.0)

    def __next__(self) -> Any:
        """The next message, or None after the timeout."""
        began_at = clock.monotonic()
        while True:
            self._broker.moves.move(min(self._most))
            try:
                if not self._claimed:
                    self._turn()
                if (message := self._first_good()) is not None:
                    return message
            except EsidError as error:
                # Whatever the database says: Dramatiq does not replace a consumer that has ended.
                self._broker.outage.down(error)
                self._poll_s = 1.0
            left_s = began_at + (STOPPING_LOOK_S if self._broker.is_stopping else self._timeout_s) - clock.monotonic()
            if left_s <= 0:
                return None
            if self._wake.wait(min(self._poll_s, left_s)):
                self._wake.clear()
            self._poll_s = min(_IDLE_POLL_S, self._poll_s * 2)

    @property
    def held(self) -> Counter[str]:
        """Queue -> messages that were claimed and not settled."""
        with self._lock:
            return Counter(self._held.values())

    def wake(self) -> None:
        """Look up, from any thread."""
        self._wake.set()

    def close(self) -> None:
        """Write the last acks and give back everything else."""
        try:
            self._turn(is_end=True)
            messages.release(self._broker.store, self.owner)
        except EsidError as error:
            self._broker.outage.down(error)

    def _settle(self, claim: int, *, back_in_s: float | None) -> None:
        """It is done, or back in the queue for whoever asks after so many seconds."""
        with self._lock:
            if back_in_s is None:
                self._acked.append(claim)
            else:
                self._returned.append((claim, back_in_s))
            self._held.pop(claim, None)
        self._wake.set()

    def _turn(self, *, is_end: bool = False) -> None:
        """Settle what is settled and claim more, at the end nothing."""
        store = self._broker.store
        with self._lock:
            acked, returned = self._acked[:], self._returned[:]
            held = tuple(self._held)
            counts = Counter(self._held.values())
        if held and clock.monotonic() >= self._renew_at:
            messages.renew(store, self.owner, held, LEASE_S)
            self._renew_at = clock.monotonic() + RENEW_S
        most = {} if is_end else self._most
        wanted = {queue: count - counts[queue] for queue, count in most.items() if counts[queue] < count}
        if not (acked or returned):
            wanted = {queue: wanted[queue] for queue in messages.ready(store, list(wanted))}
            if not wanted:
                return
        claimed = messages.turn(store, wanted, self.owner, acked=acked, returned=returned, lease_s=LEASE_S)
        with self._lock:
            del self._acked[: len(acked)], self._returned[: len(returned)]
            self._held.update((one.id, one.queue) for one in claimed)
        self._poll_s = _POLL_S
        self._claimed.extend(claimed)

    def _first_good(self) -> DatabaseMessage | None:
        """The next claimed message. What is none is recorded first."""
        while self._claimed:
            one = self._claimed[0]
            try:
                message = DatabaseMessage(one, self)
            except NoMessage as error:
                self._claimed.popleft()
                self._settle(one.id, back_in_s=None if is_recorded(self._broker.store, one.body, error) else PARKED_S)
            else:
                self._claimed.popleft()
                return message
        return None


def _stored(message: dramatiq.Message[Any], delay_s: float) -> tuple[str, int, str, float]:
    priority = int(message.options.get("broker_priority") or 0)
    return message.queue_name, priority, message.encode().decode(), delay_s
