"""Publishing to RabbitMQ: one connection of a process, whose messages are confirmed, many of them on their way at a time.

RabbitMQ stops reading from a connection that publishes while its memory or disk is short. So nothing else uses this one,
and a publisher that has waited for 10 s gives up.

pika's blocking channel waits for each confirm before it sends the next message; the channel inside it does not.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from esid import clock
from esid.errors import BrokerUnavailable
from esid.log import Outage

#: Seconds that a publisher waits while RabbitMQ takes no messages; a stop ends the wait.
BLOCKED_S = 10.0
#: Seconds between two looks of a publisher that waits.
_LOOK_S = 0.1
#: Messages on their way to RabbitMQ at most.
_BATCH = 500
FAULTS = (pika.exceptions.AMQPError, AMQPConnectorException, OSError)


class Letter(NamedTuple):
    """What goes to a queue."""

    queue: str
    body: bytes
    properties: pika.BasicProperties


class Confirms:
    """Publishes for all threads of a process.

    Args:
        where: the address of RabbitMQ, as it is said to people.
        is_stopping: tells a publisher that waits to give up.
    """

    def __init__(self, parameters: Any, where: str, outage: Outage, is_stopping: Callable[[], bool]) -> None:
        self._parameters, self._where, self._outage, self._is_stopping = parameters, where, outage, is_stopping
        self._lock = threading.Lock()
        self._connection: Any = None
        self._channel: Any = None
        self._end: Exception | None = None
        self._sent, self._words = 0, ""
        self._blocked_at: float | None = None
        self._left: dict[int, Letter] = {}
        self._open_tags: dict[int, int] = {}
        self._refused: list[int] = []

    @property
    def is_blocked(self) -> bool:
        """True while RabbitMQ takes no messages from us."""
        return self._blocked_at is not None

    def publish(self, letters: Sequence[Letter], wait_s: float = math.inf) -> list[int]:
        """Publish and wait for the confirms. Returns the indexes of those that RabbitMQ did not take: their queue is not
        there, or full.

        Args:
            wait_s: for how long RabbitMQ may take no messages, and 10 s at most.

        Raises:
            BrokerUnavailable: it took none for so long.
            FAULTS: the connection was lost twice; an idle one may have been closed.
        """
        with self._lock:
            self._left, self._refused = dict(enumerate(letters)), []
            for attempt in (1, 2):
                try:
                    self._open()
                    self._send(wait_s)
                    break
                except FAULTS:
                    self._drop()
                    if attempt == 2:
                        raise
            return sorted(self._refused)

    def serve(self) -> None:
        """Read what RabbitMQ has sent meanwhile, and send heartbeats; to be called now and then."""
        if self._lock.acquire(blocking=False):
            try:
                if self._connection:
                    self._look(0.0)
            except FAULTS:
                self._drop()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _open(self) -> None:
        if self._connection:
            return
        connection: Any = pika.BlockingConnection(self._parameters)
        try:
            self._channel = connection.channel()._impl
            self._channel.add_on_close_callback(self._closed)
            self._channel.add_on_return_callback(self._returned)
            self._channel.confirm_delivery(self._confirmed)
            connection._impl.add_on_connection_blocked_callback(self._blocked)
            connection._impl.add_on_connection_unblocked_callback(self._unblocked)
        except FAULTS:
            with suppress(*FAULTS):
                connection.close()
            raise
        self._connection = connection

    def _send(self, wait_s: float) -> None:
        self._look(0.0)
        self._give_up_if_blocked(wait_s)
        todo = list(self._left.items())
        for start in range(0, len(todo), _BATCH):
            for index, (queue, body, properties) in todo[start : start + _BATCH]:
                self._sent += 1
                self._open_tags[self._sent] = index
                properties.correlation_id = str(self._sent)
                self._channel.basic_publish("", queue, body, properties, mandatory=True)
            while self._open_tags:
                self._look(_LOOK_S)
                self._give_up_if_blocked(wait_s)

    def _look(self, wait_s: float) -> None:
        """Read and write what there is, or wait for it. Raises what ended the connection."""
        ioloop = self._connection._impl.ioloop
        timer = ioloop.call_later(wait_s, lambda: None)
        ioloop.poll()
        ioloop.process_timeouts()
        ioloop.remove_timeout(timer)
        if self._end:
            raise self._end

    def _give_up_if_blocked(self, wait_s: float) -> None:
        """Raise BrokerUnavailable when it has been long enough. What was sent may arrive later: a message too many."""
        if self.is_blocked and (self._is_stopping() or self._waited_s() >= min(wait_s, BLOCKED_S)):
            self._open_tags.clear()
            raise BrokerUnavailable(self._words)

    def _waited_s(self) -> float:
        return clock.monotonic() - self._blocked_at if self._blocked_at is not None else 0.0

    def _drop(self) -> None:
        connection, is_blocked = self._connection, self.is_blocked
        if connection and connection.is_open:
            with suppress(*FAULTS):
                if is_blocked:
                    # RabbitMQ would not read that we close it.
                    connection._impl._terminate_stream(pika.exceptions.ConnectionBlockedTimeout())
                    while True:
                        self._look(_LOOK_S)  # until it raises
                else:
                    connection.close()
        if connection:
            connection._cleanup()
        self._connection = self._channel = self._end = self._blocked_at = None
        self._sent = 0
        self._open_tags.clear()

    def _closed(self, _channel: Any, reason: Exception) -> None:
        self._end = reason

    def _returned(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        """RabbitMQ confirms it afterwards, as any other."""
        index = self._open_tags.get(int(properties.correlation_id))
        if index is not None:
            self._refused.append(index)

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        last = method.delivery_tag
        for tag in [tag for tag in self._open_tags if tag <= last] if method.multiple else [last]:
            index = self._open_tags.pop(tag, None)
            if index is None:
                continue  # its publisher has given up
            del self._left[index]
            if isinstance(method, pika.spec.Basic.Nack):
                self._refused.append(index)

    def _blocked(self, _connection: Any, frame: Any) -> None:
        self._blocked_at = clock.monotonic()
        self._words = f"RabbitMQ at {self._where} takes no messages ({frame.method.reason}); free memory or disk space there"
        self._outage.down(self._words)

    def _unblocked(self, *_: Any) -> None:
        self._blocked_at = None
        self._outage.up()
