"""A consumer of one RabbitMQ queue, and the messages that it delivers."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import _RabbitmqConsumer, _RabbitmqMessage
from dramatiq.errors import BrokerConnectionError, ConnectionClosed

from esid import clock, log
from esid.errors import DatabaseUnavailable, QueueError, QueueTaken
from esid.queue.confirms import FAULTS, Letter
from esid.queue.incoming import PARKED_S, STOPPING_LOOK_S, NoMessage, Parked, decode
from esid.store import dead_letters

if TYPE_CHECKING:
    from esid.queue.rabbitmq import RabbitBroker

_FAULTS = (*FAULTS, BrokerConnectionError)


class RabbitMessage(_RabbitmqMessage):
    """A delivered message. Set `requeue` to have it given back where it would be acknowledged, `parked_s` to have that
    done after so many seconds.

    Args:
        letter: as it was delivered.
        consumer: who delivered it; tags of another connection say nothing to RabbitMQ, or name another message.
    """

    requeue = False
    parked_s = 0.0

    def __init__(
        self, redelivered: bool, tag: int, message: dramatiq.Message[Any], letter: Letter, consumer: RabbitConsumer
    ) -> None:
        super().__init__(redelivered, tag, message)
        self.redelivered, self.letter, self.consumer = redelivered, letter, consumer
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
        self._parked: Parked[tuple[int, Letter]] = Parked()
        self._received: deque[tuple[Any, Letter]] = deque()
        self._look_s = timeout / 1000
        self._has_begun = self._is_cancelled = False
        self._end: Exception | None = None

    @property
    def held(self) -> Counter[str]:
        """Queue -> messages that were received and not settled."""
        return Counter({self.queue_name: len(self.known_tags)})

    def close(self) -> None:
        """Close channel and connection. Dramatiq leaves the connection open where the channel was closed before."""
        try:
            super().close()
        finally:
            if self.connection.is_open:
                with suppress(*_FAULTS):
                    self.connection.close()

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
            self._parked.add((message._tag, message.letter), message.parked_s)
            self.wake()
        else:
            self._give_back(message._tag, message.letter)

    def nack(self, message: Any) -> None:
        """Reject; the dead-letter middleware has recorded it, or asks for it to be given back."""
        if message.requeue or message.consumer is not self:
            self.ack(message)
        else:
            super().nack(message)

    def __next__(self) -> RabbitMessage | None:
        """The next message, or None after the timeout. Raises ConnectionClosed."""
        self.broker.moves.move(self.queue_name)
        for tag, letter in self._parked.due():
            self._give_back(tag, letter)
        try:
            self._receive()
        except (AssertionError, pika.exceptions.AMQPError) as error:
            self.broker.cannot_consume(self.queue_name, error)
            if getattr(error, "reply_code", None) == 404 or self._is_cancelled:
                self.broker.queues_pending.add(self.queue_name)
            raise ConnectionClosed(error) from None
        if not self._received:
            return None
        method, letter = self._received.popleft()
        if self.broker.is_foreign(letter):
            # Behind ours, or it would come again and again before them.
            letter.properties.priority = 0
            self.known_tags.add(method.delivery_tag)
            self._parked.add((method.delivery_tag, letter), PARKED_S)
            return None
        try:
            decoded = decode(letter.body, self.queue_name)
        except NoMessage as error:
            self._record(letter.body, error)
            self._nack(method.delivery_tag)
            return None
        self.known_tags.add(method.delivery_tag)
        return RabbitMessage(method.redelivered, method.delivery_tag, decoded, letter, self)

    def _receive(self) -> None:
        """Wait until there is something: a message, an ack to be sent, a connection that was lost. Raises pika's errors."""
        if not self._has_begun:
            # Here, where Dramatiq closes a consumer that fails; one that fails while it is made nobody closes.
            self._has_begun = True
            self._hold_marker()
            self.channel.add_on_cancel_callback(self._cancelled)
            # The blocking channel does not tell why it was closed, the one inside it does.
            self.channel._impl.add_on_close_callback(self._closed)
            self.channel.basic_consume(self.queue_name, self._keep)
            self.broker.consumes(self.queue_name)
        if not self._received:
            look_s = STOPPING_LOOK_S if self.broker.is_stopping else self._look_s
            self.connection.process_data_events(self._parked.wait_s(look_s))
            if not self._received and (self._is_cancelled or not self.channel.is_open):
                raise self._end or pika.exceptions.ChannelWrongStateError(f"queue {self.queue_name} was deleted")

    def _hold_marker(self) -> None:
        """Raises ConnectionClosed while another installation has the queues, or nobody can tell."""
        try:
            self.broker.hold_marker(self.connection)
        except QueueTaken as error:
            raise ConnectionClosed(error) from None
        except DatabaseUnavailable as error:
            log.outage("database").down(error)
            raise ConnectionClosed(error) from None

    def _keep(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._received.append((method, Letter(self.queue_name, body, properties)))

    def _cancelled(self, _method: Any) -> None:
        self._is_cancelled = True

    def _closed(self, _channel: Any, reason: Exception) -> None:
        self._end = reason

    def _record(self, body: bytes, error: NoMessage) -> None:
        """Raises ConnectionClosed while the record cannot be written: the message is delivered again later."""
        try:
            dead_letters.add_message(self.broker.store, "bad_message", str(error), body.decode("utf-8", "backslashreplace"))
        except DatabaseUnavailable as away:
            log.outage("database").down(away)
            raise ConnectionClosed(away) from None

    def _give_back(self, tag: int, letter: Letter) -> None:
        """Publish a copy and acknowledge: RabbitMQ may count deliveries of a message, and drop it after some.

        Where it takes no copy the message itself goes back. If that is dropped, the sweep publishes its ids again.
        """
        try:
            is_copied = not self.broker._confirms.publish([letter], wait_s=0.0)
        except (QueueError, *_FAULTS):
            is_copied = False
        settle = self.channel.basic_ack if is_copied else partial(self.channel.basic_nack, requeue=True)
        try:
            self.known_tags.remove(tag)
            self.connection.add_callback_threadsafe(partial(settle, tag))
        except (KeyError, pika.exceptions.AMQPError):
            # The connection is gone, and with it the delivery: RabbitMQ has taken the message back.
            return
