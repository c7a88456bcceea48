"""The parts of a daemon that work, each with a life that a simulation may end at any point: nothing is given back then."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dramatiq.middleware import CurrentMessage, SkipMessage

from esid import clock, log
from esid.assembly import core
from esid.clock import Stop
from esid.errors import BrokerUnavailable, DatabaseUnavailable
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.feeds import r2z2
from esid.feeds.follow import FIRST_WAIT_S, Follower
from esid.queue.asking import Asking
from esid.queue.broker import open_broker, queue_name
from esid.queue.dispatch import dispatch
from esid.queue.hands import Hands
from esid.queue.middleware.crashes import Crashes
from esid.queue.middleware.dead_letters import DeadLetters
from esid.queue.middleware.hold import Hold
from esid.queue.middleware.recoveries import Recoveries, settle
from esid.queue.publish import Publisher
from esid.queue.work import Work, declare_actors
from esid.schedule import plan, runner, tasks
from esid.store import messages, ticks
from esid.store.connection import Store
from tests.fault.week.wire import EsiWire

QUEUES = ("alliance", "corporation", "character", "killmail")
PREFIX = "week"
#: When which job of the schedule runs: as it is by default, but the sweep less often.
PLAN = {
    **{f"sync_{queue}": "10m" for queue in QUEUES[:3]},
    "sync_killmail": "1h",
    "refresh_character": "10m",
    "sweep": "5m",
    "audit": "1h",
    "clean_up": "1d",
}
#: Messages that a worker works on before the others have their turn.
AT_ONCE = 30


class Killed(BaseException):
    """The process is gone: nothing of what it would have done at its end is done."""


class Waits(Stop):
    """A stop that nobody asks for, whose waits are the simulation's time."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def wait(self, seconds: float) -> bool:
        """So much time goes by."""
        self._wait(max(0.0, seconds))
        return False


class _Freed:
    """The condition that threads of a process wait on for one another, of whom there are none."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        self.wait = wait

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def notify(self) -> None:
        """Nobody waits."""


class Worker:
    """A worker process of one thread."""

    def __init__(
        self,
        store: Store,
        data: Path,
        wire: EsiWire,
        hands: memoryview,
        wait: Callable[[float], None],
        point: Callable[[], None],
    ) -> None:
        self._store, self._point, stop = store, point, Waits(wait)
        self._budget: Any = Budget(data / "budget", Limits(max_rps=20.0), stop, is_known=True)
        self._budget._freed = _Freed(wait)
        client = Client("http://127.0.0.1", self._budget, adapter=wire)
        held = Hands(hands)
        self._broker: Any = open_broker(
            store,
            "",
            PREFIX,
            [
                CurrentMessage(), Hold(store, client, stop), Crashes(store), DeadLetters(store),
                Recoveries(store, held, stop),
            ],
        )  # fmt: skip
        work = Work(store, client, Publisher(store, self._broker, PREFIX), QUEUES, stop)
        declare_actors(self._broker, work, PREFIX)
        settle(store, held, lambda: stop.wait(1.0))
        with suppress(DatabaseUnavailable):
            for owner in messages.owners(store):
                messages.release(store, owner)
        self._consumers = [self._broker.consume(queue_name(PREFIX, queue), prefetch=4, timeout=0) for queue in QUEUES]

    def turn(self) -> None:
        """Work on some messages of each queue."""
        for consumer in self._consumers:
            for _ in range(AT_ONCE):
                if (message := next(consumer)) is None:
                    break
                self._perform(consumer, message)

    def next_s(self) -> float:
        """It is called when there is something to do."""
        return math.inf

    def die(self) -> None:
        """What it has on its way stays so: its end settles nothing."""
        self._budget.settle = self._budget._settle_limits = lambda *_, **__: ""
        self._budget.in_flight.give_back = self._budget.in_flight.add_waiting = lambda *_: None

    def bury(self) -> None:
        """The kernel closes what it had open."""
        self._budget.shared.close()
        self._store.close()

    def close(self) -> None:
        """A stop in good order."""
        for consumer in self._consumers:
            consumer.close()
        self._budget.close()
        self._store.close()

    def _perform(self, consumer: Any, message: Any) -> None:
        """As Dramatiq's thread does it."""
        try:
            self._broker.emit_before("process_message", message)
            self._broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
            self._broker.emit_after("process_message", message, result=None)
        except Killed:
            raise
        except SkipMessage:
            self._broker.emit_after("skip_message", message)
        except BaseException as error:
            message.stuff_exception(error)
            self._broker.emit_after("process_message", message, exception=error)
        self._point()
        end = "nack" if message.failed else "ack"
        self._broker.emit_before(end, message)
        getattr(consumer, end)(message)


