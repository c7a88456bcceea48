"""A queue in another place than before: what waited in the old one, which nobody consumes any more, is done all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from esid.entities.alliance import Alliance
from esid.store import messages
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.tools import mirror
from tests.tools.daemon import Daemon
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until


@pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)
def test_what_waits_in_a_queue_that_nobody_consumes_any_more_is_published_anew(
    main_stack: Stack, esi: FakeEsi, world: World, tmp_path: Path
) -> None:
    settings = {**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, "ESI_MAX_RPS": "0"}
    daemon, store = Daemon(settings), Store(main_stack.database_url, pool_size=2)
    first, *others = sorted(world.alliances)
    quiet = ("--actors", "alliance", "--no-scheduler")

    def has(*ids: int) -> bool:
        return set(ids) <= set(mirror.table(store, Alliance))

    try:
        # Given an alliance in the database's queue, when the daemon is started with RabbitMQ
        daemon.ok("enqueue", "alliance", str(first), RABBITMQ_URL="")
        daemon.start("--actors", "alliance")
        assert "queue.moved" in daemon.log
        wait_until(lambda: has(first), 20, lambda: daemon.log)
        assert messages.counts(store) == {}
        assert daemon.stop() == 0

        # And back: RabbitMQ's messages are out of reach
        daemon.ok("enqueue", "alliance", *map(str, others))
        daemon.settings["RABBITMQ_URL"] = ""
        moved = daemon.log.count("queue.moved")
        daemon.start("--actors", "alliance")
        wait_until(lambda: has(*others), 20, lambda: daemon.log)
        assert daemon.stop() == 0

        # A start in the same place moves nothing
        daemon.start(*quiet)
        assert daemon.log.count("queue.moved") <= moved + 1
        assert daemon.stop() == 0
    finally:
        daemon.end()
        store.close()
