"""A daemon is asked for work, does it, and is done."""

from __future__ import annotations

from esid.store import ledger
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.waiting import wait_until


def ask_for_everything(daemon: Daemon, world: World) -> None:
    """Also for what no answer names."""
    daemon.ok("enqueue", "corporation", "-", stdin="\n".join(map(str, sorted(world.corporations))))
    daemon.ok("enqueue", "character", "-", stdin="\n".join(map(str, sorted(world.characters))))


def wait_for_work(esi: FakeEsi, requests: int = 4) -> None:
    """Until some more answers have been given, so that others are on their way."""
    before = len(esi.log)
    wait_until(lambda: len(esi.log) >= before + requests, 15, "requests")


def open_jobs(store: Store) -> dict[str, int]:
    """Entity -> how many jobs wait or are in work."""
    counts = ledger.counts(store)
    found = {name: by.get("pending", 0) + by.get("processing", 0) for name, by in counts.items()}
    return {name: count for name, count in found.items() if count}


def wait_for_world(daemon: Daemon, store: Store, world: World, deadline_s: float = 30.0) -> None:
    """Until nothing is open and the tables are the world."""
    wait_until(
        lambda: not open_jobs(store) and mirror.table(store, mirror.Character).keys() == world.characters.keys(),
        deadline_s,
        lambda: f"the world: {ledger.counts(store)} {daemon.log[-3000:]}",
        every_s=0.1,
    )
    mirror.assert_equal(store, world)


def wait_for_sync(daemon: Daemon, store: Store, deadline_s: float = 90.0, only: str | None = None) -> None:
    """Until something has been done and everything that is due (of one entity) has been asked."""

    def is_idle() -> bool:
        counts = ledger.counts(store)
        chosen = [counts.get(only, {})] if only else list(counts.values())
        return any(chosen) and not any(by.get("pending", 0) + by.get("processing", 0) for by in chosen)

    wait_until(is_idle, deadline_s, lambda: f"an idle daemon; its log: {daemon.log[-3000:]}", every_s=0.1)
