"""Names and descriptions for generated entities, some of them awkward on purpose."""

from __future__ import annotations

import random

_AWKWARD_NAMES = (
    'O\'Brien "Q"; DROP TABLE x; --',
    "Ünïcödé Straße",
    "Имя 名前 이름",
    "Rocket 🚀 Girl",
    "Back\\slash 100% {x} %s",
    "<b>Bold</b> &amp; co.",
)
_DESCRIPTIONS = (
    "",
    "An ordinary text.",
    "First line\nsecond line\r\n\tand a tab",
    '<font size="12" color="#bfffffff">Fly safe<br>o7</font> <a href="showinfo:2//98000001">us</a>',
    'O\'Brien "Q"; DROP TABLE x; emoji 🦀 and a separator \u2028 here',
    "long " * 200,
)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def name(rng: random.Random, kind: str, number: int) -> str:
    """A name that no other `number` of this kind has; about one in eight is awkward."""
    if rng.random() < 0.125:
        return f"{rng.choice(_AWKWARD_NAMES)} {kind[0]}{number}"
    return f"{kind} {number:06d}"


def description(rng: random.Random) -> str:
    """A description as players write them, now and then empty or many-lined."""
    return rng.choice(_DESCRIPTIONS)


def ticker(number: int) -> str:
    """A ticker of at most five letters and digits, different for each number below 60 million."""
    digits = ""
    while number or not digits:
        number, rest = divmod(number, len(_DIGITS))
        digits = _DIGITS[rest] + digits
    return digits.rjust(3, "0")