class Scheduler:
    """The process that publishes what is due; each tick once, as `runner.Scheduler` has it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._publisher = Publisher(store, open_broker(store, "", PREFIX), PREFIX)
        self._works = tasks.works(store, self._publisher, Asking(store, self._publisher, PREFIX))
        self._plan = plan.plan(PLAN, core.installation(store), QUEUES)
        self._claimed: dict[str, dt.datetime] = {}
        self._ran: dict[str, dt.datetime | None] = {}
        self._begun = {job.name for job in self._plan if job.at_start}
        self._is_kept = False

    def turn(self) -> None:
        """What is due; what the database has kept from running is tried again."""
        self._is_kept = True
        try:
            dispatch(self._store, self._publisher, QUEUES)
            for job in self._plan:
                self._run(job)
            self._is_kept = False
        except (DatabaseUnavailable, BrokerUnavailable) as error:
            log.outage("database").down(error)

    def next_s(self) -> float:
        """Seconds until the next tick."""
        if self._is_kept:
            return runner.AGAIN_S
        now = clock.now()
        ticks_at = [plan.next_due(job, now) for job in self._plan]
        return min((at - now).total_seconds() for at in ticks_at if at)

    def die(self) -> None:
        """It has nothing that would be given back."""

    def bury(self) -> None:
        """The kernel closes what it had open."""
        self._store.close()

    close = bury

    def _run(self, job: plan.Planned) -> None:
        if job.name not in self._claimed and not self._claim(job):
            return
        runner.run(self._store, job.name, self._claimed[job.name], self._works[job.name])
        del self._claimed[job.name]

    def _claim(self, job: plan.Planned) -> bool:
        """Whether a tick is ours to run: the newest one, or at the start one of its own."""
        due, is_first = plan.last_due(job, clock.now()), job.name in self._begun
        if not is_first and (due is None or self._ran.get(job.name) == due):
            return False
        is_ours = due is not None and ticks.claim(self._store, job.name, due)
        self._ran[job.name] = due
        if is_first and not is_ours:
            due = clock.now()
            is_ours = ticks.claim(self._store, job.name, due)
        self._begun.discard(job.name)
        if is_ours and due:
            self._claimed[job.name] = due
        return is_ours


class Feed:
    """The process that follows the feed of killmails."""

    def __init__(self, store: Store, source: Any, wait: Callable[[float], None]) -> None:
        self._store, self._wait_s = store, 0.0
        self._follower = Follower(store, r2z2.feed(), source, Waits(wait))

    def turn(self) -> None:
        """Read what there is."""
        try:
            while (wait_s := self._follower.step()) == 0.0:
                pass
            self._wait_s = wait_s
        except DatabaseUnavailable as error:
            self._follower._cursor, self._wait_s = None, FIRST_WAIT_S
            log.outage("database").down(error)

    def next_s(self) -> float:
        """Seconds until the next look; where all is read, the simulation knows when there is more."""
        return math.inf if self._wait_s == r2z2.AFTER_404_S else self._wait_s

    def die(self) -> None:
        """Its lease ends by itself."""

    def bury(self) -> None:
        """The kernel closes what it had open."""
        self._store.close()

    close = bury
