"""The error limit: 100 errors in a fixed window of 60 s, for all routes without a rate group.

A request may leave only if the limit less its reserve would hold even when everything on its way came back as an
error. Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esid.esi import headers as read
from esid.esi.headers import ERROR_LIMIT, ERROR_WINDOW_S

#: Requests on their way while no answer has told what is left in this window: somebody else may have spent it.
UNKNOWN_IN_FLIGHT = 5
#: Seconds: `Reset` is told in whole seconds, so a window may last this much longer than told.
MARGIN_S = 1.0
#: Seconds by which the ends that two answers of one window tell may differ.
_SAME_S = 2.0


class ErrorLimit:
    """The account of one state.

    Args:
        reserve: errors that are never used.
        is_divided: other hosts use the limit too, and each has its part of it.
    """

    def __init__(self, state: Any, reserve: int, *, is_divided: bool) -> None:
        self._state, self.reserve, self._is_divided = state, reserve, is_divided

    def left(self, now: float) -> float:
        """Errors left in this window, as far as anybody has told."""
        self._turn(now)
        return float(self._state.errors_left)

    def room(self, now: float, *, of_all: bool = False) -> float:
        """How many requests of this host, or of all hosts together, may be on their way at once."""
        state = self._state
        self._turn(now)
        room = state.errors_left - self.reserve - state.errors_doubted
        if self._is_divided and not of_all:
            room = min(room - state.others_errors, state.errors_allowed - state.errors_used)
        return float(room if state.window_known else min(room, UNKNOWN_IN_FLIGHT))

    def reset_s(self, now: float) -> float:
        """Seconds until the window ends; 0 while it is unknown."""
        self._turn(now)
        return max(0.0, float(self._state.window_ends) - now)

    def wait_s(self, now: float) -> float:
        """Seconds until a new window has begun for sure."""
        return self.reset_s(now) + MARGIN_S

    def settle(self, status: int | None, headers: Mapping[str, str], now: float, sent_at: float) -> None:
        """Book one answer; `status` None = none came, which ESI counts as an error of its own.

        Args:
            sent_at: when it was asked for, or sooner: the answer's headers were written at some time since.
        """
        self._turn(now)
        is_error = status is None or status >= 400
        told = read.error_limit(headers)
        if told is not None:
            self._believe(*told, is_error, now, sent_at)
            return
        state = self._state
        # A gateway's error page tells nothing; an ESI that answers well without these headers has no such limit.
        if not is_error:
            self._know(sent_at)
        if is_error:
            if not state.window_ends:
                state.window_ends = now + ERROR_WINDOW_S
            self._count()

    def doubt(self, requests: int, now: float) -> None:
        """Somebody died with so many requests on their way: they count as errors until an answer that was asked for
        from now on tells what is left. Among hosts they count to the end of the window: no answer tells whose they were.
        """
        state = self._state
        state.window_known, state.doubted_at = 0, now
        if not state.window_ends:
            state.window_ends = now + ERROR_WINDOW_S
        state.errors_doubted += requests
        state.errors_used += requests

    def _believe(self, remain: float, reset_s: float, is_error: bool, now: float, sent_at: float) -> None:
        """Headers beat our own count.

        They may have been written long ago (a slow body, a process that was stopped): the end that they tell lies between
        two times, and only what is sure to be of another window is taken for that.
        """
        state, earliest, latest = self._state, sent_at + reset_s, now + reset_s
        if state.window_known and state.window_ends:
            begun = state.window_ends - ERROR_WINDOW_S
            if latest < state.window_ends - _SAME_S and sent_at < begun + _SAME_S:
                # Of the last window, most likely: what it tells is over, but its error may yet be of this one.
                if is_error:
                    self._count()
                return
            if earliest > state.window_ends + _SAME_S:
                self._begin()
        is_close = abs(latest - state.window_ends) <= _SAME_S
        if not (state.window_known and state.window_ends):
            state.window_ends = latest
        elif is_close:
            state.window_ends = max(latest, state.window_ends)
        else:
            state.window_ends = min(latest, state.window_ends)
        self._know(sent_at)
        state.errors_used += is_error
        state.errors_seen += is_error
        # ESI may have written `remain` before it counted errors that got no answer: our own count of the window has them.
        state.errors_left = min(state.errors_left, remain, max(0.0, ERROR_LIMIT - state.errors_seen))

    def _know(self, sent_at: float) -> None:
        if sent_at >= self._state.doubted_at:
            self._state.window_known, self._state.errors_doubted = 1, 0.0

    def _count(self) -> None:
        self._state.errors_left = max(0.0, self._state.errors_left - 1)
        self._state.errors_used += 1
        self._state.errors_seen += 1

    def _turn(self, now: float) -> None:
        """A window that has ended gives its errors back."""
        ends = self._state.window_ends
        is_over, is_new = ends and now >= ends + MARGIN_S, not ends and not self._state.errors_left
        if is_over or is_new:
            self._begin()

    def _begin(self) -> None:
        state = self._state
        state.errors_left, state.errors_used, state.errors_seen, state.errors_doubted = float(ERROR_LIMIT), 0.0, 0.0, 0.0
        state.window_ends, state.window_known, state.doubted_at = 0.0, 0, 0.0
