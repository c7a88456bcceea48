"""RabbitMQ: Dramatiq's broker with publisher confirms, one publishing connection a process, batches and readable errors.

There is no delay queue: long waits live in the ledger, so no message sits unacknowledged in a worker's memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer, _RabbitmqMessage
from dramatiq.common import xq_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from esid import clock, log
from esid.errors import BrokerRefused, BrokerUnavailable, DatabaseUnavailable, QueueError, QueueMismatch
from esid.queue.incoming import STOPPING_LOOK_S, Moves, NoMessage, Parked, decode
from esid.settings import without_password
from esid.store import dead_letters
from esid.store.connection import Store

#: Seconds: heartbeats (a broker that says nothing is given up 5 s after the second is missing), connecting, waiting for
#: a broker that blocks publishers.
HEARTBEAT_S, CONNECT_S, BLOCKED_S = 10, 5, 30
#: Priorities 0 to 3 (esid uses 0 to 2); part of the queue's declaration, so changing it needs new queues.
MAX_PRIORITY = 3
#: Messages of one transaction when many are published.
BATCH = 500
T = TypeVar("T")
_FAULTS = (pika.exceptions.AMQPError, AMQPConnectorException, BrokerConnectionError, OSError)


class RabbitBroker(RabbitmqBroker):
    """See `queue.broker.Queue` for what it adds. Publishing is safe from every thread.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        store: where messages that cannot be read are recorded.
    """

    def __init__(
        self, url: str, middleware: list[dramatiq.Middleware], store: Store, slow_queues: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(confirm_delivery=True, url=url, middleware=middleware, max_priority=MAX_PRIORITY)
        parameters = pika.URLParameters(url)
        parameters.heartbeat = HEARTBEAT_S
        parameters.blocked_connection_timeout = BLOCKED_S
        parameters.socket_timeout = parameters.stack_timeout = CONNECT_S
        parameters.connection_attempts = 1
        self.parameters = parameters
        self.store, self.slow_queues = store, slow_queues
        self.outage = log.outage("rabbitmq")
        self.moves, self.is_stopping = Moves(), False
        self._where = without_password(url)
        self._publishing = threading.RLock()
        # Dramatiq keeps a connection for each publishing thread; one under a lock serves them all.
        self.state: Any = SimpleNamespace()

    @property
    def consumer_class(self) -> type[RabbitConsumer]:
        """Our consumer."""
        return RabbitConsumer

    @RabbitmqBroker.channel.getter  # type: ignore[attr-defined, untyped-decorator]
    def channel(self) -> Any:
        """The shared channel. Dramatiq's remembers one that was never fit for use, and falls over it at the next fault."""
        if getattr(self.state, "channel", None) is None:
            channel = self.connection.channel()
            channel.confirm_delivery()
            self.channels.add(channel)
            self.state.channel = channel
        return self.state.channel

    def check(self) -> None:
        """Connect and declare every queue.

        Raises:
            BrokerUnavailable, BrokerRefused, QueueMismatch: with the cause and the cure.
        """
        for name in sorted(self.queues):
            self.queues_pending.add(name)
            try:
                self._ensure_queue(name)
            except _FAULTS as error:
                raise self._translated(error, name) from error

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """A consumer of one queue on a connection of its own. Raises ConnectionClosed; Dramatiq tries again."""
        self.moves.move(queue_name)
        try:
            most = 1 if queue_name in self.slow_queues else prefetch
            consumer: dramatiq.Consumer = super().consume(queue_name, most, timeout)
        except _FAULTS as error:
            self.outage.down(f"cannot reach RabbitMQ at {self._where}")
            raise ConnectionClosed(error) from None
        return consumer

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
        with self._publishing:
            try:
                published = super().enqueue(message)
            except _FAULTS as error:
                raise self._translated(error, message.queue_name) from error
        self.outage.up()
        return published

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Publish messages in transactions of 500; each is safe once its transaction is committed.

        Raises:
            BrokerUnavailable: those of the transactions before it are safe, the rest is not.
        """
        if len(messages) == 1:
            self.enqueue(messages[0])
            return
        for start in range(0, len(messages), BATCH):
            with self._publishing:
                self._publish(messages[start : start + BATCH])

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

    def _twice(self, what: Callable[[], T], queue_name: str = "") -> T:
        """Do something on the shared connection; once more on a new one, since an idle one may have been closed."""
        with self._publishing:
            for attempt in (1, 2):
                try:
                    done = what()
                except _FAULTS as error:
                    del self.connection
                    if attempt == 2:
                        raise self._translated(error, queue_name) from error
                else:
                    self.outage.up()
                    return done
        raise AssertionError("unreachable")

    def _publish(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        def publish() -> None:
            for name in {message.queue_name for message in messages}:
                self.declare_queue(name, ensure=True)
            channel = self.connection.channel()
            channel.tx_select()
            for message in messages:
                properties = pika.BasicProperties(delivery_mode=2, priority=message.options.get("broker_priority"))
                channel.basic_publish("", message.queue_name, message.encode(), properties)
            channel.tx_commit()
            channel.close()

        self._twice(publish)

    def _ensure_queue(self, canonical_queue_name: str) -> None:
        with self._publishing:
            super()._ensure_queue(canonical_queue_name)

    def _declare_dq_queue(self, queue_name: str) -> None:
        """No delay queues."""

    def _translated(self, error: Exception, queue_name: str = "") -> QueueError:
        if isinstance(error, QueueError):
            return error
        cause: Any = error.args[0] if isinstance(error, ConnectionClosed) and error.args else error
        code = getattr(cause, "reply_code", None)
        if code == 406:
            return QueueMismatch(
                f"queue {queue_name} exists at {self._where} with other arguments ({cause.reply_text}); "
                f"delete it (rabbitmqctl delete_queue {queue_name}) or set another ESID_QUEUE_PREFIX"
            )
        names = {type(cause).__name__, *(type(part).__name__ for part in getattr(cause, "args", ()))}
        if names & {"ProbableAuthenticationError", "ProbableAccessDeniedError", "AuthenticationError"} or code in {
            403,
            530,
        }:
            return BrokerRefused(f"{self._where} refused us: check user, password and virtual host in RABBITMQ_URL")
        return BrokerUnavailable(f"cannot reach RabbitMQ at {self._where}: {_innermost(cause)[:200]}; is it running?")


def _innermost(error: Any) -> str:
    """What the operating system said, out of the errors that pika wraps around it."""
    while inner := next(
        (one for one in (getattr(error, "exception", None), *error.args) if isinstance(one, Exception)), None
    ):
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class RabbitMessage(_RabbitmqMessage):
    """A delivered message. Set `requeue` to have it given back where it would be acknowledged, `parked_s` to have that
    done after so many seconds.

    Args:
        consumer: who delivered it; tags of another connection say nothing to RabbitMQ, or name another message.
    """

    requeue = False
    parked_s = 0.0

    def __init__(self, redelivered: bool, tag: int, message: dramatiq.Message[Any], consumer: RabbitConsumer) -> None:
        super().__init__(redelivered, tag, message)
        self.redelivered, self.consumer = redelivered, consumer
        self.received_at = clock.monotonic()

    @property
    def comes_back(self) -> bool:
        """False once its connection is gone: it was delivered again then, and may have been done with."""
        return bool(self.consumer.connection.is_open)


class RabbitConsumer(_RabbitmqConsumer):
    """Dramatiq's consumer, with messages that can be given back, and a record of bytes that are no message.

    It waits by itself: Dramatiq's way, a generator of pika's, cannot be woken.
    """

    def __init__(self, broker: RabbitBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._parked: Parked[int] = Parked()
        self._received: deque[tuple[Any, bytes]] = deque()
        self._look_s = timeout / 1000
        self._has_begun = self._is_cancelled = False

    def wake(self) -> None:
        """Look up, from any thread."""
        with suppress(pika.exceptions.AMQPError):
            self.connection.add_callback_threadsafe(lambda: None)

    def ack(self, message: Any) -> None:
        """Acknowledge, or give back where the message asks for that."""
        if message.consumer is not self:
            # Its connection is gone, and with it the delivery: RabbitMQ has taken the message back.
            return
        if not message.requeue:
            super().ack(message)
        elif message.parked_s:
            self._parked.add(message._tag, message.parked_s)
            self.wake()
        else:
            self._give_back(message._tag)

    def nack(self, message: Any) -> None:
        """Reject; the dead-letter middleware has recorded it, or asks for it to be given back."""
        if message.requeue or message.consumer is not self:
            self.ack(message)
        else:
            super().nack(message)

    def __next__(self) -> RabbitMessage | None:
        """The next message, or None after the timeout. Raises ConnectionClosed."""
        self.broker.moves.move(self.queue_name)
        for tag in self._parked.due():
            self._give_back(tag)
        try:
            self._receive()
        except (AssertionError, pika.exceptions.AMQPError) as error:
            self.broker.outage.down(f"cannot reach RabbitMQ at {self.broker._where}")
            if getattr(error, "reply_code", None) == 404 or self._is_cancelled:
                self.broker.queues_pending.add(self.queue_name)
            raise ConnectionClosed(error) from None
        if not self._received:
            return None
        method, body = self._received.popleft()
        try:
            message = RabbitMessage(method.redelivered, method.delivery_tag, decode(body, self.queue_name), self)
        except NoMessage as error:
            self._record(body, error)
            self._nack(method.delivery_tag)
            return None
        self.known_tags.add(method.delivery_tag)
        return message

    def _receive(self) -> None:
        """Wait until there is something: a message, an ack to be sent, a connection that was lost. Raises pika's errors."""
        if not self._has_begun:
            # Here, where Dramatiq closes a consumer that fails; one that fails while it is made nobody closes.
            self._has_begun = True
            self.channel.add_on_cancel_callback(self._cancelled)
            self.channel.basic_consume(self.queue_name, self._keep)
            self.broker.outage.up()
        if not self._received:
            look_s = STOPPING_LOOK_S if self.broker.is_stopping else self._look_s
            self.connection.process_data_events(self._parked.wait_s(look_s))
            if not self._received and (self._is_cancelled or not self.channel.is_open):
                raise pika.exceptions.ChannelWrongStateError("the channel was closed, or its queue deleted")

    def _keep(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._received.append((method, body))

    def _cancelled(self, _method: Any) -> None:
        self._is_cancelled = True

    def _record(self, body: bytes, error: NoMessage) -> None:
        """Raises ConnectionClosed while the record cannot be written: the message is delivered again later."""
        try:
            dead_letters.add_message(self.broker.store, "bad_message", str(error), body.decode("utf-8", "backslashreplace"))
        except DatabaseUnavailable as away:
            log.outage("database").down(away)
            raise ConnectionClosed(away) from None

    def _give_back(self, tag: int) -> None:
        try:
            self.known_tags.remove(tag)
            self.connection.add_callback_threadsafe(partial(self.channel.basic_nack, tag, requeue=True))
        except (KeyError, pika.exceptions.AMQPError):
            # The connection is gone, and with it the delivery: RabbitMQ has taken the message back.
            return
