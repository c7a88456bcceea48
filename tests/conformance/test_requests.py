"""Asking for work, on every pair of database and queue: what waits in the ledger always gets a message again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from esid import clock
from esid.entities import BY_NAME
from esid.entities.alliance import ALLIANCE
from esid.entities.base import BULK_ABOVE, Entity
from esid.entities.character import CHARACTER
from esid.entities.corporation import CORPORATION
from esid.entities.killmail import KILLMAIL
from esid.queue import dispatch as dispatching
from esid.queue.asking import Asking
from esid.queue.broker import open_broker, queue_name
from esid.queue.dispatch import dispatch, sweep
from esid.queue.publish import Publisher
from esid.schedule import tasks
from esid.store import dead_letters, ledger, migrate
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Done, Failure, Seen
from tests.tools.stacks import Stack

QUEUES = ("alliance", "corporation", "character", "killmail")


@dataclass
class Desk:
    """Where requests are made, and how many messages wait."""

    store: Store
    publisher: Publisher
    requests: Asking
    prefix: str

    def waiting(self, entity: str) -> int:
        """Messages in one queue."""
        return self.publisher.broker.depths()[queue_name(self.prefix, entity)]

    def purge(self) -> None:
        """Lose every message, behind the ledger's back."""
        for entity in QUEUES:
            self.publisher.broker.purge(queue_name(self.prefix, entity))


@pytest.fixture
def desk(stack: Stack) -> Iterator[Desk]:
    """A desk without any daemon."""
    store = Store(stack.database_url, pool_size=4)
    migrate.migrate(store)
    broker = open_broker(store, stack.rabbitmq_url, stack.queue_prefix)
    broker.check()
    publisher = Publisher(store, broker, stack.queue_prefix)
    made = Desk(store, publisher, Asking(store, publisher, stack.queue_prefix), stack.queue_prefix)
    yield made
    made.purge()
    broker.close()
    store.close()


def enqueue(desk: Desk, entity: str, *ids: int) -> None:
    """A person asks."""
    list(desk.requests.enqueue(BY_NAME[entity], [(key, None) for key in ids]))


def test_many_ids_share_messages_and_a_bulk_route_takes_a_thousand(desk: Desk) -> None:
    enqueue(desk, "corporation", *range(98_000_000, 98_000_025))
    enqueue(desk, "character", *range(90_000_000, 90_002_500))
    enqueue(desk, "character", *range(91_000_000, 91_000_010))
    assert desk.waiting("corporation") == 2
    assert desk.waiting("character") == 3 + 1


def test_a_full_sync_asks_for_the_lists_and_what_is_due_and_nothing_twice(desk: Desk) -> None:
    assert desk.requests.sync("alliance") == 1
    assert desk.requests.sync("alliance") == 0
    now = clock.now()
    ledger.finish(desk.store, "alliances", [Done(1, seen=(Seen("alliance", 99_000_001),), expires_at=now)])
    ledger.finish(desk.store, "alliance", [Done(99_000_001, expires_at=now)])
    assert desk.requests.sync("alliance") == 2


def test_intents_that_were_never_published_are_dispatched(desk: Desk) -> None:
    # Given ids that were written by a worker that died before it could publish them
    ledger.request(desk.store, [Seen("corporation", 98_000_001)])
    assert dispatch(desk.store, desk.publisher, QUEUES) == 0
    ledger.defer(desk.store, "corporation", [98_000_001], 0.0)

    assert dispatch(desk.store, desk.publisher, QUEUES) == 1
    assert dispatch(desk.store, desk.publisher, QUEUES) == 0
    assert desk.waiting("corporation") == 1


def test_what_waits_for_a_broker_that_is_away_grows_older(desk: Desk) -> None:
    ledger.request(desk.store, [Seen("corporation", 98_000_001)])
    ledger.defer(desk.store, "corporation", [98_000_001], 0.0)
    before = ledger.oldest_open(desk.store, ["corporation"])
    assert ledger.claim(desk.store, "corporation", [98_000_001]) == [98_000_001]
    assert ledger.oldest_open(desk.store, ["corporation"]) == before


