"""How a daemon ends, survives and shares: signals, killed processes, parts of the work, two daemons, the status server."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from esid.entities.base import IDS_PER_MESSAGE
from esid.store import ledger
from esid.store.connection import Store
from esid.store.drivers import sqlite_path
from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import Daemon
from tests.tools.ports import free_ports
from tests.tools.processes import ended, processes, worker
from tests.tools.servers import Postgres
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until
from tests.tools.work import ask_for_everything, open_jobs, wait_for_work, wait_for_world

SQLITE, RABBITMQ = STACKS[0], STACKS[1]
#: Seconds: a daemon that was told to stop is gone; one that was killed has been replaced, or has taken its children along.
STOPPED_S, REPLACED_S = 10.0, 2.0
#: Signals one after the other, and whether the whole process group gets them, as from systemd and pm2.
WAYS = (
    ("SIGTERM", [signal.SIGTERM], False),
    ("SIGINT", [signal.SIGINT], False),
    ("SIGTERM three times", [signal.SIGTERM] * 3, False),
    ("SIGTERM to the group", [signal.SIGTERM], True),
    ("SIGINT and SIGTERM to the group", [signal.SIGINT, signal.SIGTERM], True),
)


@pytest.fixture
def store(daemon: Daemon, stack: Stack) -> Iterator[Store]:
    """The daemon's database, with the schema in it."""
    daemon.ok("migrate")
    opened = Store(stack.database_url, pool_size=2)
    yield opened
    opened.close()


# -- stopping


