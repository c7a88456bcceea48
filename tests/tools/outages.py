"""Something goes away while a daemon works, and comes back: before, meanwhile and after."""

from __future__ import annotations

import time
from collections.abc import Callable

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Daemon, Make
from tests.tools.waiting import wait_until


def during(seconds: float, what: Callable[[], object], every_s: float) -> None:
    """Do something again and again for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        what()
        at = time.monotonic() + every_s
        wait_until(lambda at=at: time.monotonic() >= at, every_s + 5, "the next time")


def pause(seconds: float) -> None:
    """Let a fault last."""
    during(seconds, lambda: None, seconds)


def busy(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, hooks: dict[str, str] | None = None, **settings: str
) -> tuple[Daemon, checker.Sent]:
    """A daemon in the middle of its work."""
    hooks = {**(hooks or {}), **({"ESID_TEST_PATCH": settings.pop("patch")} if "patch" in settings else {})}
    daemon = make_daemon(hooks=hooks, ESID_THREADS="4", **settings)
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    esi.latency_s = 0.1
    daemon.start()
    wait_until(lambda: esi.count() >= 5, 20, lambda: daemon.log)
    return daemon, wanted


def finish(daemon: Daemon, esi: FakeEsi, store: Store, wanted: checker.Sent, deadline_s: float = 60) -> None:
    """Everything is there, nothing was given up, and the daemon stops well."""
    esi.latency_s = 0.0
    checker.wait_for_drain(daemon, store, deadline_s)
    checker.check(store, esi, daemon, wanted)
    assert "daemon.child_replaced" not in daemon.log
    assert daemon.stop() == 0


def lines(daemon: Daemon, thing: str) -> tuple[int, int]:
    """How often it was said that something is away, and back."""
    return daemon.log.count(f"{thing}.away"), daemon.log.count(f"{thing}.back")
