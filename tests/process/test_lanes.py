"""A lane is one line of the catalogue: queue, lock, schedule, setting and every name follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from esid.store.connection import Store
from esid.store.leader import _CLASS, _key
from tests.fake_esi import FakeEsi
from tests.tools.daemon import HOOKS, ROOT, Daemon
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

LOCKS = f"SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = {_CLASS}"


@pytest.fixture
def laned(main_stack: Stack, esi: FakeEsi, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon, and commands, of an esid whose catalogue has a fifth line and which differs in nothing else."""
    more = {"PYTHONPATH": f"{HOOKS}:{ROOT}", "ESID_TEST_LANES": "war"}
    made = Daemon({**main_stack.environment(tmp_path / "data"), "ESI_BASE_URL": esi.base_url, **more})
    yield made
    made.end()


def test_a_line_of_the_catalogue_is_a_name_of_every_command_and_a_setting(laned: Daemon) -> None:
    assert "work on these only: alliance, corporation, character, killmail, war" in laned.ok("help", "run")
    assert "alliances, corporations, characters, wars, all" in laned.ok("help", "sync")
    assert laned.ok("sync", "WARS") == "wars: everything is fresh or queued\n"
    assert laned.ok("purge", "wa", "--yes").startswith("war: 0 messages deleted")
    assert laned.run("purge", "wer").err.endswith("killmail, war; did you mean war?\n")

    assert "ESID_SCHEDULE_WARS" in laned.ok("config")
    ran = laned.run("config", ESID_SCHEDULE_WARS="often")
    assert (ran.code, "ESID_SCHEDULE_WARS" in ran.err) == (78, True)
    (job,) = [one for one in json.loads(laned.ok("schedule", "--json"))["jobs"] if one["name"] == "sync_war"]
    assert (job["what"], job["setting"], job["schedule"]) == ("wars that are due", "ESID_SCHEDULE_WARS", "2h")
    assert laned.ok("schedule", "run", "sync_war") == "sync_war: nothing was due\n"
    # What people ask for by id is an entity, and a lane is none
    assert "invalid choice: 'war'" in laned.run("enqueue", "war", "1").err


def test_a_line_of_the_catalogue_is_a_queue_a_schedule_and_a_lock(laned: Daemon, main_stack: Stack) -> None:
    laned.start("--actors", "wars")
    wait_until(lambda: "mirroring war from" in laned.log, 30, lambda: laned.log)

    def processes() -> dict[str, dict[str, object]]:
        return {one["kind"]: one for one in json.loads(laned.ok("status", "--json"))["processes"]}

    wait_until(lambda: {"worker", "scheduler"} <= processes().keys(), 30, lambda: laned.log, every_s=0.5)
    assert processes()["worker"]["entities"] == ["war"]
    asking = [name for name in processes()["scheduler"]["jobs"] if name.startswith("sync_")]  # type: ignore[attr-defined]
    assert asking == ["sync_war"]
    depths = json.loads(laned.ok("status", "--json"))["queues"]["pending"]
    assert depths[f"{main_stack.queue_prefix}.war"] == 0

    if main_stack.rabbitmq_url:
        with pika.BlockingConnection(pika.URLParameters(main_stack.rabbitmq_url)) as connection:
            declared = connection.channel().queue_declare(f"{main_stack.queue_prefix}.war", passive=True)
        assert declared.method.consumer_count == 1
        store = Store(main_stack.database_url)
        with store.connection():
            assert (_key("war"),) in store.rows(f"{LOCKS} AND database = (SELECT oid FROM pg_database "
                                                "WHERE datname = current_database())")  # fmt: skip
        store.close()
    else:
        assert main_stack.name == STACKS[0]
    assert laned.stop() == 0
