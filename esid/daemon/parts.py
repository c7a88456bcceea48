"""Builds the parts of a process from the settings. Each process builds its own, after the fork."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq

from esid import host, jobs, plan
from esid.clock import Stop
from esid.entities.killmail import KILLMAIL
from esid.errors import EsidError, EsiError, Held, NotPermitted, UsageError
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.sharing import Sharing
from esid.feeds import importing
from esid.feeds.archives import EVEREF, HASHES, ZKILLBOARD, Folder, Online
from esid.feeds.heal import Healed, Healer, Healing
from esid.feeds.http import Source
from esid.feeds.pace import EVEREF_S, ZKILLBOARD_S, Pace
from esid.queue.broker import SCHEDULED, open_broker
from esid.queue.publish import Publisher
from esid.queue.requests import Requests
from esid.settings import Settings, check_contact
from esid.store import egress, migrate, notes
from esid.store.connection import STATEMENT_S, Store, sqlite_path
from esid.store.days import each_day

#: Bytes of an archive for each killmail in it, to tell about how many there are (measured on two days).
BYTES_PER_KILLMAIL = {EVEREF: 177, ZKILLBOARD: 2100, HASHES: 56}


def data_dir(settings: Settings) -> Path:
    """The data directory, made (0700) where it is missing.

    Raises:
        NotPermitted: it cannot be made.
    """
    path = settings.data_dir
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NotPermitted(f"{path} cannot be made: {error.strerror}; set ESID_DATA_DIR to a directory of yours") from None
    return path


def lock_path(settings: Settings) -> Path:
    """Where the instance lock lies: beside the SQLite file, whoever asks; in the data directory for PostgreSQL."""
    if settings.database.startswith("sqlite:"):
        path = sqlite_path(settings.database)
        return path.with_name(path.name + ".lock")
    return data_dir(settings) / "esid.lock"


def open_store(settings: Settings, pool_size: int = 4, statement_s: int = STATEMENT_S) -> Store:
    """The database, lazily."""
    if settings.database.startswith("sqlite:"):
        data_dir(settings)
    return Store(settings.database, pool_size, statement_s)


def ready_store(settings: Settings, pool_size: int = 4) -> Store:
    """The database with the schema of this program; an empty one is set up.

    Raises:
        StoreError: in its kinds; NotPermitted.
    """
    store = open_store(settings, pool_size)
    migrate.set_up(store)
    migrate.check(store)
    notes.use_compatibility_date(store, settings.esi_compatibility_date)
    return store


def open_budget(settings: Settings, stop: Stop | None = None) -> Budget:
    """The budget of this host, or its share of one."""
    limits = Limits(
        max_rps=settings.esi_max_rps,
        max_in_flight=settings.esi_max_in_flight,
        error_reserve=settings.esi_error_reserve,
        bucket_reserve=settings.esi_bucket_reserve,
    )
    path = data_dir(settings) / f"budget-{settings.esid_egress}"
    return Budget(path, limits, stop, is_divided=is_divided(settings))


def is_divided(settings: Settings) -> bool:
    """True where other hosts may work on the same database, and so behind the same budget."""
    return not settings.database.startswith("sqlite:")


def open_sharing(settings: Settings, store: Store, budget: Budget, stop: Stop) -> Sharing | None:
    """The thread that divides the budget with other hosts; None where there can be none."""
    if not is_divided(settings):
        return None
    member = f"{host.NAME}:{data_dir(settings)}"
    return Sharing(budget, partial(egress.exchange, store, settings.esid_egress), member, stop)


def open_client(settings: Settings, budget: Budget) -> Client:
    """The HTTP edge."""
    return Client(
        settings.esi_base_url,
        budget,
        contact=settings.esi_contact,
        compatibility_date=settings.esi_compatibility_date,
        threads=settings.esid_threads,
    )


def open_publisher(settings: Settings, store: Store, middleware: Sequence[dramatiq.Middleware] = ()) -> Publisher:
    """The queue."""
    broker = open_broker(store, settings.rabbitmq_url, settings.esid_queue_prefix, middleware)
    return Publisher(store, broker, settings.esid_queue_prefix)


def open_requests(settings: Settings, store: Store) -> Requests:
    """What commands ask through."""
    return Requests(store, open_publisher(settings, store), settings.esid_queue_prefix)


def open_feed_source(settings: Settings, stop: Stop | None = None, url: str = "") -> Source:
    """zKillboard: the host of the feed, or another of its hosts, at the pace that they share."""
    pace = Pace(data_dir(settings) / f"pace-zkillboard-{settings.esid_egress}", ZKILLBOARD_S, stop)
    return Source(url or settings.esid_feed_url, settings.esi_contact, pace)


def open_healer(settings: Settings, store: Store, requests: Requests, stop: Stop, **more: Any) -> Healer:
    """Healing, with the queue of ESI's killmails for what no archive has."""

    def ask(wanted: Iterable[tuple[int, str]]) -> int:
        return sum(len(part.queued) for part in requests.enqueue(KILLMAIL, wanted, SCHEDULED))

    archives = more.pop("archives", None) or open_archives(settings, stop)
    return Healer(store, archives, ask, stop, **more)


def open_archives(settings: Settings, stop: Stop | None = None) -> Online:
    """The archives over HTTP."""
    pace = Pace(data_dir(settings) / f"pace-everef-{settings.esid_egress}", EVEREF_S, stop)
    everef = Source(settings.esid_archive_url, settings.esi_contact, pace)
    return Online(everef, open_feed_source(settings, stop), data_dir(settings))


def open_zkillboard(settings: Settings) -> Source:
    """zKillboard's site, for the hash of a pasted link."""
    check_contact(settings, settings.esid_zkillboard_url)
    return open_feed_source(settings, url=settings.esid_zkillboard_url)


def import_parts(settings: Settings, folder: Folder | None) -> importing.Parts:
    """How each process of an import makes its own connections."""
    return importing.Parts(lambda: Store(settings.database, watched=False), lambda: folder or open_archives(settings))


def days_to_import(source: str, first: dt.date | None, last: dt.date | None, folder: Folder | None) -> list[dt.date]:
    """The days that were meant: from the first to the last, or all that the folder has.

    Raises:
        UsageError: none, or the wrong way round.
    """
    if folder is not None:
        days = [day for day in folder.days(source) if (first or day) <= day <= (last or day)]
        if not days:
            raise UsageError(f"the folder has no archive of {source} for these days")
        return days
    if first is None:
        raise UsageError("name the days: --from DAY --to DAY, or --dir PATH with archives in it")
    last = last or first
    if last < first:
        raise UsageError(f"--to {last} is before --from {first}")
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
    return jobs.works(store, open_publisher(settings, store), requests) | {"heal": healing.run}


def schedules(settings: Settings, *, with_syncs: bool = True) -> dict[str, str]:
    """Name of a job -> its setting. Without syncs only what mends and cleans is left."""
    texts = {job.name: getattr(settings, job.setting) for job in plan.JOBS if with_syncs or not job.asks_esi}
    return texts if settings.follows_killmails else texts | {"heal": "off"}


def installation(store: Store) -> str:
    """The text that spreads installations over time; any other will do while the database is away."""
    try:
        return notes.installation(store)
    except EsidError:
        return store.where
