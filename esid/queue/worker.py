"""Dramatiq's worker, whose threads wait for messages without looking up in between; a stop wakes them, and the consumers."""

from __future__ import annotations

from queue import Empty, PriorityQueue
from typing import Any

import dramatiq
from dramatiq.worker import ConsumerThread

from esid import clock
from esid.queue.broker import PERSON

#: Milliseconds after which a consumer that was given no message shows that it lives.
_LOOK_MS = 10_000


class WorkQueue(PriorityQueue[Any]):
    """Messages of all consumers on their way to the threads: what a person has asked for first, then the lists that tell
    what there is, then all else dealt out, an actor's turn after the other's, so that rows of every kind arrive."""

    _is_woken = False

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._number, self._turn, self._turns = 0, 0, dict[str, int]()

    def _put(self, item: Any) -> None:
        message = item.message
        turn = self._turns[message.actor_name] = max(self._turn, self._turns.get(message.actor_name, 0)) + 1
        rank = -1 if message.options.get("broker_priority") == PERSON else item.priority
        self._number += 1
        super()._put((rank, turn, self._number, item))

    def _get(self) -> Any:
        _, turn, _, item = super()._get()
        # Who comes now has the next turn, and not one for each that the others have had.
        self._turn = max(self._turn, turn - 1)
        return item

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next message, waited for without end. Empty: then and now for no reason, and after `wake` to all who wait."""
        with self.not_empty:
            if block and not self._qsize() and not self._is_woken:
                self.not_empty.wait()
            if not self._qsize() or (block and self._is_woken):
                raise Empty
            return self._get()

    def wake(self) -> None:
        """Nobody waits any more, now or later."""
        with self.not_empty:
            self._is_woken = True
            self.not_empty.notify_all()


class _Consuming(ConsumerThread):
    """The thread of a consumer of several queues, which Dramatiq closes once for each of them."""

    _closed: Any = None

    def __init__(self, queues: tuple[str, ...], **more: Any) -> None:
        super().__init__(queue_name=", ".join(queues), **more)
        #: What Dramatiq hands to `Broker.consume`.
        self.queue_name: Any = queues

    def close(self) -> None:
        if self.consumer is not self._closed:
            self._closed = self.consumer
            super().close()


class Worker(dramatiq.Worker):
    """The threads of a process and its one consumer.

    Args:
        queues: names of those that it consumes.
        prefetch: messages of a queue that it holds at most.
    """

    def __init__(self, broker: dramatiq.Broker, queues: set[str], threads: int, prefetch: int) -> None:
        super().__init__(broker, queues=queues, worker_threads=threads, worker_timeout=_LOOK_MS)
        self.work_queue = self._waiting = WorkQueue()
        self._consuming = _Consuming(
            tuple(sorted(queues)), broker=broker, prefetch=prefetch, work_queue=self.work_queue, worker_timeout=_LOOK_MS
        )
        self.consumers.update(dict.fromkeys(queues, self._consuming))

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        """Dramatiq adds one for each queue; ours consumes all of them."""

    def start(self) -> None:
        """Start all threads. They have begun on return: Dramatiq's forget a stop that comes before."""
        super().start()
        self._consuming.start()
        threads: list[Any] = [*self.workers, self._consuming]
        while not all(thread.running for thread in threads):
            clock.sleep(0.001)

    def held(self) -> dict[str, int]:
        """Queue -> messages that this process has received and not settled, where there are any."""
        consumer: Any = self._consuming.consumer
        return {queue: count for queue, count in consumer.held.items() if count} if consumer else {}

    def stop(self, timeout: int = 600_000) -> None:
        """End all threads, those with a message after it; what was not begun goes back.

        Args:
            timeout: milliseconds that they may take.
        """
        for worker in self.workers:
            worker.stop()
        self._waiting.wake()
        # The consumer goes on until the last message in work is done. One that is not there yet sees that we stop.
        broker: Any = self.broker
        broker.is_stopping = True
        consumer: Any = self._consuming.consumer
        if consumer:
            consumer.wake()
        super().stop(timeout)
