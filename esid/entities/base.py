"""What an entity is: one frozen declaration a page, and the flow that most of them share. No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from esid import clock
from esid.errors import BadField, EsiError
from esid.esi.decode import id_list
from esid.esi.routes import Route
from esid.store.model import Done, Job, Row, Seen, Table

if TYPE_CHECKING:
    from esid.esi.client import Answer, Client

#: The id of a list: ESI has one of each, and its name is the entity's.
LIST_ID = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """An id that could not be fetched, and why."""

    job: Job
    error: EsiError


@dataclass(frozen=True, slots=True)
class Edges:
    """What a flow may touch: ESI, and the memory of ids that break a batch (both functions take entity and ids)."""

    client: Client
    unbatchable: Callable[[str, Sequence[int]], set[int]]
    add_unbatchable: Callable[[str, Sequence[int]], None]


Result = Done | Failed


#: Ids of a message that are asked one by one: enough to spare queue and database.
IDS_PER_MESSAGE = 20
#: Ids of a message above which an entity's bulk route, where it has one, is asked first.
BULK_ABOVE = 10


def sync_each(entity: Entity, jobs: Sequence[Job], edges: Edges) -> Iterator[Result]:
    """Ask for each id by itself. Held and Stopping end the iteration; what was yielded before stands."""
    for job in jobs:
        try:
            answer = edges.client.get(entity.route, id=job.id, argument=job.argument, etag=job.etag)
            yield entity.parse(job, answer) if answer.is_new else done(job, answer)
        except EsiError as error:
            yield Failed(job, error)


@dataclass(frozen=True)
class Entity:
    """One kind of thing that ESI answers about.

    Attributes:
        name: the entity's name in the ledger, on the command line and in log lines.
        queue: whose queue its messages take: its own name, or that of the entity it belongs to.
        route: where one id is asked.
        parse: what a new answer means.
        tables: the tables it fills, its own first; () for a list of ids.
        batch: ids of a message when many are known at once; None = no bulk route.
        bulk_s: seconds that the answer of the bulk routes is good for; None = no bulk route.
        sync: the flow, where it is not "each id by itself".
    """

    name: str
    queue: str
    route: Route
    parse: Callable[[Job, Answer], Done]
    tables: tuple[type[Table], ...] = ()
    batch: int | None = None
    bulk_s: float | None = None
    sync: Callable[[Entity, Sequence[Job], Edges], Iterator[Result]] = sync_each


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


def parse_ids(seen: Callable[[int | None], list[Seen]]) -> Callable[[Job, Answer], Done]:
    """A parser for routes that answer with a list of ids."""

    def parse(job: Job, answer: Answer) -> Done:
        found = [one for key in id_list(answer.body, job.entity) for one in seen(key)]
        return replace(done(job, answer, seen=found), changed=True)

    return parse


def is_due(job: Job) -> bool:
    """True when the job's own route may be asked: never asked, or its answer has expired."""
    return job.expires_at is None or job.expires_at <= clock.now()


def check_same(entity: str, field: str, value: int, asked: int) -> None:
    """Refuse an answer about another id. Raises BadField."""
    if value != asked:
        raise BadField(f"{entity} {asked}", field, value)