@pytest.mark.parametrize("entity", [CORPORATION, CHARACTER], ids=lambda one: one.name)
def test_a_clock_that_is_set_back_hides_no_work(desk: Desk, entity: Entity, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what was accepted while the clock was three hours ahead: with a message, without one, with one that is lost
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(hours=3))
    enqueue(desk, entity.name, 1)
    ledger.request(desk.store, [Seen(entity.name, 2)])
    if entity.bulk:
        desk.store.run(lambda: ledger.discover(desk.store, [Seen(entity.name, 3)], clock.now(), {entity.name}))
    desk.purge()

    # When it is set back, it is published at once, and once
    monkeypatch.setattr(clock, "now", real)
    found = 2 if entity.bulk else 1
    assert dispatch(desk.store, desk.publisher, QUEUES) == found
    assert dispatch(desk.store, desk.publisher, QUEUES) == 0
    with desk.store.connection():
        assert desk.store.rows("SELECT COUNT(*) FROM sync_jobs WHERE due_at IS NOT NULL") == [(0,)]
    desk.purge()
    assert sweep(desk.store, desk.publisher, QUEUES, 300.0) == 1


def test_a_daemon_dispatches_only_what_it_works_on(desk: Desk) -> None:
    ledger.request(desk.store, [Seen("corporation", 98_000_001)])
    ledger.defer(desk.store, "corporation", [98_000_001], 0.0)
    assert dispatch(desk.store, desk.publisher, ("character",)) == 0


def seen_characters(desk: Desk, count: int) -> None:
    """New characters stood in an answer; others were asked for before."""
    desk.store.run(lambda: ledger.discover(desk.store, [Seen("character", 89_999_999)], clock.now()))
    ledger.finish(desk.store, "character", [Done(89_999_999, checked_at=clock.now())])
    enqueue(desk, "corporation", 98_000_001, 98_000_002)
    seen = tuple(Seen("character", 90_000_000 + n) for n in range(count))
    ledger.finish(desk.store, "corporation", [Done(98_000_001, seen=seen)], {"character"})


@pytest.mark.parametrize("queues", [QUEUES, ("character",)], ids=["one daemon", "several"])
def test_new_characters_wait_for_full_batches_while_other_work_is_open(desk: Desk, queues: tuple[str, ...]) -> None:
    seen_characters(desk, 2300)
    assert dispatch(desk.store, desk.publisher, queues) == 2000
    assert desk.waiting("character") == 2
    assert dispatch(desk.store, desk.publisher, queues) == 0

    # When nothing is open, at any daemon, that could bring in more
    ledger.finish(desk.store, "corporation", [Done(98_000_002)])
    assert dispatch(desk.store, desk.publisher, queues) == 300


def test_the_first_characters_of_all_do_not_wait(desk: Desk) -> None:
    enqueue(desk, "corporation", 98_000_001, 98_000_002)
    seen = tuple(Seen("character", 90_000_000 + n) for n in range(100))
    ledger.finish(desk.store, "corporation", [Done(98_000_001, seen=seen)], {"character"})
    # A handful, once: its answers are rows that a person can see
    assert dispatch(desk.store, desk.publisher, QUEUES) == BULK_ABOVE
    assert dispatch(desk.store, desk.publisher, QUEUES) == 0


