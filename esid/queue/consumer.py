"""A consumer of RabbitMQ queues, all on one connection, and the messages that they deliver."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import dramatiq
import pika
from dramatiq.errors import BrokerConnectionError, ConnectionClosed

from esid import clock, log
from esid.errors import DatabaseUnavailable, QueueError, QueueTaken
from esid.queue.confirms import FAULTS, Letter
from esid.queue.incoming import PARKED_S, STOPPING_LOOK_S, NoMessage, Parked, decode, is_recorded
from esid.queue.outcome import Outcome

if TYPE_CHECKING:
    from esid.queue.rabbitmq import RabbitBroker

_FAULTS = (*FAULTS, BrokerConnectionError)
#: Seconds after which a queue that could not be consumed is tried again, as Dramatiq does with a whole consumer.
_AGAIN_S = 3.0


class RabbitMessage(dramatiq.MessageProxy):
    """A delivered message. Set `requeue` to have it given back where it would be acknowledged, `parked_s` to have that
    done after so many seconds. `outcome` is what became of its ids.

    Args:
        letter: as it was delivered.
        intake: what delivered it; tags of another channel say nothing to RabbitMQ, or name another message.
    """

    requeue = False
    parked_s = 0.0
    outcome: Outcome | None = None

    def __init__(self, redelivered: bool, tag: int, message: dramatiq.Message[Any], letter: Letter, intake: Intake) -> None:
        super().__init__(message)
        self.redelivered, self.tag, self.letter, self.intake = redelivered, tag, letter, intake
        self.received_at = clock.monotonic()

    @property
    def comes_back(self) -> bool:
        """False once its channel is gone: it was delivered again then, and may have been done with."""
        return self.intake.is_open


class Intake:
    """One queue as it comes in through a channel of its own: what is wrong with one queue ends the channel alone.

    Args:
        received: where its messages go, in the order in which they come.
        most: messages that it holds at most.

    Raises:
        pika's errors: it could not begin.
    """

    def __init__(self, connection: Any, queue: str, most: int, received: deque[tuple[Intake, Any, Letter]]) -> None:
        self.queue, self.is_cancelled = queue, False
        #: Delivery tags of messages that were received and not settled.
        self.held: set[int] = set()
        self._connection, self._received = connection, received
        self._end: Exception | None = None
        self._channel = connection.channel()
        self._channel.add_on_cancel_callback(self._cancelled)
        # The blocking channel does not tell why it was closed, the one inside it does.
        self._channel._impl.add_on_close_callback(self._closed)
        self._channel.basic_qos(prefetch_count=most)
        self._channel.basic_consume(queue, self._keep)

    @property
    def is_open(self) -> bool:
        """False once it has ended, and RabbitMQ has taken back what it had delivered."""
        return bool(self._connection.is_open and self._channel.is_open) and not self.is_cancelled

    @property
    def end(self) -> Exception:
        """Why it has ended."""
        return self._end or pika.exceptions.ChannelWrongStateError(f"queue {self.queue} was deleted")

    def settle(self, verb: str, tag: int, **more: Any) -> None:
        """Tell RabbitMQ that a message is done with, from any thread; nothing where it was taken back."""
        if tag not in self.held:
            return
        self.held.discard(tag)
        with suppress(pika.exceptions.AMQPError):
            self._connection.add_callback_threadsafe(partial(self._settle, verb, tag, more))

    def close(self) -> None:
        """End the channel of a queue that was deleted."""
        with suppress(pika.exceptions.AMQPError):
            if self._channel.is_open:
                self._channel.close()

    def _settle(self, verb: str, tag: int, more: dict[str, Any]) -> None:
        # One that ends meanwhile is begun with anew, and RabbitMQ has taken its messages back.
        with suppress(pika.exceptions.AMQPChannelError):
            if self._channel.is_open:
                getattr(self._channel, verb)(tag, **more)

    def _keep(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._received.append((self, method, Letter(self.queue, body, properties)))

    def _cancelled(self, _method: Any) -> None:
        self.is_cancelled = True

    def _closed(self, _channel: Any, reason: Exception) -> None:
        self._end = reason


class RabbitConsumer(dramatiq.Consumer):
    """Consumes queues on one connection, with messages that can be given back, and a record of bytes that are no message.

    A queue that cannot be consumed is tried again and keeps no other from going on. It waits by itself: Dramatiq's way, a
    generator of pika's, cannot be woken.

    Args:
        most: queue -> how many of its messages it holds at most.

    Raises:
        pika's errors: RabbitMQ cannot be reached.
    """

    def __init__(self, broker: RabbitBroker, most: Mapping[str, int], look_s: float) -> None:
        self._broker, self._most, self._look_s = broker, most, look_s
        self.connection = pika.BlockingConnection(broker.parameters)
        self._parked: Parked[tuple[Intake, int, Letter]] = Parked()
        self._received: deque[tuple[Intake, Any, Letter]] = deque()
        self._has_marker = False
        self._intakes: dict[str, Intake] = {}
        #: Queue -> when it is to be begun with.
        self._begin_at = dict.fromkeys(most, 0.0)

    @property
    def held(self) -> Counter[str]:
        """Queue -> messages that were received and not settled."""
        return Counter({queue: len(intake.held) for queue, intake in list(self._intakes.items())})

    def close(self) -> None:
        """Send the last acks and close the connection, and with it all channels. Raises ConnectionClosed."""
        sent = Event()
        try:
            with suppress(pika.exceptions.ConnectionWrongStateError):
                self.connection.add_callback_threadsafe(sent.set)
                while not sent.is_set():
                    self.connection.sleep(0)
            self.connection.close()
        except (AssertionError, *_FAULTS) as error:
            raise ConnectionClosed(error) from None
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
        if not message.requeue:
            message.intake.settle("basic_ack", message.tag)
        elif message.parked_s:
            self._parked.add((message.intake, message.tag, message.letter), message.parked_s)
            self.wake()
        else:
            self._give_back(message.intake, message.tag, message.letter)

    def nack(self, message: Any) -> None:
        """Reject; the dead-letter middleware has recorded it, or asks for it to be given back."""
        if message.requeue:
            self.ack(message)
        else:
            message.intake.settle("basic_nack", message.tag, requeue=False)

    def requeue(self, messages: Any) -> None:
        """RabbitMQ takes back by itself what was not settled when the connection ends."""

    def __next__(self) -> RabbitMessage | None:
        """The next message, or None after the timeout. Raises ConnectionClosed."""
        self._broker.moves.move(min(self._most))
        for parked in self._parked.due():
            self._give_back(*parked)
        try:
            self._receive()
        except (AssertionError, pika.exceptions.AMQPError) as error:
            self._broker.cannot_consume(min(self._most), error)
            raise ConnectionClosed(error) from None
        if not self._received:
            return None
        intake, method, letter = self._received.popleft()
        if not intake.is_open and self.connection.is_open:
            # Delivered again through the next channel.
            return None
        tag = method.delivery_tag
        intake.held.add(tag)
        if self._broker.is_foreign(letter):
            # Behind ours, or it would come again and again before them.
            letter.properties.priority = 0
            self._parked.add((intake, tag, letter), PARKED_S)
            return None
        try:
            decoded = decode(letter.body, letter.queue)
        except NoMessage as error:
            if is_recorded(self._broker.store, letter.body.decode("utf-8", "backslashreplace"), error):
                intake.settle("basic_nack", tag, requeue=False)
            else:
                self._parked.add((intake, tag, letter), PARKED_S)
            return None
        return RabbitMessage(method.redelivered, tag, decoded, letter, intake)

    def _receive(self) -> None:
        """Wait until there is something: a message, an ack to be sent, a connection that was lost. Raises pika's errors,
        and ConnectionClosed where no queue can be consumed."""
        # Here, where Dramatiq closes a consumer that fails; one that fails while it is made nobody closes.
        if not self._has_marker:
            self._hold_marker()
            self._has_marker = True
        for queue in [queue for queue, at in self._begin_at.items() if at <= clock.monotonic()]:
            self._begin(queue)
        if self._received:
            return
        look_s = STOPPING_LOOK_S if self._broker.is_stopping else self._look_s
        begin_s = [max(0.0, at - clock.monotonic()) for at in self._begin_at.values()]
        self.connection.process_data_events(min([self._parked.wait_s(look_s), *begin_s]))
        for intake in [one for one in self._intakes.values() if not one.is_open]:
            self._cannot(intake.queue, intake.end)

    def _begin(self, queue: str) -> None:
        """Begin with a queue, or note that it cannot be. Raises as `_receive` does."""
        try:
            self._broker.declare_queue(queue, ensure=True)
            self._intakes[queue] = Intake(self.connection, queue, self._most[queue], self._received)
        except _FAULTS as error:
            # Dramatiq wraps what became of the connection of questions, or of its channel.
            cause = error.args[0] if isinstance(error, ConnectionClosed) and error.args else error
            if not isinstance(cause, pika.exceptions.AMQPChannelError):
                self._broker.cannot_consume(queue, error)
                raise ConnectionClosed(cause) from None
            self._cannot(queue, cause)
        else:
            del self._begin_at[queue]
            self._broker.consumes(queue)

    def _cannot(self, queue: str, error: Exception) -> None:
        """Try a queue again a little later; where no other one is consumed, on a new connection."""
        if not self.connection.is_open:
            raise error
        if intake := self._intakes.pop(queue, None):
            intake.close()
            if intake.is_cancelled:
                self._broker.queues_pending.add(queue)
        if getattr(error, "reply_code", None) == 404:
            self._broker.queues_pending.add(queue)
        self._begin_at[queue] = clock.monotonic() + _AGAIN_S
        self._broker.cannot_consume(queue, error)
        if not self._intakes and all(at > clock.monotonic() for at in self._begin_at.values()):
            raise ConnectionClosed(error)

    def _hold_marker(self) -> None:
        """Raises ConnectionClosed while another installation has the queues, or nobody can tell."""
        try:
            self._broker.hold_marker(self.connection)
        except QueueTaken as error:
            raise ConnectionClosed(error) from None
        except DatabaseUnavailable as error:
            log.outage("database").down(error)
            raise ConnectionClosed(error) from None

    def _give_back(self, intake: Intake, tag: int, letter: Letter) -> None:
        """Publish a copy and acknowledge: RabbitMQ may count deliveries of a message, and drop it after some.

        Where it takes no copy the message itself goes back. If that is dropped, the sweep publishes its ids again.
        """
        if tag not in intake.held or not intake.is_open:
            # Its channel is gone, and with it the delivery: RabbitMQ has taken the message back.
            return
        try:
            is_copied = not self._broker._confirms.publish([letter], wait_s=0.0)
        except (QueueError, *_FAULTS):
            is_copied = False
        if is_copied:
            intake.settle("basic_ack", tag)
        else:
            intake.settle("basic_nack", tag, requeue=True)
