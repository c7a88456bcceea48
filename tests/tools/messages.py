"""A test makes messages, and takes them from a queue."""

from __future__ import annotations

from typing import Any

import dramatiq

from tests.tools.waiting import wait_until


def message(queue: str, *ids: int, priority: int = 0, actor: str = "corporation") -> dramatiq.Message[Any]:
    """A message as the publisher makes it."""
    return dramatiq.Message(queue, actor, (list(ids),), {}, options={"broker_priority": priority})


def receive(consumer: Any, count: int, deadline_s: float = 10.0) -> list[Any]:
    """That many messages."""
    got: list[Any] = []

    def enough() -> bool:
        one = next(consumer)
        if one is not None:
            got.append(one)
        return len(got) >= count

    wait_until(enough, deadline_s, f"{count} messages, got {len(got)}")
    return got


class Inbox:
    """A queue in memory."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def enqueue_many(self, messages: Any) -> None:
        """Take messages."""
        self.messages += messages