def test_new_characters_wait_no_longer_than_that(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen_characters(desk, 20)
    assert dispatch(desk.store, desk.publisher, QUEUES) == 0
    monkeypatch.setattr(dispatching, "GATHER_S", -1.0)
    assert dispatch(desk.store, desk.publisher, QUEUES) == 20


@pytest.mark.parametrize("entity", [CORPORATION, ALLIANCE, CHARACTER], ids=lambda entity: entity.name)
def test_lost_messages_are_published_again(desk: Desk, entity: object) -> None:
    name = getattr(entity, "name", "")
    ids = range(98_000_000, 98_000_030)
    enqueue(desk, name, *ids)

    # While messages wait, an old job is just a long queue
    assert sweep(desk.store, desk.publisher, QUEUES, -1.0) == 0
    desk.purge()
    assert sweep(desk.store, desk.publisher, QUEUES, 60.0) == 0
    assert sweep(desk.store, desk.publisher, QUEUES, -1.0) == 30
    assert desk.waiting(name) == (1 if name == "character" else 2)


def test_the_sweep_leaves_what_is_done_or_waits_alone(desk: Desk) -> None:
    enqueue(desk, "corporation", 98_000_001, 98_000_002)
    desk.purge()
    ledger.finish(desk.store, "corporation", [Done(98_000_001)])
    ledger.retry(desk.store, "corporation", {98_000_002: 60.0}, {98_000_002: Failure("unavailable", "")})
    assert sweep(desk.store, desk.publisher, QUEUES, -1.0) == 0


def test_a_purge_is_undone_by_the_next_full_sync(desk: Desk) -> None:
    enqueue(desk, "corporation", *range(98_000_000, 98_000_030))
    enqueue(desk, "alliance", 99_000_001)
    assert desk.requests.purge("corporation") == (2, 30)
    assert (desk.waiting("corporation"), desk.waiting("alliance")) == (0, 1)
    assert desk.requests.sync("corporation") == 31  # and the list of NPC corporations


def test_the_schedule_asks_again_for_killmails_that_were_purged_or_given_up(desk: Desk) -> None:
    # Given a killmail that is done, two that were given up, of which one is to be left alone for a day, and a purged one
    done, given_up, later, purged = range(130_000_001, 130_000_005)
    list(desk.requests.enqueue(KILLMAIL, [(key, "0" * 40) for key in (done, given_up, later, purged)]))
    ledger.finish(desk.store, "killmail", [Done(done)])
    ledger.retry(desk.store, "killmail", {}, {given_up: Failure("unavailable", "", ask_again_after_s=0.0)})
    ledger.retry(desk.store, "killmail", {}, {later: Failure("unavailable", "", ask_again_after_s=86_400.0)})
    assert desk.requests.purge("killmail") == (1, 1)

    # Then the schedule asks for what is due, once, with its hash
    sync = tasks.works(desk.store, desk.publisher, desk.requests)["sync_killmail"]
    assert sync() == "2 due jobs for ESI in the killmail queue"
    assert sync() == "nothing was due"
    assert desk.waiting("killmail") == 1
    taken = ledger.take(desk.store, "killmail", [done, given_up, later, purged])
    assert [(job.id, job.argument) for job in taken] == [(given_up, "0" * 40), (purged, "0" * 40)]


def test_dead_letters_go_back_once(desk: Desk) -> None:
    enqueue(desk, "corporation", 98_000_001, 98_000_002)
    failure = Failure("http_403", "HTTP 403")
    ledger.retry(desk.store, "corporation", {}, {98_000_001: failure, 98_000_002: failure})
    desk.purge()
    assert desk.requests.retry_dead(Filter(entities=("corporation",))) == 2
    assert desk.requests.retry_dead(Filter(entities=("corporation",))) == 0
    assert desk.waiting("corporation") == 1


def test_a_message_of_a_thousand_ids_is_sent_again_word_for_word(desk: Desk) -> None:
    sent = desk.publisher._message(CHARACTER, range(2_100_000_000, 2_100_001_000), 0, False).copy(actor_name="war")
    dead_letters.add_message(desk.store, "unknown_actor", "war", sent.encode().decode())
    assert desk.requests.retry_dead(Filter()) == 1
    assert desk.waiting("character") == 1
    assert dead_letters.find(desk.store, Filter()) == []


def test_a_lost_message_is_found_in_time_though_its_queue_is_never_empty(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given ids whose message was lost, and a queue in which there is always something
    enqueue(desk, "corporation", *range(98_000_000, 98_000_030))
    desk.purge()
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=2000))
    enqueue(desk, "corporation", *range(98_000_100, 98_000_130))
    assert sweep(desk.store, desk.publisher, QUEUES, 300.0) == 0
    # When they have waited for most of an hour
    monkeypatch.setattr(clock, "now", lambda: real() + dt.timedelta(seconds=3100))
    monkeypatch.setattr(dispatching, "BUSY_AT_ONCE", 20)
    before = desk.waiting("corporation")
    # Then they are published again, the longest waiting first, a few with each sweep, and nothing else is
    assert [sweep(desk.store, desk.publisher, QUEUES, 300.0) for _ in range(3)] == [20, 10, 0]
    assert desk.waiting("corporation") == before + 2
