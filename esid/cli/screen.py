"""A page of the terminal's own, with keys and a size; whatever ends it, the terminal is as it was before."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from esid.cli.printing import size

#: The other page, without cursor and without lines that go on in the next one; and back.
_ENTER, _LEAVE = "\033[?1049h\033[?25l\033[?7l", "\033[?7h\033[?25h\033[?1049l"
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
#: What a terminal sends -> what was pressed. Other keys stand for themselves.
_KEYS = {
    **{f"\033{mark}{letter}".encode(): name for mark in "[O" for letter, name in
       {"A": "up", "B": "down", "H": "home", "F": "end"}.items()},
    b"\033[5~": "page up", b"\033[6~": "page down", b"\033[1~": "home", b"\033[4~": "end",
}  # fmt: skip
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def has_screen() -> bool:
    """True where standard output is a terminal that can do this."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """As a context. Ctrl-C, a closed terminal, SIGTERM and Ctrl-Z are as anywhere else."""

    def __init__(self) -> None:
        self._keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._modes: list[Any] | None = None
        self._woken, self._waking = -1, -1
        self._before: dict[signal.Signals, Any] = {}
        self._woke_before = -1

    def __enter__(self) -> Screen:
        # A new size ends the wait for a key.
        self._woken, self._waking = os.pipe()
        for end in (self._woken, self._waking):
            os.set_blocking(end, False)
        self._woke_before = signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        handlers = {signal.SIGWINCH: lambda *_: None, signal.SIGTSTP: self._suspend, **dict.fromkeys(_ENDING, _end)}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        # Where the terminal has gone there is nothing to give back.
        with suppress(OSError, termios.error):
            self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._woke_before)
        os.close(self._woken)
        os.close(self._waking)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, just now."""
        return size(sys.stdout)

    def draw(self, lines: Sequence[str], last: str) -> None:
        """Fill the page: lines from its top, and one at its foot. Drawn over, line by line: a cleared page would flicker."""
        wide, high = self.size
        rows = [line[:wide] for line in lines[: high - 1]]
        rows += [""] * (high - 1 - len(rows))
        # Behind a row that fills its line, the rest of the line is its last character.
        drawn = "".join(f"{row}\n" if len(row) == wide else f"{row}\033[K\n" for row in rows)
        self._write(f"\033[H{drawn}\033[7m{last[: wide - 1]}\033[0m\033[J")

    def keys(self, seconds: float) -> list[str]:
        """What is pressed within the seconds; [] also where the size has changed."""
        waited_for = [self._woken] if self._keyboard is None else [self._woken, self._keyboard]
        ready, _, _ = select.select(waited_for, [], [], max(0.0, seconds))
        if self._woken in ready:
            os.read(self._woken, 1024)
        if self._keyboard not in ready:
            return []
        pressed = os.read(self._keyboard, 1024)
        # The end of the input is somebody who leaves.
        return [_KEYS.get(key, key.decode("latin-1")) for key in _KEY.findall(pressed)] or ["q"]

    def _take(self) -> None:
        if self._keyboard is not None:
            self._modes = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        if self._keyboard is not None and self._modes:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)

    def _suspend(self, *_: object) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