@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
@pytest.mark.quick_on(SQLITE)
def test_however_it_is_stopped_it_ends_in_time_and_loses_nothing(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given a world that was asked for, and an ESI that takes its time
    ask_for_everything(daemon, world)
    esi.latency_s = 0.3
    for way, numbers, to_group in WAYS:
        daemon.start("--threads", "4")
        wait_for_work(esi)

        # When it is told to stop in the middle of its work
        told_at = time.time()
        for number in numbers:
            daemon.signal(number, group=to_group)

        # Then it ends well and in time, with all of its processes, and begins nothing more
        assert ended(daemon, STOPPED_S, way) == 0, (way, daemon.log[-2000:])
        assert [request for request in esi.log if request.at > told_at + 1] == [], way

    # And what is left is done after the next start
    esi.latency_s = 0
    daemon.start()
    wait_for_world(daemon, store, world)
    assert esi.early() == []
    assert daemon.stop() == 0


def spawn(daemon: Daemon) -> None:
    """Start `esid run` and wait for nothing."""
    with (daemon.directory / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "esid", "run"],
            env=daemon.environment,
            cwd=daemon.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@pytest.mark.parametrize("to_group", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
@pytest.mark.takes_turns("to_group")
def test_a_stop_while_it_starts_ends_it_in_time_too(daemon: Daemon, store: Store, tmp_path: Path, to_group: bool) -> None:
    # Given the moment at which it takes its lock: it has begun, and no child runs yet
    data = tmp_path / "data"
    assert not list(data.glob("*.lock"))
    spawn(daemon)
    wait_until(lambda: list(data.glob("*.lock")), 10, "the lock", every_s=0.001)

    # When it is told to stop
    daemon.signal(signal.SIGTERM, group=to_group)

    assert ended(daemon, STOPPED_S, "the lock") == 0


@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
def test_a_stop_at_any_moment_of_the_start_leaves_no_child_and_no_lock(daemon: Daemon, store: Store) -> None:
    for moment in sorted(random.Random(os.urandom(4)).uniform(0, 0.8) for _ in range(4)):
        spawn(daemon)
        at = time.monotonic() + moment
        wait_until(lambda at=at: time.monotonic() >= at, 2, "a random moment", every_s=0.001)
        daemon.signal(signal.SIGTERM)

        # Then it ends by itself, or by the signal where that came before the first line of its own
        assert ended(daemon, STOPPED_S, f"{moment:.3f} s") in {0, -signal.SIGTERM}, (moment, daemon.log)
    daemon.start()
    assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
def test_an_esi_that_hangs_does_not_hold_a_stop_up(daemon: Daemon, esi: FakeEsi, world: World, store: Store) -> None:
    # Given an ESI that answers after a minute
    hanging = esi.faults.add("/", hang_s=60)
    ask_for_everything(daemon, world)
    daemon.start()
    wait_until(lambda: hanging.hits >= 3, 15, "requests that hang")

    daemon.signal(signal.SIGTERM)

    assert ended(daemon, 35, "a stop while ESI hangs") == 0, daemon.log
    # And nothing of it is lost or given up
    esi.faults.clear()
    assert json.loads(daemon.ok("dead", "list", "--json")) == []
    daemon.start()
    wait_for_world(daemon, store, world, 45)


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
@pytest.mark.parametrize("given", [None, "glibc.malloc.arena_max=3", "glibc.pthread.rseq=0"])
def test_threads_keep_no_memory_of_their_own(daemon: Daemon, store: Store, given: str | None) -> None:
    if given:
        daemon.settings["GLIBC_TUNABLES"] = given
    daemon.settings["ESI_UNKNOWN"] = "1"
    daemon.start()
    # glibc parts them with NULs where it finds them
    told = Path(f"/proc/{daemon.process.pid}/environ").read_bytes()  # type: ignore[union-attr]
    assert (given or "glibc").encode() in told
    assert (b"glibc.malloc.tcache_count=0" in told) == ("malloc" not in (given or ""))
    # And who begins anew has said nothing before
    assert daemon.log.count("ESI_UNKNOWN") == 1
    assert daemon.stop() == 0


# -- killed processes


@pytest.mark.parametrize("stack", [RABBITMQ], indirect=True)
def test_a_killed_child_is_replaced_and_the_sync_completes(daemon: Daemon, esi: FakeEsi, world: World, store: Store) -> None:
    # Given a daemon with all three kinds of children at work
    ask_for_everything(daemon, world)
    esi.latency_s = 0.1
    (port,) = free_ports(1)
    daemon.settings["ESID_HTTP_LISTEN"] = f"127.0.0.1:{port}"
    daemon.start()
    wait_for_work(esi)
    killed = daemon.children()
    assert len(killed) == 3

    # When each of them is killed
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    # Then others take over and the work is done
    wait_until(lambda: len(daemon.children().keys() - killed.keys()) == 3, REPLACED_S, "three new children")
    wait_for_world(daemon, store, world)
    assert answer(port, "GET", "/healthz")[0] == 200
    assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
@pytest.mark.quick_on(RABBITMQ)
def test_children_of_a_killed_supervisor_end_and_the_next_start_works_at_once(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    ask_for_everything(daemon, world)
    esi.latency_s = 0.3
    daemon.start()
    wait_for_work(esi)

    # When the supervisor is killed
    daemon.signal(signal.SIGKILL)
    daemon.wait()

    # Then nothing of it works on
    wait_until(lambda: not processes(daemon), REPLACED_S, "the end of all children")
    # And a new daemon works at once, and does the rest: also what was in the hands of the killed
    esi.latency_s = 0
    before = len(esi.log)
    daemon.start()
    wait_until(lambda: len(esi.log) > before, 5, lambda: f"a request: {daemon.log}")
    wait_for_world(daemon, store, world, 45)
    assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
def test_a_child_that_dies_again_and_again_ends_the_daemon(daemon: Daemon, store: Store, tmp_path: Path) -> None:
    # Given a running daemon whose shared budget is no file any more
    daemon.start()
    budget = tmp_path / "data" / "budget-default"
    # (its worker and its schedule have opened it: a child that cannot start ends the daemon at once)
    wait_until(lambda: "schedule.owned" in daemon.log and daemon.workers(), 15, "worker and schedule")
    budget.unlink()
    budget.mkdir()

    # When its worker dies, no new one can live
    os.kill(worker(daemon), signal.SIGKILL)

    # Then the daemon does not try for ever, and says why
    assert daemon.wait(20) == 70
    assert processes(daemon) == set()
    assert f"{budget} cannot be opened" in daemon.log
    assert "daemon.gives_up" in daemon.log


# -- a part of the work


@pytest.mark.parametrize(("stack", "by"), [(SQLITE, "option"), (RABBITMQ, "setting")], indirect=["stack"])
def test_a_daemon_asks_only_for_the_entities_it_was_told(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, by: str
) -> None:
    # Given requests for each kind of entity
    alliance, character = next(iter(world.alliances)), next(iter(world.characters))
    daemon.ok("enqueue", "alliance", str(alliance))
    daemon.ok("enqueue", "character", str(character))
    daemon.ok("enqueue", "killmail", f"12345:{'a' * 40}")

    # When a daemon works on some of them only
    if by == "option":
        daemon.start("--actors", "alliance,corporation")
        wait_until(lambda: open_jobs(store).keys() == {"character", "killmail"}, 20, "the end of the lists", every_s=0.1)
        wanted = {"alliances", "corporations"}
    else:
        daemon.settings["WORKER_TYPES"] = "CHARACTER"
        daemon.start()
        wait_until(lambda: ledger.counts(store).get("character") == {"completed": 1}, 20, "the character", every_s=0.1)
        wanted = {"characters"}
    assert daemon.stop() == 0

    # Then nothing else was asked, and what was asked for waits
    assert {request.path.split("/")[1] for request in esi.log} == wanted
    waiting = {"alliance", "character", "killmail"} - {name.removesuffix("s") for name in wanted}
    assert {
        name: by["pending"] for name, by in ledger.counts(store).items() if name in waiting and "pending" in by
    }.keys() == (waiting)


# -- several daemons


@pytest.mark.parametrize("stack", [RABBITMQ], indirect=True)
def test_two_daemons_on_one_database_share_the_work(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store, tmp_path: Path
) -> None:
    # Given another daemon that has nothing in common with the first but database and broker
    ask_for_everything(daemon, world)
    other = Daemon({**daemon.settings, "ESID_DATA_DIR": str(tmp_path / "other")})
    try:
        spawn(daemon)
        other.start()
        wait_for_world(daemon, store, world)

        # Then what one has asked the other does not
        gets = [request.path for request in esi.requests(method="GET")]
        assert sorted(gets) == sorted(set(gets))
        assert esi.early() == []
        assert (other.stop(), daemon.stop()) == (0, 0)
    finally:
        other.end()


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
def test_answers_that_come_slowly_are_written_before_the_end_of_their_message(
    daemon: Daemon, esi: FakeEsi, world: World, store: Store
) -> None:
    # Given one message with 20 ids, and an ESI that takes its time
    ids = sorted(world.corporations)[:IDS_PER_MESSAGE]
    daemon.ok("enqueue", "corporation", "-", stdin="\n".join(map(str, ids)))
    esi.latency_s = 0.4
    daemon.start("--actors", "corporation", "--no-scheduler")

    def written() -> int:
        with store.connection():
            return int(store.rows("SELECT COUNT(*) FROM corporations")[0][0])

    # Then the first rows are there long before the last answer
    wait_until(lambda: written() > 0, 10, "the first rows")
    assert esi.count("/corporations/") < IDS_PER_MESSAGE / 2
    esi.latency_s = 0.0
    wait_until(lambda: written() == IDS_PER_MESSAGE, 10, "all of them")
    assert esi.count("/corporations/") == IDS_PER_MESSAGE
    assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [STACKS[2]], indirect=True)
def test_threads_that_find_the_same_ids_do_not_deadlock(
    daemon: Daemon, world: World, store: Store, postgres: Postgres
) -> None:
    # Given answers that name one another: characters, their corporations, the alliances of both
    ask_for_everything(daemon, world)

    daemon.start("--threads", "16")
    wait_for_world(daemon, store, world)

    assert "deadlock detected" not in postgres.log_of(urlsplit(store.url).path[1:])
    assert daemon.stop() == 0


# -- the status server


def answer(port: int, method: str, path: str) -> tuple[int, str]:
    """Status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("stack", [SQLITE, RABBITMQ], indirect=True)
def test_the_status_server_answers_who_asks_and_obeys_nobody(daemon: Daemon, store: Store) -> None:
    (port,) = free_ports(1)
    daemon.settings["ESID_HTTP_LISTEN"] = f"127.0.0.1:{port}"
    daemon.start()

    assert answer(port, "GET", "/healthz") == (200, '{"alive": true}\n')
    wait_until(lambda: answer(port, "GET", "/readyz") == (200, '{"ready": true}\n'), 40, "beating workers")
    status, body = answer(port, "GET", "/status")
    assert (status, sorted(json.loads(body)["queues"]["pending"])) == (
        200,
        [f"{daemon.settings['ESID_QUEUE_PREFIX']}.{name}" for name in ("alliance", "character", "corporation", "killmail")],
    )
    assert answer(port, "GET", "/../../etc/passwd")[0] == 404
    assert {answer(port, method, "/status")[0] for method in ("POST", "PUT", "DELETE")} <= {405, 501}
    assert answer(port, "GET", "/" + "x" * 100_000)[0] == 414
    assert answer(port, "GET", "/healthz")[0] == 200
    assert daemon.stop() == 0


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
def test_a_lock_is_held_by_the_kernel_and_not_by_its_text(daemon: Daemon, store: Store, tmp_path: Path) -> None:
    # Given a lock file that names a living process, and garbage
    (path,) = [tmp_path / "data" / "esid.db.lock"]
    path.write_bytes(f"pid {os.getpid()} since for ever\n".encode() + b"\0\xff" * 50)
    assert json.loads(daemon.ok("status", "--json"))["daemon"] is None
    daemon.start()
    assert f"pid {daemon.process.pid} since" in path.read_text(encoding="utf-8")  # type: ignore[union-attr]
    assert daemon.stop() == 0


def rows_of(path: Path) -> dict[str, int]:
    """Table -> how many rows a SQLite file has, read without what lies beside it."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: file.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables}


@pytest.mark.parametrize("stack", [SQLITE], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_after_a_stop_a_copy_of_the_sqlite_file_alone_holds_all_rows(
    daemon: Daemon, store: Store, number: signal.Signals, tmp_path: Path
) -> None:
    """Also while somebody else has the file open."""
    file = sqlite_path(store.url)
    assert store.rows("SELECT COUNT(*) FROM corporations") == [(0,)]
    daemon.start()
    wait_until(lambda: store.rows("SELECT COUNT(*) FROM corporations")[0][0] > 5, 30, "rows")
    daemon.signal(number)
    assert daemon.wait() == 0
    copy = tmp_path / "copy.db"
    copy.write_bytes(file.read_bytes())
    wal = file.with_name(file.name + "-wal")
    assert not wal.exists() or not wal.stat().st_size
    assert rows_of(copy)["corporations"] > 5
    assert {name: store.rows(f"SELECT COUNT(*) FROM {name}")[0][0] for name in rows_of(copy)} == rows_of(copy)
