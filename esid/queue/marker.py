"""One queue beside the others that says whose they are: the installation (one database) whose daemons consume them.

Two installations on the same queues would eat each other's messages, so they are those of who came first. RabbitMQ tells
nobody who consumes a queue, but it refuses to declare one that is there with other arguments, and the id of the
installation is one of them. Each consumer holds the marker on the connection that it has anyway.

It goes with its last holder, also with one that was killed; what a host held that lost its power RabbitMQ gives up when
its heartbeats are missing. Durable, as RabbitMQ 4.3 takes no transient queue that many may use; what a restart of RabbitMQ
leaves behind ends by itself. Where it cannot be had for any other reason (a right, a node that is down) work goes on.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import pika

from esid import log
from esid.errors import QueueTaken

#: The last part of its name.
NAME = "installation"
#: Seconds after which it ends where nobody holds it.
EXPIRES_S = 60
_WHOSE = re.compile(r"inequivalent arg 'x-dead-letter-routing-key' .* current is '([^']*)'", re.DOTALL)
_log = log.get("queue")


class Marker:
    """The marker as one process sees it.

    Args:
        name: of the queue.
        where: the address of RabbitMQ, as it is said to people.
    """

    def __init__(self, name: str, where: str) -> None:
        self._name, self._where = name, where
        self._is_missing = False

    def hold(self, connection: Any, installation: str) -> Any:
        """Hold it until the end of the connection, or of the channel that is returned; None where it cannot be had.

        Args:
            connection: pika's, used by nobody else at the moment.
            installation: the id of ours.

        Raises:
            QueueTaken: another installation holds it.
            pika's errors: the connection was lost.
        """
        channel = connection.channel()
        # Never others than these: who declares others is another installation to all older releases.
        arguments = {
            "x-queue-type": "classic",
            "x-expires": EXPIRES_S * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": installation,
        }
        try:
            channel.queue_declare(self._name, durable=True, auto_delete=True, arguments=arguments)
            channel.basic_consume(self._name, lambda *_: None, auto_ack=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            if found := _WHOSE.search(error.reply_text):
                raise QueueTaken(self._words(found[1])) from None
            self._say_missing(error.reply_text)
            return None
        return channel

    def look(self, connection: Any, installation: str) -> None:
        """Hold it for a moment. Raises as `hold`."""
        if channel := self.hold(connection, installation):
            channel.close()

    def _words(self, whose: str) -> str:
        prefix = self._name.rpartition(".")[0]
        return (
            f"another installation (another database: its id is {whose}) consumes the queues {prefix}.* at {self._where}; "
            "give one of the two another ESID_QUEUE_PREFIX, or stop the other one: a minute later at most they are free "
            "(`esid purge` removes what it has left in them)"
        )

    def _say_missing(self, why: str) -> None:
        if not self._is_missing:
            self._is_missing = True
            words = f"RabbitMQ refuses the queue {self._name}, by which another installation on our queues is noticed: {why}"
            log.event(_log, "rabbitmq.no_marker", words, level=logging.WARNING)
