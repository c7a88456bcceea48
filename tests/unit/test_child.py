"""A child of the supervisor whose processes are those of the test: what dies is replaced, as long as there is a process."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from esid.daemon import child as module
from esid.daemon.child import AGAIN_S, MOST_DEATHS, Child
from esid.errors import EsidError


class Fork:
    """A context of `multiprocessing` that makes a process where there is room for one."""

    def __init__(self) -> None:
        self.has_room, self.tries, self.made = True, 0, list[Any]()

    def Process(self, **_: Any) -> Any:  # noqa: N802
        """One that is not started yet."""
        return Process(self)


class Process:
    """Lives until the test sets its exit code."""

    def __init__(self, fork: Fork) -> None:
        self._fork, self.pid, self.exitcode = fork, None, None

    def start(self) -> None:
        """Raises OSError."""
        self._fork.tries += 1
        if not self._fork.has_room:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.pid = len(self._fork.made) + 1
        self._fork.made.append(self)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def fork() -> Fork:
    """One with room."""
    return Fork()


@pytest.fixture
def child(fork: Fork, times: list[float]) -> Child:
    """A worker, not started yet."""
    return Child("worker-1", lambda _: None, 0, fork)


def die(fork: Fork) -> None:
    """The newest process is killed."""
    fork.made[-1].exitcode = -9


def test_a_child_for_which_no_process_is_made_names_cause_and_cure(child: Child, fork: Fork) -> None:
    fork.has_room = False
    with pytest.raises(EsidError, match=r"worker-1 cannot be started.*Resource temporarily unavailable.*allow more"):
        child.start()
    assert not child.is_alive()


def test_a_replacement_that_finds_no_room_is_tried_again_and_counts_as_one_restart(
    child: Child, fork: Fork, times: list[float]
) -> None:
    child.start()
    die(fork)
    fork.has_room = False
    assert child.keep_alive()
    assert not child.is_alive()
    # Not at once: signals may wake the supervisor at any moment
    assert child.keep_alive()
    assert fork.tries == 2

    fork.has_room = True
    times[0] += AGAIN_S
    assert child.keep_alive()
    assert child.is_alive()
    assert (len(fork.made), child._cell.unnoted) == (2, 1)


def test_a_replacement_that_never_finds_room_is_given_up(child: Child, fork: Fork, times: list[float]) -> None:
    child.start()
    die(fork)
    fork.has_room = False
    for _ in range(MOST_DEATHS - 1):
        assert child.keep_alive()
        times[0] += AGAIN_S
    assert not child.keep_alive()
    assert AGAIN_S * MOST_DEATHS < module.DEATHS_WITHIN_S
