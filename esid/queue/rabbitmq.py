"""RabbitMQ: Dramatiq's broker with one publishing connection a process (see `confirms`) and readable errors.

There is no delay queue: long waits live in the ledger, so no message sits unacknowledged in a worker's memory.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL, RabbitmqBroker
from dramatiq.common import xq_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed

from esid import clock, log
from esid.errors import (
    BrokerRefused,
    BrokerUnavailable,
    EsidError,
    NotTaken,
    QueueError,
    QueueTaken,
    SettingsError,
)
from esid.queue.broker_faults import is_other_type, translated
from esid.queue.confirms import FAULTS, Confirms, Letter
from esid.queue.consumer import RabbitConsumer
from esid.queue.incoming import Moves
from esid.queue.marker import Marker
from esid.settings import without_password
from esid.store import notes
from esid.store.connection import Store
from esid.words import counted

#: Seconds: heartbeats (a broker that says nothing is given up 5 s after the second is missing), connecting.
HEARTBEAT_S, CONNECT_S = 10, 5
#: Priorities 0 to 3 (esid uses 0 to 2); part of the queue's declaration, so changing it needs new queues.
MAX_PRIORITY = 3
#: Seconds between two times that the connections of a process are served: heartbeats, alarms and their ends.
SERVE_S = 1.0
#: Seconds that a start waits for another installation on our queues to end, and between two looks for it.
TAKEN_S, TAKEN_LOOK_S = 5.0, 0.5
T = TypeVar("T")
_log = log.get("queue")
_FAULTS = (*FAULTS, BrokerConnectionError)


class RabbitBroker(RabbitmqBroker):
    """See `queue.broker.Queue` for what it adds. Publishing is safe from every thread.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        store: where messages that cannot be read are recorded.
        marker: name of the queue that says whose the others are.
    """

    def __init__(
        self,
        url: str,
        middleware: list[dramatiq.Middleware],
        store: Store,
        marker: str,
        slow_queues: frozenset[str] = frozenset(),
    ) -> None:
        try:
            parameters = pika.URLParameters(url)
        except (ValueError, TypeError, SyntaxError) as error:
            raise SettingsError(f"RABBITMQ_URL {without_password(url)} cannot be read: {error}") from None
        super().__init__(url=url, middleware=middleware, max_priority=MAX_PRIORITY)
        parameters.heartbeat = HEARTBEAT_S
        parameters.socket_timeout = parameters.stack_timeout = CONNECT_S
        parameters.connection_attempts = 1
        self.parameters = parameters
        self.store, self.slow_queues = store, slow_queues
        self.outage = log.outage("rabbitmq")
        self.moves, self.is_stopping = Moves(), False
        self._where = without_password(url)
        self._confirms = Confirms(parameters, self._where, self.outage, lambda: self.is_stopping)
        self._asking, self._closing = threading.RLock(), threading.Event()
        self._server: threading.Thread | None = None
        self._installation, self._has_met_others = "", False
        #: Argument of a declaration: empty while the default of the virtual host will do.
        self._queue_type: dict[str, str] = {}
        self._marker, self._taken = Marker(marker, self._where), log.outage("queue")
        #: Queues that we may not consume.
        self._refused, self._refusal, self._refusing = set[str](), log.outage("consumer"), threading.Lock()
        # Dramatiq keeps a connection for each thread that asks; one under a lock serves them all.
        self.state: Any = SimpleNamespace()

    @RabbitmqBroker.connection.getter  # type: ignore[attr-defined, untyped-decorator]
    def connection(self) -> Any:
        """The shared connection for questions. Who opens one has both served from now on, and closed at the end."""
        if getattr(self.state, "connection", None) is None:
            self.state.connection = pika.BlockingConnection(self.parameters)
            self.connections.add(self.state.connection)
            self._serve_both()
        return self.state.connection

    @RabbitmqBroker.channel.getter  # type: ignore[attr-defined, untyped-decorator]
    def channel(self) -> Any:
        """The shared channel. Dramatiq's remembers one that was never fit for use, and falls over it at the next fault."""
        if getattr(self.state, "channel", None) is None:
            channel = self.connection.channel()
            self.channels.add(channel)
            self.state.channel = channel
        return self.state.channel

    @property
    def stored_here(self) -> tuple[str, ...]:
        """None of our queues."""
        return ()

    def check(self) -> None:
        """Connect, declare every queue, and see that no other installation consumes them; one may just be ending.

        Raises:
            BrokerUnavailable, BrokerRefused, QueueMismatch, QueueTaken: with the cause and the cure.
        """
        for name in sorted(self.queues):
            self.queues_pending.add(name)
            try:
                self._ensure_queue(name)
            except _FAULTS as error:
                raise self._translated(error, name) from error
        ours, ends_at = self.installation(), clock.monotonic() + TAKEN_S
        while ours:
            try:
                self._twice(lambda: self._marker.look(self.connection, ours))
                return
            except QueueTaken:
                if clock.monotonic() >= ends_at:
                    raise
            clock.sleep(TAKEN_LOOK_S)

    def hold_marker(self, connection: Any) -> None:
        """Say by a consumer's connection that the queues are ours.

        Raises:
            QueueTaken: they are another installation's. It is said once; the consumer tries again.
            DatabaseUnavailable: it cannot tell which installation this is.
        """
        try:
            self._installation = self._installation or notes.installation(self.store)
            self._marker.hold(connection, self._installation)
        except QueueTaken as error:
            self._taken.down(error)
            raise
        self._taken.up()

    def consume(self, queue_name: str | tuple[str, ...], prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """A consumer of one queue, or of several, on a connection of its own; up to `prefetch` messages of each.

        Raises:
            ConnectionClosed: Dramatiq tries again.
        """
        names = (queue_name,) if isinstance(queue_name, str) else queue_name
        self.moves.move(min(names))
        try:
            return RabbitConsumer(
                self, {name: 1 if name in self.slow_queues else prefetch for name in names}, timeout / 1000
            )
        except _FAULTS as error:
            self.outage.down(self._translated(error, names[0]))
            raise ConnectionClosed(error) from None

    def cannot_consume(self, queue_name: str, error: Exception) -> None:
        """A queue is not consumed. Where we lack a right, all else may go on, and answers do not mean that this is over."""
        translated = self._translated(error, queue_name)
        if isinstance(translated, BrokerRefused):
            with self._refusing:
                self._refused.add(queue_name)
                self._refusal.down(translated)
        else:
            self.outage.down(translated)

    def consumes(self, queue_name: str) -> None:
        """A queue is consumed."""
        with self._refusing:
            self._refused.discard(queue_name)
            if not self._refused:
                self._refusal.up()
        self._is_up()

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Make a queue known, without a delay queue; with `ensure` it exists at the broker afterwards."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            self._ensure_queue(queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish one message; it is confirmed on return. Raises BrokerUnavailable."""
        if delay is not None:
            raise QueueError("delays are kept in the ledger, not in RabbitMQ")
        self.enqueue_many([message])
        return message

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Publish messages; each is confirmed on return. A queue that was deleted is declared anew.

        Raises:
            NotTaken: some were not confirmed.
            BrokerUnavailable: nobody knows which were.
        """
        left = list(messages)
        for _ in range(2):
            try:
                for name in {message.queue_name for message in left}:
                    self.declare_queue(name, ensure=True)
                left = [left[index] for index in self._confirms.publish([self._letter(message) for message in left])]
            except _FAULTS as error:
                translated = self._translated(error, left[0].queue_name)
                if len(left) < len(messages) and isinstance(translated, BrokerUnavailable):
                    raise NotTaken(str(translated), left) from error
                raise translated from error
            if not left:
                self._is_up()
                return
            self.queues_pending.update(message.queue_name for message in left)
        names = ", ".join(sorted({message.queue_name for message in left}))
        why = f"is queue {names} full, or does a policy refuse them?"
        raise NotTaken(f"RabbitMQ at {self._where} took {counted(len(left), 'message')} not: {why}", left)

    def ready(self) -> None:
        """Ask for the depths, and publish a message for nobody: RabbitMQ tells of an alarm to those who publish."""
        self.depths()
        try:
            self._confirms.publish([Letter(f"{min(self.queues)}.nobody", b"", pika.BasicProperties())], wait_s=0.0)
        except _FAULTS as error:
            raise self._translated(error) from error

    def depths(self) -> dict[str, int]:
        """Messages that wait (not those in a worker's hands), by queue name."""

        def count() -> dict[str, int]:
            return {name: self._declare_queue(name).method.message_count for name in sorted(self.queues)}

        return self._twice(count)

    def busy(self) -> set[str]:
        """Names of the queues with messages that wait."""
        return {name for name, depth in self.depths().items() if depth}

    def purge(self, queue_name: str) -> int:
        """Empty one queue and its dead-letter queue."""

        def empty() -> int:
            self.declare_queue(queue_name, ensure=True)
            self.channel.queue_purge(xq_name(queue_name))
            return int(self.channel.queue_purge(queue_name).method.message_count)

        return self._twice(empty, queue_name)

    def close(self) -> None:
        """Close every connection in RabbitMQ's way."""
        atexit.unregister(self.close)
        self._closing.set()
        if self._server:
            self._server.join()
            self._server = None
        self._confirms.close()
        with self._asking:
            del self.connection

    def _serve_both(self) -> None:
        if self._server is None:
            self._closing.clear()
            # Commands end in many ways.
            atexit.register(self.close)
            self._server = threading.Thread(target=self._serve, name="rabbitmq", daemon=True)
            self._server.start()

    def _serve(self) -> None:
        while not self._closing.wait(SERVE_S):
            self._confirms.serve()
            if self._asking.acquire(blocking=False):
                try:
                    if getattr(self.state, "connection", None):
                        self.state.connection.process_data_events(0)
                except _FAULTS:
                    del self.connection
                finally:
                    self._asking.release()

    def _twice(self, what: Callable[[], T], queue_name: str = "") -> T:
        """Do something on the shared connection; once more on a new one, since an idle one may have been closed."""
        with self._asking:
            for attempt in (1, 2):
                try:
                    done = what()
                except _FAULTS as error:
                    del self.connection
                    self.queues_pending.update(self.queues)
                    if attempt == 2:
                        raise self._translated(error, queue_name) from error
                else:
                    self._is_up()
                    return done
        raise AssertionError("unreachable")

    def _letter(self, message: dramatiq.Message[Any]) -> Letter:
        priority, ours = message.options.get("broker_priority"), self.installation() or None
        # Older releases read no properties; a new option of the message they would not know.
        properties = pika.BasicProperties(delivery_mode=2, priority=priority, app_id=ours)
        return Letter(message.queue_name, message.encode(), properties)

    def installation(self) -> str:
        """The id that our messages carry; "" while the database cannot tell."""
        if not self._installation:
            with suppress(EsidError):
                self._installation = notes.installation(self.store)
        return self._installation

    def is_foreign(self, letter: Letter) -> bool:
        """True for a message of another installation. Those of older releases carry no id."""
        theirs = letter.properties.app_id
        if not theirs or theirs == self.installation():
            return False
        if not self._has_met_others:
            self._has_met_others = True
            words = (
                f"queue {letter.queue} holds messages of another installation, which go back: give one of the two another "
                "ESID_QUEUE_PREFIX; if the other one is gone, `esid purge`"
            )
            log.event(_log, "rabbitmq.foreign", words, level=logging.ERROR, installation=theirs)
        return True

    def _is_up(self) -> None:
        """RabbitMQ has answered. While it takes no messages that is not all that is wanted."""
        if not self._confirms.is_blocked:
            self.outage.up()

    def _ensure_queue(self, canonical_queue_name: str) -> None:
        with self._asking:
            super()._ensure_queue(canonical_queue_name)

    def _declare_queue(self, queue_name: str) -> Any:
        return self._declared(partial(super()._declare_queue, queue_name))

    def _declare_xq_queue(self, queue_name: str) -> Any:
        def declare() -> Any:
            arguments = {"x-message-ttl": DEAD_MESSAGE_TTL, **self._queue_type}
            return self.channel.queue_declare(xq_name(queue_name), durable=True, arguments=arguments)

        return self._declared(declare)

    def _declared(self, declare: Callable[[], T]) -> T:
        """Declare a queue; of the type that we need, where the virtual host makes another one by default.

        The type is not named where it need not be: RabbitMQ 3.10 and 4.0 take a queue that was made without it for the
        same, others may not.
        """
        try:
            return declare()
        except pika.exceptions.ChannelClosedByBroker as error:
            if self._queue_type or not is_other_type(error):
                raise
            del self.channel
            self._queue_type = {"x-queue-type": "classic"}
        try:
            return declare()
        except pika.exceptions.ChannelClosedByBroker:
            self._queue_type = {}
            raise

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), **self._queue_type}

    def _declare_dq_queue(self, queue_name: str) -> None:
        """No delay queues."""

    def _translated(self, error: Exception, queue_name: str = "") -> QueueError:
        return translated(error, self._where, queue_name)
