"""The history checker: after all faults nothing is lost, nothing doubled, nothing impolite, nothing said twice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable

from esid.entities import BY_NAME
from esid.queue.asking import Asking
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.waiting import wait_until
from tests.tools.work import open_jobs

Sent = dict[str, Collection[int]]


def sent(world: World) -> Sent:
    """Everything there is in a world, as it is asked for."""
    return {"alliance": world.alliances, "corporation": world.corporations, "character": world.characters}


def enqueue(daemon: Daemon, store: Store, wanted: Sent) -> None:
    """Ask for ids as `esid enqueue` does, but for the process of its own."""
    prefix = daemon.settings["ESID_QUEUE_PREFIX"]
    broker = open_broker(store, daemon.settings["RABBITMQ_URL"], prefix)
    requests = Asking(store, Publisher(store, broker, prefix), prefix)
    for entity, ids in wanted.items():
        for _ in requests.enqueue(BY_NAME[entity], [(key, None) for key in sorted(ids)]):
            pass
    broker.close()


def wait_for_drain(daemon: Daemon, store: Store, deadline_s: float) -> None:
    """Until every id is done or dead."""
    wait_until(
        lambda: not open_jobs(store) and ledger.counts(store),
        deadline_s,
        lambda: f"no open job: {ledger.counts(store)} {daemon.log[-4000:]}",
        every_s=0.1,
    )


def ask_again_for_killed(daemon: Daemon, store: Store, deadline_s: float) -> int:
    """Some innocent id may have been in hand at four deaths: it is dead with its reason, and asked for again by a person.

    Returns how many there were.
    """
    killed = dead_letters.find(store, Filter(reason="killed_worker"))
    if killed:
        daemon.ok("dead", "retry", "--reason", "killed_worker")
        wait_for_drain(daemon, store, deadline_s)
    return len(killed)


def check(store: Store, esi: FakeEsi, daemon: Daemon, wanted: Sent, *, dead: Iterable[tuple[str, int, str]] = ()) -> None:
    """Everything that must hold whatever happened.

    Args:
        wanted: the ids that were accepted.
        dead: (entity, id, reason) that are given up; all the others are there.
    """
    letters = [(one.entity_type, one.entity_id, one.reason) for one in dead_letters.find(store, Filter())]
    assert sorted(letters, key=str) == sorted(dead, key=str)
    gone = {(entity, key) for entity, key, _ in dead}
    for entity, ids in wanted.items():
        for key in ids:
            job = ledger.job(store, entity, key)
            assert job, f"{entity} {key} was accepted and is not known"
            assert job["status"] == ("failed" if (entity, key) in gone else "completed"), (entity, key, job)
    mirror.assert_equal(store, without(esi.world, gone))
    assert_polite(esi)
    assert "Traceback" not in daemon.log, daemon.log[-4000:]


def without(world: World, gone: Collection[tuple[str, int]]) -> World:
    """The world without those that are dead letters."""
    return dataclasses.replace(
        world,
        alliances={key: body for key, body in world.alliances.items() if ("alliance", key) not in gone},
        corporations={key: body for key, body in world.corporations.items() if ("corporation", key) not in gone},
        characters={key: body for key, body in world.characters.items() if ("character", key) not in gone},
    )


def assert_polite(esi: FakeEsi, window_s: float = 1.0) -> None:
    """After a 420 nothing leaves but what was on its way."""
    ends_at = 0.0
    for request in sorted(esi.log, key=lambda one: one.at):
        assert request.at >= ends_at or request.status == 420, f"{request} in a forbidden window"
        if request.status == 420:
            ends_at = max(ends_at, request.at + window_s)


def repeated(esi: FakeEsi) -> Counter[str]:
    """URL -> how often it was asked once too often inside its cache time: what a crash may cost."""
    return Counter(request.path for request in esi.early())


def assert_no_secret(secrets: Iterable[str], texts: Iterable[str]) -> None:
    """None of the planted secrets stands anywhere."""
    for text in texts:
        for secret in secrets:
            assert secret not in text, text[max(0, text.find(secret) - 200) : text.find(secret) + 50]
