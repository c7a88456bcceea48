"""The actors, one for each entity, over one unit of work. The only place where the ESI edge and the DB edge meet.

Take, ask (the budget is in the client), decode, book what is done, failed and open in one transaction, publish what
follows; Dramatiq acknowledges after that. A message may be delivered twice: what has been done is not taken again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.middleware import CurrentMessage

from esid import clock, log
from esid.clock import Stop
from esid.entities import BY_NAME, ENTITIES, LISTS
from esid.entities.base import Edges, Entity, Failed
from esid.entities.cadence import rhythm
from esid.errors import BadField, DatabaseUnavailable, EsidError, EsiError, EsiUnavailable, Held, Stopping
from esid.esi.decode import check_id
from esid.queue.attempts import Attempts, say
from esid.queue.broker import FOLLOW_UP, SCHEDULED, queue_name
from esid.queue.incoming import QUARANTINE
from esid.queue.outcome import Outcome
from esid.queue.publish import Publisher
from esid.store import ledger, lies, notes, sets
from esid.store.connection import Store
from esid.store.ledger import Booked, Ends, lookup
from esid.store.model import Done, Job, Seen

if TYPE_CHECKING:
    from esid.esi.client import Client

#: Entities whose new ids are gathered by the scheduler, for their bulk route.
GATHERING = frozenset(entity.name for entity in ENTITIES if entity.bulk)
#: Seconds: answers of one message that come further apart than this are written before its end, the first of them after
#: so long, others after so long again.
SLOW_S, FIRST_S, LATER_S = 0.15, 0.25, 2.0
#: Seconds between two tries to write answers to a database that is away, at most.
LONGEST_WAIT_S = 15.0
#: Seconds between two looks whether ETags are to be trusted.
LIES_S = 60.0
_log = log.get("work")


class BadMessage(EsidError):
    """A message whose arguments are not a list of ids."""


@dataclass
class Harvest:
    """What one message brought in.

    Attributes:
        jobs: what was asked for.
        at: when answers had been written last, or the message was begun, on the monotonic clock.
        interruption: why some were not asked.
        done: answers that are not written yet.
        ended: ids whose answers are.
    """

    jobs: Sequence[Job]
    at: float
    done: list[Done] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    interruption: Held | Stopping | None = None
    ended: set[int] = field(default_factory=set)

    def open_jobs(self) -> list[Job]:
        """Those that have neither been done nor failed."""
        ended = self.ended | {one.id for one in self.done} | {one.job.id for one in self.failed}
        return [job for job in self.jobs if job.id not in ended]

    def is_late(self) -> bool:
        """Whether answers come so slowly that those that there are should not wait for the rest."""
        waited_s = clock.monotonic() - self.at
        return waited_s > (LATER_S if self.ended else FIRST_S) and waited_s > SLOW_S * len(self.done)

    def hand_over(self) -> list[Done]:
        """What is not written yet. It counts as written from now on, and its rows are the caller's alone."""
        part = self.done
        self.ended.update(one.id for one in part)
        self.done = []
        return part


