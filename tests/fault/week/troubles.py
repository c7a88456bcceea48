"""What goes wrong once a day: an odd minute, a refusing database, a wrong clock, a sick id, a route that is away."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fault.odd import ODD

if TYPE_CHECKING:
    from tests.fault.week.run import Week

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
#: Seconds that it lasts.
ODD_S = 90.0
#: Parts of ESI that may be away alone.
ROUTES = (
    ("/characters/", {}), ("/corporations/", {}), ("/alliances/", {}), ("/alliances", {"exact": True}), ("/killmails/", {}),
    ("/characters/affiliation", {"exact": True}), ("/universe/names", {"exact": True}),
)  # fmt: skip
#: Seconds by which a clock is wrong.
WRONG_S = (MINUTE_S, DAY_S, 30 * DAY_S, 3650 * DAY_S)
#: Seconds for which answers are trusted at most, with a look and the time to ask all of it.
TRUSTED_S = DAY_S + 2.5 * HOUR_S


@dataclass
class Trouble:
    """One of them, and from when to when it was."""

    kind: str
    words: str
    begin: dt.datetime
    end: dt.datetime | None = None
    key: int = 0

    def was_within(self, seconds: float, now: dt.datetime) -> bool:
        """Whether it was there so many seconds ago or since."""
        return self.begin <= now and (self.end is None or now - self.end <= dt.timedelta(seconds=seconds))


class Troubles:
    """All troubles of a week."""

    def __init__(self, week: Week) -> None:
        self._week, self._dice = week, week.dice
        self._all: list[Trouble] = []
        self._waiting: list[Callable[[], None]] = []
        week.wire.asked = self._asked

    def plan(self, begin: dt.datetime, within_s: float) -> None:
        """One of each kind some time in a day. What lasts for minutes begins with a request, so that it is felt."""
        kinds: tuple[tuple[Callable[[float], None], float, float, bool], ...] = (
            (self._odd, ODD_S, ODD_S, True),
            (self._refuse, 30.0, 15 * MINUTE_S, True),
            (self._clock, 5 * MINUTE_S, 2 * HOUR_S, False),
            (self._sick, 2 * HOUR_S, 8 * HOUR_S, False),
            (self._route, HOUR_S, HOUR_S, False),
        )
        for start, shortest_s, longest_s, is_felt in kinds:
            lasts_s = self._dice.uniform(shortest_s, longest_s)
            at = begin + dt.timedelta(seconds=self._dice.uniform(0, within_s - lasts_s))
            self._week.at(at, lambda start=start, lasts_s=lasts_s, is_felt=is_felt: self._begin(start, lasts_s, is_felt))  # type: ignore[misc]

    def told(self) -> str:
        """What there was, in words."""
        return "; ".join(
            f"{one.kind} {one.words} {one.begin:%d %H:%M:%S} to {one.end or one.begin:%d %H:%M:%S}" for one in self._all
        )

    def since(self, key: int, now: dt.datetime) -> dt.datetime:
        """The earliest time that a row may speak of, in view of troubles that are allowed to last."""
        begins = [now]
        for one in self._all:
            is_sick = one.kind == "sick" and one.key == key and one.was_within(TRUSTED_S, now)
            is_dated = one.kind == "clock" and one.words.startswith("Date of ESI") and one.was_within(TRUSTED_S, now)
            if is_sick or is_dated:
                begins.append(one.begin - dt.timedelta(hours=2.5))
        return min(begins)

    def was_sick(self, key: int, now: dt.datetime) -> bool:
        """Whether an id was sick so lately that it may be given up still."""
        return any(one.key == key and one.was_within(TRUSTED_S, now) for one in self._all if one.kind == "sick")

    def was_clock_wrong(self, at: dt.datetime) -> bool:
        """Whether a clock was wrong then or shortly before."""
        return any(one.was_within(2.5 * HOUR_S, at) for one in self._all if one.kind == "clock")

    # -- how they begin

    def _begin(self, start: Callable[[float], None], lasts_s: float, is_felt: bool) -> None:
        if is_felt:
            self._waiting.append(lambda: start(lasts_s))
        else:
            start(lasts_s)

    def _asked(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in waiting:
            start()

    def _note(self, kind: str, words: str, lasts_s: float, end: Callable[[], object], key: int = 0) -> None:
        """It has begun, and will end."""
        now = self._week.time.now
        trouble = Trouble(kind, words, now, key=key)
        self._all.append(trouble)

        def over() -> None:
            end()
            trouble.end = self._week.time.now

        self._week.at(now + dt.timedelta(seconds=lasts_s), over)

    def _odd(self, lasts_s: float) -> None:
        faults, name = self._week.wire.faults, self._dice.choice(list(ODD))
        fault = faults.add("/", **ODD[name])
        self._note("odd", name, lasts_s, lambda: faults.end(fault))

    def _refuse(self, lasts_s: float) -> None:
        name, (begin, end) = self._week.database.refusal(self._dice)
        begin()
        self._note("database", name, lasts_s, end)

    def _clock(self, lasts_s: float) -> None:
        week, by_s = self._week, self._dice.choice(WRONG_S) * self._dice.choice((1, -1))
        whose = self._dice.choice(("ours", "Date of ESI", "all dates of ESI", "feed", "database"))

        def set_to(ahead_s: float) -> None:
            if whose == "ours":
                week.time.ahead_s = ahead_s
            elif whose == "feed":
                week.changing.feed_ahead_s = ahead_s
            elif whose == "database":
                week.database_ahead_s = ahead_s
            else:
                week.wire.ahead_s, week.wire.is_all_ahead = ahead_s, whose.startswith("all")

        set_to(by_s)
        self._note("clock", f"{whose} {by_s:+.0f} s", lasts_s, lambda: set_to(0.0))

    def _sick(self, lasts_s: float) -> None:
        world = self._week.changing.world
        key = self._dice.choice([*world.corporations, *world.alliances, *(set(world.characters) - world.deleted_characters)])
        world.sick_ids.add(key)
        self._note("sick", str(key), lasts_s, lambda: world.sick_ids.discard(key), key)

    def _route(self, lasts_s: float) -> None:
        faults, (path, how) = self._week.wire.faults, self._dice.choice(ROUTES)
        fault = faults.add(path, status=404, **how)
        self._note("route", path, lasts_s, lambda: faults.end(fault))
