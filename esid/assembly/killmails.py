"""Builds what brings killmails from outside of ESI: the feed, the archives, healing. See `core`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any

from esid.assembly.core import data_dir, open_publisher, open_requests
from esid.clock import Stop
from esid.entities.killmail import KILLMAIL
from esid.errors import EsiError, Held, SettingsError, UsageError
from esid.feeds import importing
from esid.feeds.archives import EVEREF, HASHES, ZKILLBOARD, Folder, Online
from esid.feeds.heal import Healed, Healer, Healing
from esid.feeds.http import Source
from esid.feeds.pace import EVEREF_S, ZKILLBOARD_S, Pace
from esid.queue.asking import Asking
from esid.queue.broker import SCHEDULED
from esid.schedule import tasks
from esid.settings import Settings, check_contact
from esid.store.connection import Store
from esid.store.days import each_day

#: Bytes of an archive for each killmail in it, to tell about how many there are (measured on two days).
BYTES_PER_KILLMAIL = {EVEREF: 177, ZKILLBOARD: 2100, HASHES: 56}


def check_sources(settings: Settings, *names: str) -> None:
    """Refuse to ask sources that are off, or other people's servers without a contact.

    Args:
        names: sources of archives; `feeds.archives.SOURCES` for healing.

    Raises:
        SettingsError: with what to set.
    """
    urls = {EVEREF: settings.esid_archive_url, ZKILLBOARD: settings.esid_feed_url, HASHES: settings.esid_feed_url}
    if any(urls[name] == "off" for name in names):
        raise SettingsError(
            "ESID_FEED_URL is off: zKillboard's history, which says what there is, is read from there; "
            "set it for this command, for example ESID_FEED_URL=https://r2z2.zkillboard.com"
        )
    check_contact(settings, *(urls[name] for name in names))


def open_feed_source(settings: Settings, stop: Stop | None = None, url: str = "") -> Source:
    """zKillboard: the host of the feed, or another of its hosts, at the pace that they share."""
    pace = Pace(data_dir(settings) / f"pace-zkillboard-{settings.esid_egress}", ZKILLBOARD_S, stop)
    return _source(settings, url or settings.esid_feed_url, pace)


def _source(settings: Settings, url: str, pace: Pace) -> Source:
    return Source(url, settings.esi_contact, pace, settings.esid_ca_file, settings.proxy(url))


def open_healer(settings: Settings, store: Store, requests: Asking, stop: Stop, **more: Any) -> Healer:
    """Healing, with the queue of ESI's killmails for what no archive has."""

    def ask(wanted: Iterable[tuple[int, str]]) -> int:
        return sum(len(part.queued) for part in requests.enqueue(KILLMAIL, wanted, SCHEDULED))

    archives = more.pop("archives", None) or open_archives(settings, stop)
    return Healer(store, archives, ask, stop, **more)


def open_archives(settings: Settings, stop: Stop | None = None) -> Online:
    """The archives over HTTP."""
    pace = Pace(data_dir(settings) / f"pace-everef-{settings.esid_egress}", EVEREF_S, stop)
    everef = _source(settings, settings.esid_archive_url, pace)
    return Online(everef, open_feed_source(settings, stop), data_dir(settings))


def open_zkillboard(settings: Settings) -> Source:
    """zKillboard's site, for the hash of a pasted link."""
    check_contact(settings, settings.esid_zkillboard_url)
    return open_feed_source(settings, url=settings.esid_zkillboard_url)


def import_parts(settings: Settings, folder: Folder | None) -> importing.Parts:
    """How each process of an import makes its own connections."""
    return importing.Parts(lambda: Store(settings.database, for_import=True), lambda: folder or open_archives(settings))


def days_to_import(source: str, first: dt.date | None, last: dt.date | None, folder: Folder | None) -> list[dt.date]:
    """The days that were meant: from the first to the last, which is the first where none is named; those of them that the
    folder has, or all that it has.

    Raises:
        UsageError: none, or the wrong way round.
    """
    last = last or first
    if first and last and last < first:
        raise UsageError(f"--to {last} is before --from {first}")
    if folder is not None:
        there = folder.days(source)
        days = [day for day in there if (first or day) <= day <= (last or day)]
        if not days:
            has = f"; it has {there[0]} to {there[-1]}" if there else ""
            raise UsageError(f"the folder has no archive of {source} for these days{has}")
        return days
    if first is None or last is None:
        raise UsageError("name the days: --from DAY --to DAY, or --dir PATH with archives in it")
    return list(each_day(first, last))


def expected_killmails(settings: Settings, source: str, days: list[dt.date], folder: Folder | None) -> int | None:
    """About how many killmails these days have; None where nobody can tell."""
    if folder is not None:
        return sum(folder.size(source, day) for day in days) // BYTES_PER_KILLMAIL[source]
    archives = open_archives(settings)
    try:
        totals = archives.totals(EVEREF if source == EVEREF else ZKILLBOARD)
    except (EsiError, Held):
        # It is for the progress bar alone.
        return None
    finally:
        archives.close()
    return sum(totals.get(day, 0) for day in days)


def ask_days(
    settings: Settings, store: Store, days: list[dt.date], folder: Folder | None, on_day: Callable[[Healed], None]
) -> None:
    """Ask ESI for what zKillboard's hashes name and the tables lack."""
    archives = folder or open_archives(settings)
    healer = open_healer(settings, store, open_requests(settings, store), Stop(), archives=archives)
    for day in days:
        on_day(healer.ask_day(day))
    healer.close()


def open_works(settings: Settings, store: Store) -> dict[str, Callable[[], str]]:
    """What each job of the schedule does."""
    requests = open_requests(settings, store)
    healing = Healing(lambda: open_healer(settings, store, requests, Stop()))
    return tasks.works(store, open_publisher(settings, store), requests) | {"heal": healing.run}
