"""Healing: each day's total at zKillboard against the tables, and what is missing fetched.

First from the archives, where bodies are free (EVE Ref, then zKillboard's raw file); what neither has is asked of ESI by
id and hash, as jobs within the killmail bucket. A killmail without all of its attackers counts as missing; what differs
from its archive is written anew. Hashes that are not hexadecimal are never asked of ESI.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from esid import clock, log
from esid.clock import Stop
from esid.errors import EsiError, Held, SourceUnavailable, Stopping
from esid.feeds import readers
from esid.feeds.archives import SOURCES
from esid.feeds.day import DayImport, Opener, Report
from esid.feeds.hashes import is_askable
from esid.store import days, ledger, migrate
from esid.store.connection import Store
from esid.words import counted

#: Most killmails that one run asks of ESI: half of what its bucket gives a day (2 tokens of 3600 in 15 min each), so
#: that what else needs the bucket is not behind a queue of months. The next run asks for the next.
MOST_ASKED = 86_400
#: Seconds that a source's 429 is waited for in the middle of a run before it is given up for today.
PATIENCE_S = 120.0
_log = log.get("heal")


class Archives(Opener, Protocol):
    """What healing reads."""

    def totals(self) -> dict[dt.date, int]:
        """How many killmails zKillboard knows of each day."""

    def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class Healed:
    """What became of one day.

    Attributes:
        have: killmails in the tables before.
        fetched: written from archives, new or anew.
        asked: asked of ESI; they arrive when the daemon has asked.
        missing: neither here now nor asked for.
        errors: what could not be had, in words.
    """

    day: dt.date
    expected: int
    have: int
    fetched: int = 0
    asked: int = 0
    missing: int = 0
    errors: tuple[str, ...] = ()

    @property
    def error(self) -> str | None:
        """The first of the errors."""
        return self.errors[0] if self.errors else None

    @property
    def is_whole(self) -> bool:
        """True where every killmail of the day is here or has been asked for."""
        return not self.error and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("expected", "have", "fetched", "asked", "missing")
        return {"day": self.day.isoformat(), **{name: getattr(self, name) for name in names}, "errors": list(self.errors)}


class Healer:
    """Compares days and fetches what is missing.

    Args:
        ask: puts (id, hash) pairs into the queue of ESI's killmails.
        progress: told how many killmails each batch of an archive had.
    """

    def __init__(
        self,
        store: Store,
        archives: Archives,
        ask: Callable[[Iterable[tuple[int, str]]], int],
        stop: Stop,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store, self._archives, self._ask, self._stop = store, archives, ask, stop
        self._import = DayImport(store, archives, stop, progress)
        self._left_to_ask = MOST_ASKED

    def run(self, since: dt.date | None, on_day: Callable[[Healed], None] = lambda _: None) -> list[Healed]:
        """Heal every day since then (by default the last 14) that lacks something; newest first.

        Raises:
            SourceUnavailable: the totals cannot be had; nothing was done.
            StoreError: what was committed stands.
            Stopping: the process stops.
        """
        first = since or clock.now().date() - dt.timedelta(days=days.LATEST_DAYS)
        totals = {day: total for day, total in self._totals().items() if day >= first}
        days.expect(self._store, totals)
        healed = []
        for day in sorted(totals, reverse=True):
            if self._stop.is_set():
                raise Stopping("stopping")
            if found := self._day(day, totals[day]):
                healed.append(found)
                on_day(found)
        return healed

    def ask_day(self, day: dt.date) -> Healed:
        """Ask ESI for what zKillboard's hashes name and the tables lack, without a look at archives.

        Raises:
            StoreError: in its kinds.
        """
        errors: list[str] = []
        have = self._have(day)
        wanted = self._hashes(day, errors)
        missing = _missing(wanted or {}, have)
        asked = self._ask_esi(day, missing, errors)
        return Healed(day, len(wanted or {}), len(have), 0, asked, len(missing) - asked, tuple(errors))

    def close(self) -> None:
        """Close the connections to the archives."""
        self._archives.close()

    def _day(self, day: dt.date, expected: int) -> Healed | None:
        """One day; None where nothing was to be done."""
        have = self._have(day)
        if self._is_settled(day, expected, len(have)):
            return None
        errors: list[str] = []
        wanted = self._hashes(day, errors)
        before, fetched = len(have), 0
        missing = _missing(wanted, have) if wanted is not None else None
        for source in SOURCES:
            if missing == {} or (missing is None and len(have) >= expected):
                break
            report = self._import.run(source, day, again=True)
            fetched += report.new + report.repaired
            errors += _words(report)
            have = self._have(day)
            missing = _missing(wanted, have) if wanted is not None else None
        asked = self._ask_esi(day, missing or {}, errors)
        left = len(missing) - asked if missing is not None else max(0, expected - len(have))
        # Without the hashes nobody can tell whether something is missing: they are asked for again at the next run.
        days.settle(self._store, day, len(have), left + asked if missing is not None else None)
        if missing == {} and not fetched and not asked:
            return None
        return Healed(day, expected, before, fetched, asked, left, tuple(errors))

    def _have(self, day: dt.date) -> dict[int, str]:
        """Id -> hash of what is here. Raises SchemaMismatch where a newer program has migrated the database meanwhile."""
        migrate.check(self._store)
        return days.whole_ids(self._store, day)

    def _is_settled(self, day: dt.date, expected: int, have: int) -> bool:
        """Nothing was missing when the ids were compared, and no number has moved since.

        Equal numbers alone prove nothing: a killmail that zKillboard lacks makes up for one that is lost.
        """
        told = days.compared(self._store, [day])[day]
        return told.missing == 0 and told.have == have and told.expected == expected

    def _totals(self) -> dict[dt.date, int]:
        """How many killmails zKillboard knows of each day."""
        try:
            return dict(self._patiently(self._archives.totals))
        except (EsiError, Held) as error:
            raise SourceUnavailable(f"the totals of killmails by day cannot be had: {error}; try again later") from None

    def _hashes(self, day: dt.date, errors: list[str]) -> dict[int, str] | None:
        """zKillboard's ids and hashes of a day; None where they cannot be had."""
        try:
            return readers.hashes_of(self._patiently(lambda: self._archives.hashes(day)))
        except (EsiError, Held) as error:
            errors.append(str(error))
            return None

    def _ask_esi(self, day: dt.date, missing: Mapping[int, str], errors: list[str]) -> int:
        """Put what no archive has into ESI's queue, as far as this run may."""
        askable = {key: hash_ for key, hash_ in sorted(missing.items()) if is_askable(hash_)}
        if len(askable) < len(missing):
            odd = sorted(set(missing) - set(askable))
            errors.append(f"no archive has {counted(len(odd), 'killmail')} without a hash that ESI knows, like {odd[0]}")
        wanted = list(askable.items())[: self._left_to_ask]
        if len(wanted) < len(askable):
            errors.append(
                f"{counted(len(askable) - len(wanted), 'is', 'are')} left to the next run: ESI's bucket holds no more a day"
            )
        if not wanted:
            return 0
        self._left_to_ask -= len(wanted)
        ledger.reopen(self._store, "killmail", [key for key, _ in wanted])
        self._ask(wanted)
        log.event(_log, "heal.asked", "no archive has them; ESI is asked", day=day.isoformat(), killmails=len(wanted))
        return len(wanted)

    def _patiently(self, get: Callable[[], Any]) -> Any:
        """Wait once for a source that asks for a little time."""
        try:
            return get()
        except Held as held:
            if held.wait_s > PATIENCE_S or self._stop.wait(held.wait_s):
                raise
            return get()


