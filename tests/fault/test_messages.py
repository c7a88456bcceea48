"""Messages that come twice, late or from nowhere; dead letters that outlast everything."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

import pytest

from esid.entities import BY_NAME
from esid.entities.base import IDS_PER_MESSAGE
from esid.queue.broker import open_broker, queue_name
from esid.queue.publish import Publisher
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Failure, Seen, utc_text
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Make
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until


def test_messages_that_come_again_and_again_cost_no_request_and_change_nothing(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given each message twice, and one five times
    daemon = make_daemon(ESID_THREADS="8")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    prefix = daemon.settings["ESID_QUEUE_PREFIX"]
    broker = open_broker(store, daemon.settings["RABBITMQ_URL"], prefix)
    publisher = Publisher(store, broker, prefix)
    for entity, ids in wanted.items():
        publisher.publish(BY_NAME[entity], sorted(ids), 0, in_batches=False)
    for _ in range(4):
        publisher.publish(BY_NAME["alliance"], [min(world.alliances)], 0)
    broker.close()
    daemon.start()
    checker.wait_for_drain(daemon, store, 60)
    # A message that began with what another one has done since may only now come to its end
    assert daemon.stop() == 0
    daemon.start()
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    # What runs at the same moment may be asked twice; what has been done is not
    assert checker.repeated(esi).total() <= 8 * IDS_PER_MESSAGE
    assert daemon.stop() == 0


def kill_off(store: Store, key: int, reason: str, when: dt.datetime) -> None:
    """A dead letter of some time ago."""
    ledger.request(store, [Seen("corporation", key)])
    ledger.retry(store, "corporation", {}, {key: Failure(reason, "words", traceback="Traceback: here")})
    stamp = utc_text(when)
    store.run(lambda: store.rows("UPDATE dead_letters SET first_at = %s, last_at = %s WHERE entity_id = %s",
                                 (stamp, stamp, key)))  # fmt: skip


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
def test_old_dead_letters_are_kept_found_and_retried_once(
    make_daemon: Make, world: World, esi: FakeEsi, store: Store
) -> None:
    # Given one that is older than RabbitMQ keeps its own, and a young one
    old, young = sorted(world.corporations)[:2]
    now = dt.datetime.now(dt.UTC)
    kill_off(store, old, "http_403", now - dt.timedelta(days=40))
    kill_off(store, young, "crash", now)
    daemon = make_daemon()

    def listed(*filters: str) -> list[int]:
        return sorted(one["entity_id"] for one in json.loads(daemon.ok("dead", "list", "--json", *filters)))

    assert listed() == [old, young]
    assert listed("--since", "8d") == [young]
    assert listed("--reason", "http_403") == [old]
    assert listed("--entity", "alliance") == []
    (letter,) = json.loads(daemon.ok("dead", "show", "--reason", "crash", "--json"))
    assert letter["traceback"] == "Traceback: here"

    # When it is retried twice, that is one effect
    counts = [json.loads(daemon.ok("dead", "retry", "--reason", "http_403", "--json"))["count"] for _ in range(2)]
    assert counts == [1, 0]
    daemon.start("--no-scheduler")
    wait_until(lambda: ledger.job(store, "corporation", old)["status"] == "completed", 20, "the row")  # type: ignore[index]
    assert esi.count(prefix=f"/corporations/{old}") == 1
    assert listed() == [young]
    assert json.loads(daemon.ok("dead", "drop", "--all", "--yes", "--json"))["count"] == 1
    assert listed() == []


def test_a_letter_that_dies_again_keeps_its_first_time(store: Store) -> None:
    first = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    kill_off(store, 1, "http_403", first)
    ledger.request(store, [Seen("corporation", 1)])
    ledger.retry(store, "corporation", {}, {1: Failure("too_large", "other words", status=200, sample="xyz")})
    (letter,) = dead_letters.find(store, Filter())
    assert (letter.first_at, letter.reason, letter.answer_status, letter.answer_sample) == (first, "too_large", 200, "xyz")
    assert letter.last_at > first
    assert letter.attempts == 1


def test_an_unknown_actor_is_waited_with_ten_minutes() -> None:
    from esid.queue.middleware import dead_letters as middleware

    seen = middleware.DeadLetters.__new__(middleware.DeadLetters)
    seen._first_seen = {}
    assert middleware.UNKNOWN_S == 600.0
    assert seen._may_be_known_elsewhere("m")
    seen._first_seen["m"] -= 601
    assert not seen._may_be_known_elsewhere("m")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("main_stack", STACKS[:2], indirect=True)
def test_a_queue_of_200_000_costs_no_memory_and_no_patience(make_daemon: Make, esi: FakeEsi, store: Store) -> None:
    daemon = make_daemon()
    esi.faults.add("/", hang_s=300)
    prefix = daemon.settings["ESID_QUEUE_PREFIX"]
    broker: Any = open_broker(store, daemon.settings["RABBITMQ_URL"], prefix)
    queue = queue_name(prefix, "corporation")
    publisher = Publisher(store, broker, prefix)
    keys = range(98_000_000, 98_200_000)
    for start in range(0, len(keys), 5000):
        ledger.request(store, [Seen("corporation", key) for key in keys[start : start + 5000]])
    broker.enqueue_many([publisher._message(BY_NAME["corporation"], [key], 0, False) for key in keys])
    broker.close()
    before = time.monotonic()
    daemon.start("--no-scheduler")
    assert time.monotonic() - before < 10
    before = time.monotonic()
    assert json.loads(daemon.ok("status", "--json"))["queues"]["pending"][queue] >= 199_000
    assert time.monotonic() - before < 3  # of which Python's start is most
    for pid in daemon.children().values():
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:  # noqa: PTH123
            peak_kb = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
        assert peak_kb < 300 * 1024
    daemon.signal(3)


@pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
def test_daemons_of_today_leave_messages_of_tomorrow_alone(make_daemon: Make, store: Store) -> None:
    # Given a message whose actor only a newer release knows
    daemon = make_daemon(hooks={"ESID_TEST_PATCH": "esid.queue.middleware.dead_letters:PARKED_S=0.3"})
    broker = open_broker(store, "", daemon.settings["ESID_QUEUE_PREFIX"])
    queue = queue_name(daemon.settings["ESID_QUEUE_PREFIX"], "corporation")
    publisher = Publisher(store, broker, daemon.settings["ESID_QUEUE_PREFIX"])
    message = publisher._message(BY_NAME["corporation"], [1], 0, False).copy(actor_name="war")
    broker.enqueue(message)
    daemon.start("--no-scheduler")

    def deliveries() -> int:
        with store.connection():
            return int(store.rows("SELECT COALESCE(MAX(deliveries), 0) FROM messages WHERE queue = %s", (queue,))[0][0])

    wait_until(lambda: deliveries() >= 3, 20, "it goes back to the queue again and again")
    assert daemon.stop() == 0
    assert broker.depths()[queue] == 1
    assert dead_letters.find(store, Filter()) == []

    # And when nobody learned of it in time, it is kept word for word, and sent again on demand
    broker.purge(queue)
    dead_letters.add_message(store, "unknown_actor", "war", message.encode().decode())
    assert "1 put back" in daemon.ok("dead", "retry", "--all")
    assert broker.depths()[queue] == 1
    assert dead_letters.find(store, Filter()) == []
