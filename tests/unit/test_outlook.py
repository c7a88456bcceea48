"""How long a sync takes, as it is told while it runs: on a first sync that is simulated by counts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from esid.status.outlook import Outlook

#: The world as it is about: alliances, corporations of them, and those of nobody; characters that each one names.
ALLIANCES, CORPORATIONS, NPC = 3500, 17_000, 283
PACE = 50.0
NAMES = ("alliances", "npccorps", "alliance", "alliance_corporations", "corporation", "character", "killmail")


@dataclass
class Sync:
    """A first sync, request by request, dealt out in turn; every id that is named becomes known."""

    dice: random.Random
    sent: int = 0
    open: dict[str, list[int]] = field(default_factory=lambda: {"alliances": [1], "npccorps": [1]})
    known: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in NAMES})

    def step(self) -> None:
        """One request."""
        names = [name for name in NAMES if self.open.get(name)]
        name = names[0] if names[0] in {"alliances", "npccorps"} else names[self.sent % len(names)]
        key = self.open[name].pop()
        self.sent += 1
        if name == "alliances":
            self.see("alliance", *range(ALLIANCES))
        elif name == "npccorps":
            self.see("corporation", *range(10**6, 10**6 + NPC))
        elif name == "alliance":
            self.see("alliance_corporations", key)
            self.see("character", self.dice.randrange(200_000))
        elif name == "alliance_corporations":
            each = CORPORATIONS // ALLIANCES
            self.see("corporation", *range(key * each, (key + 1) * each))
        elif name == "corporation":
            self.see("character", *(self.dice.randrange(200_000) for _ in range(2)))

    def see(self, name: str, *ids: int) -> None:
        """Ids become known, and are asked for."""
        new = set(ids) - self.known[name]
        self.known[name] |= new
        self.open.setdefault(name, []).extend(sorted(new))

    def counts(self) -> dict[str, dict[str, int]]:
        """The ledger."""
        found = {}
        for name in NAMES:
            waiting = len(self.open.get(name, ()))
            found[name] = {"pending": waiting, "completed": len(self.known[name]) - waiting}
        return found


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(5))
def test_from_the_end_of_the_lists_on_the_time_left_is_within_a_third_of_the_truth(seed: int) -> None:
    sync = Sync(random.Random(seed))
    outlook, told = Outlook(sync.counts(), NAMES, 0.0, 0), []
    while any(sync.open.values()):
        for _ in range(250):
            if any(sync.open.values()):
                sync.step()
        now = sync.sent / PACE
        if any(sync.open.values()) and (left := outlook.left(sync.counts(), now, sync.sent)):
            told.append((now, left))
    end = sync.sent / PACE
    assert len(told) > 100
    least = [(now, left) for now, left in told if left.is_least]
    about = [(now, left) for now, left in told if not left.is_least]
    # "At least" is never more than the truth by a third, and lasts while lists are open
    assert least
    assert all(now + left.seconds < end * 1.34 for now, left in least)
    assert len(about) > 50
    assert [now for now, left in about if not 2 / 3 < left.seconds / (end - now) < 4 / 3] == []


def test_a_mirror_that_is_there_already_is_refreshed_without_new_characters() -> None:
    # Given ten years of characters, and corporations that are due and name none that is new
    counts = {"corporation": {"completed": 9000, "pending": 1000}, "character": {"completed": 90_000}}
    outlook = Outlook(counts, NAMES, 0.0, 0)
    counts = {"corporation": {"completed": 9500, "pending": 500}, "character": {"completed": 90_000}}
    left = outlook.left(counts, 10.0, 500)
    assert left
    assert (round(left.seconds, 3), left.is_least) == (10.0, False)


def test_killmails_wait_for_tokens_of_their_own() -> None:
    counts = {"corporation": {"pending": 1000}, "killmail": {"pending": 5000}}
    outlook = Outlook(counts, NAMES, 0.0, 0)
    left = outlook.left(
        {"corporation": {"pending": 510, "completed": 490}, "killmail": {"pending": 4990, "completed": 10}}, 10.0, 500
    )
    assert left
    assert round(left.seconds) == 4990


def test_what_is_doubted_has_a_pace_of_its_own() -> None:
    # Given 500 ids of which one in 6 s is asked, beside 1,000 that are asked as fast as ever
    outlook = Outlook({"corporation": {"pending": 1500}}, NAMES, 0.0, 0)
    left = outlook.left({"corporation": {"pending": 998, "completed": 502}}, 10.0, 502, doubted=498)
    assert left
    assert round(left.seconds) == 498 * 6
    # And when nothing else is left, the slow pace is no reason to say nothing
    alone = Outlook({"corporation": {"pending": 498}}, NAMES, 0.0, 0)
    left = alone.left({"corporation": {"pending": 497, "completed": 1}}, 10.0, 1, doubted=497)
    assert left
    assert round(left.seconds) == 497 * 6


def test_nobody_can_tell_before_anything_was_sent() -> None:
    counts = {"corporation": {"pending": 1000}}
    assert Outlook(counts, NAMES, 0.0, 0).left(counts, 10.0, 0) is None
