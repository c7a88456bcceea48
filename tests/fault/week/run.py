"""The week: what happens each day and when, who has his turn, and what must hold at the end of each day."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.entities import BY_NAME, ENTITIES
from esid.entities.killmail import KILLMAIL
from esid.errors import EsidError
from esid.esi.budget import Budget, Limits
from esid.queue.asking import Asking
from esid.queue.broker import open_broker
from esid.queue.hands import size
from esid.queue.publish import Publisher
from esid.schedule import tasks
from esid.store import audit, cursors, dead_letters, drivers, ledger, messages, notes
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import due, failures, outcomes
from tests.fault.week.databases import Postgresql, Sqlite
from tests.fault.week.parts import PREFIX, Feed, Killed, Scheduler, Worker
from tests.fault.week.troubles import Troubles
from tests.fault.week.wire import EsiWire, FeedSource
from tests.fault.week.world import Changing, Place
from tests.tools.simulation import BEGIN, Time

#: Seconds of a day in which troubles begin and end, in which something changes, and of two cache times with their looks.
TROUBLED_S, LIVELY_S, QUIET_S = 20 * 3600.0, 21 * 3600.0, 2.5 * 3600.0
#: Seconds after which details of characters are known, likewise.
DETAILS_S = 2 * 86_400.0 + QUIET_S
#: Seconds between two turns while something is open.
STEP_S = 5.0
#: Changes of the world, and kills, of one day.
CHANGES, KILLS = 40, 4
#: Functions before and after which whoever calls them may die.
POINTS = (
    (ledger, "take"), (ledger, "book"), (ledger, "finish"), (outcomes, "_complete"), (failures, "count"), (ledger, "queued"),
    (ledger, "claim"), (ledger, "revive"), (ledger, "request"), (due, "_take"), (messages, "turn"), (messages, "put"),
    (cursors, "move"),
)  # fmt: skip
#: Who works, in the order of their turns.
PARTS = ("scheduler", "feed", "worker")
#: Log events that tell of a fault of our own.
OWN_FAULTS = ("work.crashed", "work.unbooked", "work.divided", "feed.refused", "schedule.failed")


class Week:
    """A daemon in trouble.

    Args:
        store: its database, for a superuser whom no trouble meets.
        seed: the same seed gives the same troubles at the same times.
    """

    def __init__(self, store: Store, directory: Path, seed: str, patch: pytest.MonkeyPatch) -> None:
        self.dice = random.Random(seed)
        random.seed(seed)
        self.store, self._directory = store, directory
        self.time = Time(patch)
        patch.setattr(drivers, "BUSY_S", 0.02)
        self.database_ahead_s = 0.0
        for module in (messages, cursors):
            patch.setattr(module, "now_s", lambda _: f"{self.time.now.timestamp() + self.database_ahead_s:.6f}")
        self.database = Sqlite(store) if store.is_sqlite else Postgresql(store)
        self.changing = Changing(self.dice, self.time.now)
        self.wire = EsiWire(self.changing.world, self.time, self._pass, self._point)
        Budget(directory / "budget", Limits()).close()
        notes.set_memo(store, "installation", seed)
        self._hands = memoryview(bytearray(size(1))).cast("q")
        self._parts: dict[str, Worker | Scheduler | Feed] = {}
        self._current = ""
        self._fate: tuple[str, int] | None = None
        self._read = 0
        self._events: list[tuple[dt.datetime, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.troubles = Troubles(self)
        self.kills: Counter[str] = Counter()
        self.audited: list[tuple[dt.datetime, dict[str, int]]] = []
        for module, name in POINTS:
            patch.setattr(module, name, self._deadly(getattr(module, name)))
        patch.setattr(audit, "look", self._noted(audit.look))
        self.diary = _Diary(self.time)
        logging.getLogger("esid").addHandler(self.diary)
        patch.setattr(logging.getLogger("esid"), "level", logging.DEBUG)

    def run(self, days: int, quiet: int = 0) -> None:
        """So many days, and some without trouble: after two of them the tables equal the world as it is."""
        self._ask_for_everybody()
        for day in range(days + quiet):
            begin = BEGIN + dt.timedelta(days=day)
            if day < days:
                self._plan(begin)
            self._go_on(begin + dt.timedelta(days=1))
            self._check(day)

    def close(self) -> None:
        """End all parts."""
        logging.getLogger("esid").removeHandler(self.diary)
        for part in self._parts.values():
            part.close()
        self.database.close()

    def at(self, when: dt.datetime, what: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (when, next(self._numbers), what))

    # -- what happens when

    def _plan(self, begin: dt.datetime) -> None:
        for _ in range(CHANGES):
            self._some_time(begin, LIVELY_S, self._change)
        for _ in range(KILLS):
            self._some_time(begin, LIVELY_S, self._doom)
        self.troubles.plan(begin, TROUBLED_S)

    def _some_time(self, begin: dt.datetime, within_s: float, what: Callable[[], None]) -> None:
        self.at(begin + dt.timedelta(seconds=self.dice.uniform(0, within_s)), what)

    def _change(self) -> None:
        self.changing.change(self.time.now)

    def _doom(self) -> None:
        """Some part dies when it comes to one of its next points."""
        self._fate = self.dice.choice(("worker", "worker", "scheduler", "feed")), self.dice.randrange(40)

    def _point(self) -> None:
        if self._fate is None or self._fate[0] != self._current:
            return
        name, left = self._fate
        self._fate = (name, left - 1) if left else None
        if not left:
            self.kills[name] += 1
            if part := self._parts.get(name):
                part.die()
            raise Killed

    def _deadly(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def deadly(*args: Any, **named: Any) -> Any:
            self._point()
            result = call(*args, **named)
            self._point()
            return result

        return deadly

    def _noted(self, look: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            found = look(*args, **named)
            if found:
                self.audited.append((self.time.now, dict(found)))
            return found

        return noted

    # -- who has his turn

    def _go_on(self, end: dt.datetime) -> None:
        while self.time.now < end:
            self._ask_as_a_person()
            for name in PARTS:
                if name != "feed" or self._is_to_be_read():
                    self._turn(name)
            self._rest(end)

    def _is_to_be_read(self) -> bool:
        """Whether the feed has anything that its reader may not know."""
        before, self._read = self._read, len(self.changing.feed.files)
        return before != self._read or "feed" not in self._parts or self._parts["feed"].next_s() != math.inf

    def _turn(self, name: str) -> None:
        self._current = name
        try:
            if name not in self._parts:
                self._parts[name] = self._begin(name)
            self._parts[name].turn()
        except Killed:
            if part := self._parts.pop(name, None):
                part.bury()
        finally:
            self._current = ""

    def _begin(self, name: str) -> Worker | Scheduler | Feed:
        store = Store(self.database.url, pool_size=4)
        if name == "scheduler":
            return Scheduler(store)
        if name == "feed":
            return Feed(store, FeedSource(self.changing.feed), self._pass)
        return Worker(store, self._directory, self.wire, self._hands, self._pass, self._point)

    def _rest(self, end: dt.datetime) -> None:
        """Until somebody has something to do, or something happens."""
        open_s = STEP_S if self._is_busy() else math.inf
        event_s = (self._events[0][0] - self.time.now).total_seconds() if self._events else math.inf
        waits = [part.next_s() for part in self._parts.values()]
        if len(self._parts) < len(PARTS):
            waits.append(1.0)
        self._pass(min(open_s, event_s, (end - self.time.now).total_seconds(), *waits))

    def _is_busy(self) -> bool:
        if ledger.open_count(self.store, [entity.name for entity in ENTITIES]):
            return True
        try:
            return sum(count for counts in messages.counts(self.store).values() for count in counts) > 0
        except EsidError:
            return True

    def _pass(self, seconds: float) -> None:
        """Let time go by, and happen what happens. The shortest wait is one that its clocks can tell."""
        end = self.time.now + dt.timedelta(seconds=max(seconds, 0.001))
        while self._events and self._events[0][0] <= end:
            when, _, event = heapq.heappop(self._events)
            self.time.go_on(max(0.0, (when - self.time.now).total_seconds()))
            event()
        self.time.go_on(max(0.0, (end - self.time.now).total_seconds()))

    # -- what a person does

    def _requests(self) -> Asking:
        publisher = Publisher(self.store, open_broker(self.store, "", PREFIX), PREFIX)
        return Asking(self.store, publisher, PREFIX)

    def _ask_for_everybody(self) -> None:
        world = self.changing.world
        for name, ids in (
            ("alliance", world.alliances),
            ("corporation", world.corporations),
            ("character", world.characters),
        ):
            list(self._requests().enqueue(BY_NAME[name], [(key, None) for key in ids]))

    def _ask_as_a_person(self) -> None:
        """For killmails that no feed tells of; as long as that fails again and again."""
        try:
            while self.changing.asked:
                list(self._requests().enqueue(KILLMAIL, self.changing.asked[:1]))
                self.changing.asked.pop(0)
        except EsidError:
            return

    # -- what must hold

    def _check(self, day: int) -> None:
        """Everything that must hold at the end of a day."""
        history = f"day {day}: {self.troubles.told()}, kills {dict(self.kills)}"
        assert self.diary.own_faults == [], history
        differences = list(self.changing.differences(self.store, self._since))
        assert differences == [], f"{history}\n{differences}"
        unfair = [letter for letter in dead_letters.find(self.store, Filter()) if not self._is_its_own(letter)]
        assert unfair == [], f"{history}\n{unfair}"
        assert self._is_audited() == [], history
        assert audit.look(self.store, [tasks.kind(entity) for entity in ENTITIES]) == {}, history
        assert {one.status for one in self.wire.log} & {420, 429} == set(), history
        assert self.wire.least_left >= 10, history
        open_jobs = ledger.open_count(self.store, [entity.name for entity in ENTITIES])
        assert open_jobs <= len(self.changing.world.sick_ids), history

    def _since(self, place: Place, is_affiliation: bool) -> dt.datetime:
        """The earliest time that a row may speak of."""
        table, key = place
        is_slow = table == "character" and not is_affiliation
        since = clock.now() - dt.timedelta(seconds=DETAILS_S if is_slow else QUIET_S)
        if key in self.changing.world.deleted_characters:
            return BEGIN
        return min(since, self.troubles.since(key, self.time.now))

    def _is_its_own(self, letter: Any) -> bool:
        if letter.entity_id in self.changing.world.deleted_characters:
            return bool(letter.reason == "not_found")
        return bool(letter.reason == "unavailable" and self.troubles.was_sick(letter.entity_id, self.time.now))

    def _is_audited(self) -> list[tuple[dt.datetime, dict[str, int]]]:
        """What the audit has found though no clock was wrong."""
        return [(at, found) for at, found in self.audited if not self.troubles.was_clock_wrong(at)]


class _Diary(logging.Handler):
    """Everything that was logged, and of that what tells of a fault of our own."""

    def __init__(self, time: Time) -> None:
        super().__init__(logging.DEBUG)
        self._time, self.lines = time, list[str]()
        self.own_faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        words, fields = getattr(record, "esid_words", ""), getattr(record, "esid_fields", {})
        self.lines.append(f"{self._time.now:%d %H:%M:%S} {record.getMessage()} {words} {fields}")
        if record.getMessage() in OWN_FAULTS:
            self.own_faults.append(self.lines[-1])