class Healing:
    """The daily job of the schedule.

    Args:
        healer: makes one, with the connections that it needs; closed at the end of each run.
    """

    def __init__(self, healer: Callable[[], Healer]) -> None:
        self._healer = healer

    def run(self) -> str:
        """Heal; what was healed, in words. Raises SourceUnavailable where the totals cannot be had."""
        healer = self._healer()
        try:
            healed = healer.run(None)
        finally:
            healer.close()
        fetched, asked = sum(one.fetched for one in healed), sum(one.asked for one in healed)
        words = f"{counted(len(healed), 'day')} lacked killmails: {fetched:,} fetched from archives, {asked:,} asked of ESI"
        words = words if healed else "no day lacks a killmail"
        log.event(_log, "heal.done", words, days=len(healed))
        for one in healed:
            for error in one.errors:
                log.event(_log, "heal.incomplete", error, level=logging.WARNING, day=one.day.isoformat())
        return words


def _missing(wanted: Mapping[int, str], have: Mapping[int, str]) -> dict[int, str]:
    """What zKillboard has and the tables have not, or with words in the place of its hash.

    Another hash that ESI can be asked with stands: nobody knows which of the two is wrong, and the killmail is whole.
    """
    return {key: hash_ for key, hash_ in wanted.items() if _is_missing(hash_, have.get(key))}


def _is_missing(theirs: str, ours: str | None) -> bool:
    return ours is None or (is_askable(theirs) and not is_askable(ours))


def _words(report: Report) -> list[str]:
    words = [f"{report.source}: {report.error}"] if report.error else []
    if report.refused:
        refused = counted(report.refused, "member is no killmail", "members are no killmails")
        words.append(f"{report.source}: {refused}, like {report.named[0]}")
    return words
