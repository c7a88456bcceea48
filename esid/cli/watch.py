"""`esid status --watch` on a terminal: the top of a text first, and the rest by keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from esid import clock, log
from esid.cli.screen import Screen
from esid.words import counted

#: Seconds between two looks.
AGAIN_S = 2.0
_State = TypeVar("_State")


def watch(collect: Callable[[], _State], lines: Callable[[_State, int], Iterable[str]]) -> int:
    """Show a text again and again until somebody presses q; its exit code.

    Args:
        collect: what is to be shown, anew.
        lines: the text of it, for so many columns.

    Raises as `collect`.
    """
    with Screen() as screen:
        top = 0
        while True:
            state, at, until = collect(), clock.now(), clock.monotonic() + AGAIN_S
            while (left := until - clock.monotonic()) > 0:
                wide, high = screen.size
                text = [log.printable(line) for line in lines(state, wide)]
                room = max(1, high - 1)
                top = min(top, max(0, len(text) - room))
                screen.draw(text[top:], f" {at:%H:%M:%S} UTC | {foot(text, top, room)}")
                for key in screen.keys(left):
                    if key in {"q", "Q"}:
                        return 0
                    top = moved(key, top, room, len(text))


def moved(key: str, top: int, room: int, length: int) -> int:
    """The first line that is shown after a key, of a text of so many lines of which so many are seen at once."""
    steps = {
        "up": -1, "k": -1, "down": 1, "j": 1, "\n": 1, "page up": -room, "b": -room, "page down": room, " ": room,
        "home": -length, "g": -length, "end": length, "G": length,
    }  # fmt: skip
    return min(max(0, top + steps.get(key, 0)), max(0, length - room))


def foot(text: Sequence[str], top: int, room: int) -> str:
    """The last line: the keys, and what is not seen."""
    if len(text) <= room:
        return "q quits"
    below = text[top + room :]
    titles = [line.partition("  ")[0].partition(" (")[0] for line in below if line and not line.startswith(" ")]
    what = f": {', '.join(titles)}" if titles else ""
    where = f"{counted(len(below), 'line')} below{what}" if below else "the end"
    return f"q quits, arrows scroll | {where}"
