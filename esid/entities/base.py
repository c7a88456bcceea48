"""What an entity is: one frozen declaration a page, and the flow that most of them share. No I/O of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from esid import clock
from esid.errors import (
    DAY_S,
    BadBody,
    BadField,
    Doubted,
    EsiError,
    EsiUnavailable,
    HeldAlone,
    Implausible,
    NotFound,
    TooLarge,
    let_go,
)
from esid.esi.budget.breaker import Standing
from esid.esi.routes import Route
from esid.store.model import Done, EntityTable, Job, Row, Seen, Table
from esid.words import counted

if TYPE_CHECKING:
    from esid.esi.answers import Answer
    from esid.esi.client import Client
    from esid.store.sets import Stored

#: The id of a list: ESI has one of each, and its name is the entity's.
LIST_ID = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """An id that could not be fetched, and why."""

    job: Job
    error: EsiError


@dataclass(frozen=True, slots=True)
class Edges:
    """What a flow may touch: ESI, and what is remembered of an entity, whose name each function takes.

    Attributes:
        unbatchable, add_unbatchable: ids that break a batch; the second one also takes for how many seconds.
        disbelieved: how long lists are (`notes.disbelieved`).
        has_lied: its ETags stayed lately although the data changed.
        stored: the version of a set that is stored (`sets.stored`).
        largest: its largest id that was ever answered (`lookup.largest`).
    """

    client: Client
    unbatchable: Callable[[str, Sequence[int]], set[int]]
    add_unbatchable: Callable[[str, Sequence[int], float], None]
    disbelieved: Callable[[str, int, int, int], int | None] = lambda *_: None
    has_lied: Callable[[str], bool] = lambda _: False
    stored: Callable[[str, int], Stored | None] = lambda *_: None
    largest: Callable[[str], int | None] = lambda _: None


Result = Done | Failed


#: Ids of a message that are asked one by one: enough to spare queue and database.
IDS_PER_MESSAGE = 20
#: Ids of a message above which an entity's bulk route, where it has one, is asked first.
BULK_ABOVE = 10


def sync_each(
    entity: Entity, jobs: Sequence[Job], edges: Edges, ask: Callable[[Entity, Job, Edges], Done] | None = None
) -> Iterator[Result]:
    """Ask for each id by itself. Held and Stopping end the iteration; what was yielded before stands.

    Args:
        ask: how; None = by one request.
    """
    alone: HeldAlone | None = None
    doubted = set[str]()
    for job in jobs:
        if job.source in doubted:
            continue
        try:
            yield _asked(entity, job, edges, ask or _ask)
        except Doubted as held:
            # One place in the line is enough for all of its source.
            alone = held
            doubted.add(job.source)
        except HeldAlone as held:
            alone = held
        except EsiError as error:
            let_go(error)
            yield Failed(job, error)
    if alone:
        raise alone


def _asked(entity: Entity, job: Job, edges: Edges, ask: Callable[[Entity, Job, Edges], Done]) -> Done:
    try:
        return ask(entity, job, edges)
    except (NotFound, BadField, BadBody, TooLarge) as error:
        if not entity.is_single or isinstance(error, Implausible):
            raise
        # There is no other answer: what is wrong with it is wrong with the route.
        raise unavailable(error) from error


def unavailable(error: EsiError, again_in_s: float | None = None) -> EsiUnavailable:
    """What is wrong with an answer for which there is no other."""
    made = EsiUnavailable(str(error), status=error.status, sample=error.sample)
    made.path, made.at, made.again_in_s = error.path, error.at, again_in_s
    return made


def asked_for(entity: Entity, job: Job, edges: Edges) -> dict[str, Any]:
    """What `Client.get` is told of a job, but for `read`."""
    is_whole = job.etag is None or wants_whole(entity.route) or edges.has_lied(entity.name)
    return {
        "id": job.id,
        "argument": job.argument,
        "etag": None if is_whole else job.etag,
        "standing": Standing.KNOWN if entity.is_single else standing(job),
        "source": "" if entity.is_single else job.source,
    }


def _ask(entity: Entity, job: Job, edges: Edges) -> Done:
    def read(answer: Answer) -> Done:
        if answer.is_new:
            return entity.parse(job, answer)
        # It is about the answer whose ETag was sent.
        column = getattr(entity.own, entity.filled) if entity.own else None
        return replace(done(job, answer), etag=job.etag, is_confirmed=True, stands=column)

    result: Done = edges.client.get(entity.route, **asked_for(entity, job, edges), read=read)
    # Of lists of which there is one for each id, nobody remembers how long each was.
    if entity.most is not None and (entity.is_single or len(result.seen) > entity.most):
        check_length(entity, job, len(result.seen), edges)
    return result


def check_length(entity: Entity, job: Job, count: int, edges: Edges) -> None:
    """Each id of a list becomes a job: keep out a list that is far longer than what was known, until it says so again.
    Raises Implausible."""
    if not count:
        return
    known = edges.disbelieved(entity.name, job.id, count, entity.most or 0)
    if known is not None:
        error = Implausible(entity.name, "(body)", f"{counted(count, 'id')}, where {counted(known, 'is', 'are')} plausible")
        error.path, error.at = entity.route.path, clock.monotonic()
        raise error


def standing(job: Job) -> Standing:
    """What the breaker may conclude from a failure of this job."""
    if job.has_failed:
        return Standing.SICK
    return Standing.KNOWN if job.is_known or job.expires_at is not None else Standing.NEW


def wants_whole(route: Route) -> bool:
    """Now and then an answer is asked for without its ETag, since one may stay although the data change: each tenth time, or
    once a day, whichever is later. By chance, so that it costs evenly."""
    return route.is_daily or random.random() < min(0.1, route.cache_s / DAY_S)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Bulk:
    """What its bulk routes take and give.

    Attributes:
        batch: ids of a message when many are known at once.
        good_s: seconds that an answer is good for.
    """

    batch: int
    good_s: float


@dataclass(frozen=True)
class Entity:
    """One kind of thing that ESI answers about.

    Attributes:
        name: the entity's name in the ledger, on the command line and in log lines.
        lane: whose queue its messages take, see `esid.catalogue`; a list goes with what it lists.
        route: where one id is asked.
        parse: what a new answer means.
        tables: the tables it fills; () for a list of ids.
        argument: the column of its own table that holds what the route needs beside the id; "" = nothing.
        bulk: its bulk routes; None = there are none.
        filled: the column of its own table that has a value in each row that its own route has filled.
        most: of a list of ids, how many are believed at the first look; None = it is no list.
        sync: the flow, where it is not "each id by itself".
    """

    name: str
    lane: str
    route: Route
    parse: Callable[[Job, Answer], Done]
    tables: tuple[type[Table], ...] = ()
    argument: str = ""
    bulk: Bulk | None = None
    filled: str = "id"
    most: int | None = None
    sync: Callable[[Entity, Sequence[Job], Edges], Iterator[Result]] = sync_each

    @property
    def is_single(self) -> bool:
        """True of a route that is there once: a list of ids, a set."""
        return "{id}" not in self.route.path

    @property
    def own(self) -> type[EntityTable] | None:
        """The table with one row for each of its ids; None of a list, and of a set."""
        first = self.tables[0] if self.tables else None
        return first if not self.is_single and first and issubclass(first, EntityTable) else None

    @property
    def first_id(self) -> int:
        """The smallest id that it has."""
        return getattr(self.own.id, "first", 1) if self.own else 1


def done(job: Job, answer: Answer, rows: Sequence[Row] = (), seen: Sequence[Seen] = (), unknown: Sequence[str] = ()) -> Done:
    """The outcome of an answer that expires as its headers say."""
    return Done(
        id=job.id,
        rows=tuple(rows),
        seen=tuple(seen),
        etag=answer.etag,
        checked_at=answer.checked_at,
        expires_at=answer.expires_at,
        unknown=tuple(unknown),
    )


def is_due(job: Job) -> bool:
    """True when the job's own route is to be asked: never asked, or its answer has expired and the schedule is no more
    patient than that with what has slept."""
    now = clock.now()
    return job.expires_at is None or (job.expires_at <= now and (job.next_at is None or job.next_at <= now))


def check_same(entity: str, field: str, value: int, asked: int) -> None:
    """Refuse an answer about another id. Raises BadField."""
    if value != asked:
        raise BadField(f"{entity} {asked}", field, value)
