"""Builds the parts of a process from the settings. Each process builds its own, after the fork."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import dramatiq

from esid import host
from esid.clock import Stop
from esid.errors import EsidError, NotPermitted
from esid.esi.budget import Budget, Limits
from esid.esi.sharing import Sharing
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.queue.requests import Requests
from esid.settings import Settings
from esid.store import egress, migrate, notes
from esid.store.connection import STATEMENT_S, Store, sqlite_path


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


def open_publisher(settings: Settings, store: Store, middleware: Sequence[dramatiq.Middleware] = ()) -> Publisher:
    """The queue."""
    broker = open_broker(store, settings.rabbitmq_url, settings.esid_queue_prefix, middleware)
    return Publisher(store, broker, settings.esid_queue_prefix)


def open_requests(settings: Settings, store: Store) -> Requests:
    """What commands ask through."""
    return Requests(store, open_publisher(settings, store), settings.esid_queue_prefix)


def installation(store: Store) -> str:
    """The text that spreads installations over time; any other will do while the database is away."""
    try:
        return notes.installation(store)
    except EsidError:
        return store.where
