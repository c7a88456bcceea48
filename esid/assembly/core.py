"""Builds the parts of a process from the settings. Each process builds its own, after the fork."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import dramatiq

from esid import clock, host
from esid.assembly import lock
from esid.clock import Stop
from esid.entities import ROUTES
from esid.errors import DatabaseLost, EsidError, NoDatabase, NotPermitted, SettingsError
from esid.esi.budget import Budget, Limits
from esid.esi.budget.exchange import Sharing
from esid.queue.asking import Asking
from esid.queue.broker import open_broker
from esid.queue.dispatch import publish_anew
from esid.queue.publish import Publisher
from esid.settings import Settings
from esid.store import egress, grants, group, messages, migrate, notes
from esid.store.connection import STATEMENT_S, Store
from esid.store.drivers import sqlite_path

#: Seconds within which a daemon that begins has made its SQLite file, and between two looks for it.
_BEGIN_S, _LOOK_S = 5.0, 0.1
#: The memo that says where the queue is.
_QUEUE_PLACE = "queue_place"


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
    return settings.data_dir / "esid.lock"


def check_disks(settings: Settings) -> None:
    """Refuse a place for locks and for what processes share in memory that keeps neither.

    Raises:
        SettingsError: it is a network file system.
    """
    places = [(data_dir(settings), "ESID_DATA_DIR", "also with PostgreSQL, for the budget's file and the lock")]
    if settings.database.startswith("sqlite:"):
        places.append((sqlite_path(settings.database).parent, "DATABASE_URL", "or use PostgreSQL"))
    for path, setting, also in places:
        if kind := host.network_file_system(path):
            raise SettingsError(
                f"{path} lies on {kind}, a network file system, on which locks and shared memory do not hold; "
                f"set {setting} to a directory on a local disk ({also})"
            )


def open_store(settings: Settings, pool_size: int = 4, statement_s: int = STATEMENT_S, *, is_there: bool = True) -> Store:
    """The database, lazily.

    Args:
        is_there: it was made before; else it may be made.
    """
    if settings.database.startswith("sqlite:"):
        data_dir(settings)
    return Store(settings.database, pool_size, statement_s, is_there=is_there)


def ready_store(settings: Settings, pool_size: int = 4) -> Store:
    """The database for a command, with the schema of this program. A command that only looks makes nothing.

    Raises:
        NoDatabase: there is none.
        StoreError: in its kinds; NotPermitted.
    """
    wait_for_file(settings)
    if settings.database.startswith("sqlite:") and not _is_there(sqlite_path(settings.database)):
        raise NoDatabase(_nothing(settings, f"there is no database at {sqlite_path(settings.database)}"))
    store = open_store(settings, pool_size)
    if not migrate.current(store):
        raise NoDatabase(_nothing(settings, f"the database {store.where} holds no tables of esid"))
    migrate.check(store)
    return store


def _is_there(path: Path, otherwise: str = "name another database") -> bool:
    """Raises NotPermitted where nobody lets us look."""
    try:
        return path.exists()
    except OSError as error:
        words = f"{path} cannot be looked at: {error.strerror}; run as the user whose it is, or {otherwise}"
        raise NotPermitted(words) from None


def _nothing(settings: Settings, words: str) -> str:
    """What is not there, with where the settings came from: most often they are those of another shell."""
    read = f"settings: {settings.env_file or 'no file'}, environment, defaults"
    return f"{words} ({read}); `esid run` sets one up; a daemon with other settings: --env-file PATH, or set what it has set"


def wait_for_file(settings: Settings) -> None:
    """Give a daemon that has just begun the time to make its SQLite file: nobody sets up another one beside it.

    Raises:
        DatabaseLost: a daemon runs, and its file is gone.
    """
    if not settings.database.startswith("sqlite:"):
        return
    path, ends_at = sqlite_path(settings.database), clock.monotonic() + _BEGIN_S
    if _is_there(path) or (runs := lock.holder(lock_path(settings))) is None:
        return
    while not _is_there(path):
        if clock.monotonic() >= ends_at:
            raise DatabaseLost(
                f"{path} is not there, and its daemon runs ({runs}): the file was deleted or moved; "
                "stop the daemon, and put the file back with its -wal file, or restore a backup"
            )
        clock.sleep(_LOOK_S)


def set_up_store(settings: Settings, pool_size: int = 4) -> Store:
    """The database with the schema of this program, for a daemon that holds the instance lock, and for an import; an empty
    one is set up.

    Raises:
        StoreError: in its kinds; NotPermitted.
    """
    store = open_store(settings, pool_size, is_there=False)
    migrate.set_up(store)
    if store.is_sqlite and settings.esid_data_mode == "group":
        group.open_to_group(sqlite_path(settings.database))
    migrate.check(store)
    grants.check_ours(store)
    notes.use_compatibility_date(store, settings.esi_compatibility_date)
    return store


def put_away(settings: Settings) -> bool:
    """Leave all rows in the SQLite file itself: who copies it alone then has them.

    Returns:
        False where somebody else reads the file just now, and the newest rows stand beside it.

    Raises:
        StoreError: in its kinds.
    """
    store = Store(settings.database, is_there=True)
    try:
        return store.checkpoint()
    finally:
        store.close()


def open_budget(settings: Settings, stop: Stop | None = None, *, is_known: bool = False) -> Budget:
    """The budget of this host, or its share of one.

    Args:
        is_known: its file was there when the daemon began.
    """
    data_dir(settings)
    return Budget(
        _budget_path(settings),
        _limits(settings),
        stop,
        routes=ROUTES,
        is_divided=is_divided(settings),
        is_known=is_known,
    )


@contextmanager
def shown_budget(settings: Settings) -> Iterator[Budget]:
    """The same for a command that only looks, and makes nothing: without a file here, an unused one that goes again."""
    with ExitStack() as exits:
        path = _budget_path(settings)
        if not _is_there(path, "set ESID_DATA_DIR"):
            try:
                made = exits.enter_context(TemporaryDirectory(prefix="esid-", ignore_cleanup_errors=True))
            except OSError as error:
                cure = host.cure(error, "set TMPDIR")
                raise NotPermitted(f"no temporary directory can be made: {error.strerror}; {cure}") from None
            path = Path(made) / path.name
        budget = Budget(path, _limits(settings), is_divided=is_divided(settings))
        exits.callback(budget.close)
        yield budget


def _budget_path(settings: Settings) -> Path:
    return settings.data_dir / f"budget-{settings.esid_egress}"


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_rps=settings.esi_max_rps,
        max_in_flight=settings.esi_max_in_flight,
        error_reserve=settings.esi_error_reserve,
        bucket_reserve=settings.esi_bucket_reserve,
    )


def is_divided(settings: Settings) -> bool:
    """True where other hosts may work on the same database, and so behind the same budget."""
    return not settings.database.startswith("sqlite:")


def open_sharing(settings: Settings, store: Store, budget: Budget, stop: Stop) -> Sharing | None:
    """The thread that divides the budget with other hosts; None where there can be none."""
    if not is_divided(settings):
        return None
    member = f"{host.NAME}:{data_dir(settings)}"
    return Sharing(budget, partial(egress.exchange, store, settings.esid_egress), member, stop)


def queue_place(settings: Settings) -> str:
    """Where messages go and come from, in words: who means another place has nothing to do with ours."""
    where = re.sub(r"//[^/]*@", "//", settings.rabbitmq_url) or "the database"
    return f"{where}, prefix {settings.esid_queue_prefix}"


def use_queue(settings: Settings, store: Store, publisher: Publisher) -> int:
    """Where the queue is in another place than at the last start, what waits in the old one is published anew.

    Nobody consumes the old one any more. Returns the jobs that it was about.
    """
    place, before = queue_place(settings), notes.memo(store, _QUEUE_PLACE)
    if place == before:
        return 0
    # At the first start of this release nobody has noted where it was; messages in the database tell.
    is_moved = before is not None or bool(set(messages.counts(store)) - set(publisher.broker.stored_here))
    count = publish_anew(store, publisher) if is_moved else 0
    notes.set_memo(store, _QUEUE_PLACE, place)
    return count


def open_publisher(settings: Settings, store: Store, middleware: Sequence[dramatiq.Middleware] = ()) -> Publisher:
    """The queue."""
    broker = open_broker(store, settings.rabbitmq_url, settings.esid_queue_prefix, middleware)
    return Publisher(store, broker, settings.esid_queue_prefix)


def open_requests(settings: Settings, store: Store) -> Asking:
    """What commands ask through."""
    return Asking(store, open_publisher(settings, store), settings.esid_queue_prefix)


def installation(store: Store) -> str:
    """The text that spreads installations over time; any other will do while the database is away."""
    try:
        return notes.installation(store)
    except EsidError:
        return store.where
