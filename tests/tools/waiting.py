"""The one place where a test waits for something to become true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    deadline_s: float = 10.0,
    what: str | Callable[[], str] = "the condition",
    every_s: float = 0.2,
) -> T:
    """Call `condition` often at first, later every `every_s` seconds, and return its first truthy value.

    Raises AssertionError naming `what` (as it is then) when `deadline_s` seconds pass first. An exception raised by
    `condition` passes through at once.
    """
    end, pause_s = time.monotonic() + deadline_s, min(0.01, every_s)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, every_s)
