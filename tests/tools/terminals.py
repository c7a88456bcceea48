"""A terminal as a program sees it: a size, keys, Ctrl-C; and what it has written there."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

_CODES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Terminal:
    """One command in a terminal of its own. As a context: the command is killed at the end.

    Args:
        stdout: where its standard output goes instead.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        directory: Path,
        *,
        columns: int = 80,
        lines: int = 24,
        stdout: int | None = None,
    ) -> None:
        self._master, inside = pty.openpty()
        self.resize(columns, lines)
        # `setsid -c` makes it the terminal of the new session, so that its keys and sizes become signals.
        self.process = subprocess.Popen(
            ["setsid", "-c", *command],
            env={"TERM": "xterm", **environment}, cwd=directory, stdin=inside,
            stdout=inside if stdout is None else stdout, stderr=inside, start_new_session=False,
        )  # fmt: skip
        self._inside = inside
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._master)
        os.close(self._inside)

    def resize(self, columns: int, lines: int) -> None:
        """Another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def read(self) -> str:
        """Everything that was written so far."""
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                self.seen += os.read(self._master, 65536).decode()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                break
        return self.seen

    def page(self) -> list[str]:
        """The rows of the newest page that is whole; [] = none was drawn yet."""
        pages = self.read().split("\x1b[H")[1:]
        whole = [one for one in pages if "\x1b[J" in one]
        return [_CODES.sub("", row) for row in whole[-1].partition("\x1b[J")[0].split("\r\n")] if whole else []

    @property
    def is_plain(self) -> bool:
        """True where keys make lines and are echoed, as a shell leaves it."""
        modes = termios.tcgetattr(self._inside)[3]
        return bool(modes & termios.ICANON) and bool(modes & termios.ECHO)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Read on until it has ended; its exit code."""
        ends_at = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < ends_at, self.seen
        self.read()
        return self.process.returncode