class Work:
    """What a unit of work needs, once a process.

    Args:
        entities: names of the queues that this daemon works on; what else is discovered is left to another daemon.
    """

    def __init__(
        self, store: Store, client: Client, publisher: Publisher, entities: Collection[str], stop: Stop | None = None
    ) -> None:
        self._store, self._publisher, self._entities = store, publisher, entities
        self._stop = stop or Stop()
        self._unknown, self._attempts = notes.UnknownFields(), Attempts(client)
        self._edges = Edges(
            client,
            partial(notes.unbatchable, store),
            partial(notes.add_unbatchable, store),
            partial(notes.disbelieved, store),
            self._has_lied,
            partial(sets.stored, store),
            partial(lookup.largest, store),
        )
        self._lies: dict[str, tuple[float, bool]] = {}

    def perform(
        self,
        entity: Entity,
        ids: Sequence[int],
        *,
        quarantined: bool = False,
        comes_back: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """The unit of work: all of its ids are booked on return.

        Args:
            quarantined: no other message that may kill its worker is worked on in this process.
            comes_back: whether the message is on its way back to the queue when it is given back.

        Raises:
            DatabaseUnavailable: nothing is lost, the message is to be given back.
        """
        jobs = ledger.take(self._store, entity.name, _checked(ids, entity.first_id), quarantined=quarantined)
        harvest = Harvest(jobs, clock.monotonic())
        self._ask(entity, harvest)
        if self._stop.is_set():
            # What was cut off by the stop has not failed.
            harvest.failed = [one for one in harvest.failed if not isinstance(one.error, EsiUnavailable)]
        ends = self._bring_in(entity, harvest, lambda: self._judge(entity, harvest, comes_back))
        held = harvest.interruption if isinstance(harvest.interruption, Held) and harvest.open_jobs() else None
        return Outcome(len(ends.failures), len(ends.put_back()), goes_back=bool(ends.given_back), held=held)

    def _has_lied(self, entity: str) -> bool:
        """Looked up now and then: it holds for a day."""
        at, has_lied = self._lies.get(entity, (-LIES_S, False))
        if clock.monotonic() - at >= LIES_S:
            has_lied = lies.has_lied(self._store, entity)
            self._lies[entity] = clock.monotonic(), has_lied
        return has_lied

    def close(self) -> None:
        """Write what is still counted in memory."""
        self._unknown.flush(self._store, now=True)

    def _ask(self, entity: Entity, harvest: Harvest) -> None:
        try:
            for result in entity.sync(entity, harvest.jobs, self._edges) if harvest.jobs else ():
                (harvest.failed if isinstance(result, Failed) else harvest.done).append(result)  # type: ignore[arg-type]
                if harvest.is_late():
                    self._bring_in(entity, harvest)
        except (Held, Stopping) as interruption:
            harvest.interruption = interruption
        except EsiError as error:
            harvest.failed += [Failed(job, error) for job in harvest.open_jobs()]

    def _judge(self, entity: Entity, harvest: Harvest, comes_back: Callable[[], bool]) -> Ends:
        """What is to be booked of ids without an answer: they failed, wait for a limit, or go back with their message."""
        ends, open_ids = self._attempts.judge(entity, harvest.failed), [job.id for job in harvest.open_jobs()]
        if not open_ids:
            return ends
        if not isinstance(harvest.interruption, Held):
            # Nobody works on these ids any more, so that their message may be taken up as it is.
            return replace(ends, given_back=open_ids, comes_back=comes_back())
        wait_s = harvest.interruption.wait_s
        return replace(ends, later=(*ends.later, (open_ids, wait_s + random.uniform(0, 1 + 0.1 * wait_s))))  # noqa: S311

    def _bring_in(self, entity: Entity, harvest: Harvest, judge: Callable[[], Ends] = Ends) -> Ends:
        """One transaction for what was answered since the last one and all that `judge` says, and what follows from it."""
        done = harvest.hand_over()
        ends, booked = self._book(entity, done, judge)
        say(entity, harvest.failed, ends, booked.counted)
        self._note_unknown(entity, done)
        self._follow_up(entity, done, booked.new)
        # Of a slow database each answer would be late as soon as the one before it is written.
        harvest.at = clock.monotonic()
        return ends

    def _book(self, entity: Entity, done: Sequence[Done], judge: Callable[[], Ends]) -> tuple[Ends, Booked]:
        """Returns what was booked beside `done`, and what came of all."""
        ends = judge()
        try:
            return ends, ledger.book(self._store, entity.name, replace(ends, done=done), GATHERING, rhythm(entity))
        except Exception as error:
            if isinstance(error, DatabaseUnavailable) and (not done or self._stop.is_set()):
                # Nothing was asked in vain, or there is no time: the message goes back.
                raise
            # No answer is lost by what the database says. More may be known of the others once they are written.
            new, ends = self._finish(entity, done), judge()
            return ends, replace(ledger.book(self._store, entity.name, ends), new=new)

    def _finish(self, entity: Entity, done: Sequence[Done]) -> list[Seen]:
        """Write what ESI has answered; while the database is away the answers are kept, not asked for again.

        One that cannot be written keeps no other from being written: halves go by themselves, and its error is the last.
        """
        wait_s = 0.5
        while True:
            try:
                return ledger.finish(self._store, entity.name, done, GATHERING, rhythm(entity))
            except DatabaseUnavailable as error:
                log.outage("database").down(error)
                if self._stop.wait(random.uniform(wait_s / 2, wait_s)):  # noqa: S311
                    raise
                wait_s = min(LONGEST_WAIT_S, wait_s * 2)
            except Exception as error:
                if len(done) == 1:
                    raise
                log.event(_log, "work.divided", f"answers cannot be written together: {error}"[:300], ids=len(done))
                break
        middle, spoiled, new = len(done) // 2, list[Exception](), list[Seen]()
        for half in (done[:middle], done[middle:]):
            try:
                new += self._finish(entity, half)
            except Exception as error:  # noqa: BLE001
                spoiled.append(error)
        if spoiled:
            # What is new in the others' answers the scheduler publishes.
            raise spoiled[-1]
        return new

    def _follow_up(self, entity: Entity, done: Sequence[Done], new: Sequence[Seen]) -> None:
        """Publish intents. A failure here loses nothing: the scheduler publishes what is left in the ledger."""
        unfinished = [one.id for one in done if one.unfinished]
        try:
            if unfinished:
                self._publisher.publish(entity, unfinished, FOLLOW_UP, in_batches=False)
            for name, ids in ledger.by_entity(new).items() if new else ():
                if BY_NAME[name].lane in self._entities:
                    # Lists first: only when they are in, anybody knows how much there is to do.
                    self._publisher.publish(BY_NAME[name], ids, FOLLOW_UP if BY_NAME[name].tables else SCHEDULED)
        except EsidError as error:
            # All is booked: a message that went back for this would have its ids asked before their time.
            log.event(_log, "work.follow_ups_wait", str(error), entity=entity.name)

    def _note_unknown(self, entity: Entity, done: Sequence[Done]) -> None:
        for one in done:
            if one.unknown:
                self._unknown.add(entity.name, one.unknown)
        with suppress(EsidError):  # the next message tries it again
            self._unknown.flush(self._store)


def declare_actors(broker: dramatiq.Broker, work: Work, prefix: str) -> None:
    """One actor for each entity, on its queue; the lists of what there is come first (see `worker.WorkQueue`)."""
    firsts = [entity for lists in LISTS.values() for entity in lists]
    for entity in ENTITIES:
        declare = dramatiq.actor(
            broker=broker,
            actor_name=entity.name,
            queue_name=queue_name(prefix, entity.lane),
            priority=0 if entity in firsts else 1,
        )
        declare(_function(work, entity))


def _function(work: Work, entity: Entity) -> Any:
    def sync(*arguments: Any, **named: Any) -> None:
        if len(arguments) != 1 or named:
            raise BadMessage(f"wrong arguments: {len(arguments)} and {len(named)} named ones instead of a list of ids")
        message: Any = CurrentMessage.get_current_message()
        quarantined = bool(message.options.get(QUARANTINE))
        message.outcome = work.perform(
            entity, arguments[0], quarantined=quarantined, comes_back=lambda: bool(message.comes_back)
        )

    return sync


def _checked(ids: object, first: int) -> list[int]:
    """The ids of a message: a broker is an input, not a friend."""
    if not isinstance(ids, list) or not 0 < len(ids) <= 1000:
        raise BadMessage(f"the argument is no list of 1 to 1000 ids: {str(ids)[:80]}")
    try:
        return [check_id(key, "message", first=first) for key in ids]
    except BadField as error:
        raise BadMessage(str(error)) from None
