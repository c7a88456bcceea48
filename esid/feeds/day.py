"""Brings the archive of one day into the tables, in batches, each a transaction that says how far the archive was read.

Twice is harmless: what stands in the tables as it stands in the archive is left alone, and what differs is written
anew. Memory holds one batch, whatever the file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from esid import clock
from esid.clock import Stop
from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.entities.killmail import SHAPES
from esid.entities.killmail_body import KILLMAIL_COLUMNS, Body
from esid.errors import DamagedArchive, EsiError, Held, NotFound, Stopping
from esid.feeds import readers
from esid.feeds.archives import EVEREF, Archive
from esid.feeds.hashes import is_askable
from esid.feeds.readers import BadMember
from esid.queue.work import GATHERING
from esid.store import days, notes, wholes
from esid.store.connection import Store
from esid.store.days import Reading
from esid.store.model import Seen
from esid.store.wholes import Layout, Whole

LAYOUT = Layout("killmail", SHAPES, own=1, argument=KILLMAIL_COLUMNS.index("hash"), is_lasting=is_askable)
#: Killmails and rows of a batch: on SQLite, which has one writer, few enough that it is held for about a tenth of a second.
SQLITE_BATCH, POSTGRESQL_BATCH, LARGEST_BATCH_ROWS = 250, 1000, 40_000
#: Part of the time that a batch held SQLite's writer for which it is then left to others.
REST = 0.25
#: Ids that are remembered as known, so that the ledger is not asked about the same people again and again.
MOST_KNOWN = 250_000
#: Refused members that a report names; the others are counted.
NAMED = 20
#: Refused members after which a day is given up: the archive is none of killmails.
MOST_REFUSED = 10_000


#: Killmails, refused members, whether it is the last, and what ended the archive too early.
_Batch = tuple[list[Body], list[BadMember], bool, DamagedArchive | None]


class Opener(Protocol):
    """Opens the archive of a day; see `archives`."""

    def open(self, source: str, day: dt.date) -> AbstractContextManager[Archive]:
        """The archive, as a context."""

    def hashes(self, day: dt.date) -> bytes:
        """zKillboard's ids and hashes of the day."""


@dataclass
class Report:
    """What became of one day.

    Attributes:
        killmails: read from the archive, this time; `new` and `repaired` of them were written.
        refused: members that are no killmails; `named` says of the first which and why.
        skipped: the archive had been read to its end before.
        error: why it was not read to its end; None = it was.
        absent: nobody has an archive of the day, and `error` says where it was looked for.
    """

    day: dt.date
    source: str
    killmails: int = 0
    new: int = 0
    repaired: int = 0
    refused: int = 0
    named: list[str] = field(default_factory=list)
    skipped: bool = False
    error: str | None = None
    absent: bool = False

    @property
    def is_whole(self) -> bool:
        """True where every member of the archive is in the tables."""
        return not self.error and not self.refused

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self.__dict__, "day": self.day.isoformat()}


