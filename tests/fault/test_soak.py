"""A random soak: faults by a seed that is printed, and everything that was accepted is there at the end."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esid.store import dead_letters
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.fault.soak import Soak
from tests.tools.servers import Postgres, PrivatePostgres
from tests.tools.stacks import STACKS, Stack


@pytest.fixture
def secret_stack(main_stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """A stack whose database has a password, where it can have one."""
    if main_stack.database_url.startswith("sqlite"):
        return main_stack
    server: Postgres = request.getfixturevalue("postgres")
    name = main_stack.database_url.rpartition("/")[2]
    return dataclasses.replace(main_stack, database_url=server.password_url(name))


@pytest.fixture
def esi() -> Iterator[FakeEsi]:
    """ESI with a short error window."""
    with FakeEsi(World(), error_window_s=5) as server:
        yield server


def soak(stack: Stack, esi: FakeEsi, store: Store, tmp_path: Path, messages: int, faults: int, deadline_s: float) -> None:
    """A life full of faults; its summary is printed."""
    seed = os.environ.get("SOAK_SEED") or os.urandom(4).hex()
    print(f"SOAK_SEED={seed}")
    # Given messages of one id each
    corporations, alliances = messages * 6 // 10, messages // 10
    esi.world.__dict__.update(
        World.generate(alliances, corporations, messages - corporations - alliances, seed=1, npc_corporations=1).__dict__
    )
    trouble = Soak(stack, esi, store, tmp_path / "data", tmp_path / "pages", seed)
    wanted = checker.sent(esi.world)
    for entity, ids in wanted.items():
        for start in range(0, len(ids), at_once := max(1, messages // 500)):
            checker.enqueue(trouble.daemon, store, {entity: sorted(ids)[start : start + at_once]})
    started, killed = time.monotonic(), 0
    try:
        # When so many faults happen to it, all of them while it is at work (8 threads, a fault each 1.5 s)
        trouble.latency_s = 8 * 1.5 * faults / messages
        trouble.run(faults, 0.5, 2.0)
        esi.latency_s = 0.0
        checker.wait_for_drain(trouble.daemon, store, deadline_s)
        killed = checker.ask_again_for_killed(trouble.daemon, store, 60)

        # Then nothing is lost, doubled, impolite or told to the world
        checker.check(store, esi, trouble.daemon, wanted)
        log = trouble.daemon.log
        assert log.count(".away") <= 4 * faults, log[-5000:]
        with store.connection():
            texts = [str(store.rows(f"SELECT * FROM {table}")) for table in ("dead_letters", "memos", "sync_jobs")]
        texts += [log, trouble.daemon.ok("status", "--json"), trouble.daemon.ok("config")]
        checker.assert_no_secret([PrivatePostgres.password], texts)
        assert dead_letters.find(store, Filter()) == []
        assert trouble.daemon.stop() == 0
    finally:
        trouble.close()
        print(
            f"seed {seed} on {stack.name}: {messages} messages, {dict(trouble.done)}, {len(esi.log)} requests "
            f"({checker.repeated(esi).total()} asked again), {killed} ids given up and asked for again, "
            f"{time.monotonic() - started:.0f} s"
        )


@pytest.mark.quick_on(STACKS[1])
def test_a_short_soak(secret_stack: Stack, esi: FakeEsi, store: Store, tmp_path: Path) -> None:
    soak(secret_stack, esi, store, tmp_path, messages=500, faults=20, deadline_s=120)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("number", range(3))
def test_a_long_soak(secret_stack: Stack, esi: FakeEsi, store: Store, tmp_path: Path, number: int) -> None:
    soak(secret_stack, esi, store, tmp_path, messages=20_000, faults=400, deadline_s=1800)