class DayImport:
    """Imports days, one after the other, in one process.

    Args:
        progress: told how many killmails each batch had.
    """

    def __init__(self, store: Store, archives: Opener, stop: Stop, progress: Callable[[int], None] = lambda _: None) -> None:
        self._store, self._archives, self._stop, self._progress = store, archives, stop, progress
        self._unknown = notes.UnknownFields()
        self._known: tuple[set[Any], set[Any], set[Any]] = (set(), set(), set())
        self._batch_size = SQLITE_BATCH if store.is_sqlite else POSTGRESQL_BATCH

    def run(self, source: str, day: dt.date, *, again: bool = False) -> Report:
        """Import one day.

        Args:
            again: read the archive although it was read to its end before.

        Raises:
            StoreError: in its kinds; what was committed stands.
            Stopping: the process stops; the next run goes on from the last batch.
        """
        report = Report(day, source)
        try:
            hashes = {} if source == EVEREF else readers.hashes_of(self._archives.hashes(day))
            with self._archives.open(source, day) as archive:
                self._read(archive, hashes, report, again)
        except DamagedArchive as error:
            report.error = f"{report.error or 'the archive'} is damaged: {error}"
        except NotFound as error:
            report.absent, report.error = True, str(error)
        except (EsiError, Held) as error:
            report.error = str(error)
        finally:
            self._unknown.flush(self._store, now=True)
        return report

    def _read(self, archive: Archive, hashes: dict[int, str], report: Report, again: bool) -> None:
        how_far = days.reading(self._store, report.source, report.day)
        if how_far is None or how_far.fingerprint != archive.fingerprint or (how_far.finished and again):
            how_far = Reading(archive.fingerprint)
        if how_far.finished:
            if days.count(self._store, report.day) >= how_far.killmails:
                report.skipped = True
                return
            # Somebody has taken rows away since.
            how_far = Reading(archive.fingerprint)
        report.error = archive.name
        _check_refused(how_far)
        found = (
            readers.everef(archive.file, how_far.members)
            if report.source == EVEREF
            else readers.zkillboard(archive.file, hashes, how_far.members)
        )
        for batch, refused, is_last, damage in self._batches(found):
            begun_at = how_far.members
            how_far = replace(
                how_far,
                members=how_far.members + len(batch) + len(refused),
                killmails=how_far.killmails + len(batch),
                refused=how_far.refused + len(refused),
                finished=is_last and damage is None,
            )
            self._write(batch, how_far, begun_at, report)
            report.refused += len(refused)
            report.named += [f"{one.name}: {one.why}" for one in refused[: NAMED - len(report.named)]]
            if damage:
                raise damage
            _check_refused(how_far)
        report.error = None

    def _batches(self, found: Iterator[Body | BadMember]) -> Iterator[_Batch]:
        """What was good before the damage is never held back."""
        batch: list[Body] = []
        refused: list[BadMember] = []
        rows = 0
        try:
            for one in found:
                if isinstance(one, BadMember):
                    refused.append(one)
                else:
                    batch.append(one)
                    rows += 1 + len(one.attackers) + len(one.items)
                if len(batch) + len(refused) >= self._batch_size or rows >= LARGEST_BATCH_ROWS:
                    yield batch, refused, False, None
                    batch, refused, rows = [], [], 0
        except DamagedArchive as damage:
            yield batch, refused, True, damage
            return
        yield batch, refused, True, None

    def _write(self, bodies: list[Body], how_far: Reading, begun_at: int, report: Report) -> None:
        if self._stop.is_set():
            raise Stopping("stopping")
        started = clock.monotonic()
        batch = {one.id: Whole(one.id, one.killmail[1], (one.attackers, [one.killmail], one.items)) for one in bodies}
        people = _people(bodies)
        seen = _seen([found - known for found, known in zip(people, self._known, strict=True)])
        written = wholes.write(
            self._store,
            LAYOUT,
            list(batch.values()),
            seen,
            GATHERING,
            lambda: days.note_reading(self._store, report.source, report.day, how_far, begun_at),
        )
        self._remember(people)
        for one in bodies:
            if one.unknown:
                self._unknown.add("killmail", one.unknown)
        report.killmails += len(bodies)
        report.new += len(written.new)
        report.repaired += len(written.repaired)
        self._progress(len(bodies))
        if self._store.is_sqlite:
            self._stop.wait((clock.monotonic() - started) * REST)

    def _remember(self, people: list[set[Any]]) -> None:
        """What was committed is known from now on."""
        if sum(map(len, self._known)) > MOST_KNOWN:
            self._known = (set(), set(), set())
        for known, found in zip(self._known, people, strict=True):
            known |= found


def _check_refused(how_far: Reading) -> None:
    if how_far.refused >= MOST_REFUSED and not how_far.finished:
        raise DamagedArchive(f"{how_far.refused:,} of its members are no killmails; the rest of the day is given up")


def _people(bodies: list[Body]) -> list[set[Any]]:
    """Characters, corporations and alliances on these killmails; None is among them where somebody has none."""
    return list(map(set, zip(*chain.from_iterable(body.people() for body in bodies), strict=True))) or [set(), set(), set()]


def _seen(people: list[set[Any]]) -> list[Seen]:
    makers = (seen_character, seen_corporation, seen_alliance)
    return [seen for maker, ids in zip(makers, people, strict=True) for key in ids for seen in maker(key)]
