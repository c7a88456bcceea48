"""The supervisor: what dies is replaced, what cannot start or hangs is said, and nobody works on without it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from esid.store import notes
from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Daemon, Make
from tests.tools.processes import processes, worker
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

SQLITE, RABBITMQ = STACKS[:2]
both = pytest.mark.parametrize("main_stack", [SQLITE, RABBITMQ], indirect=True)
sqlite_only = pytest.mark.parametrize("main_stack", [SQLITE], indirect=True)
#: A daemon may be killed more often here than where deaths mean that something is wrong.
NEVER_GIVE_UP = {"ESID_TEST_PATCH": "esid.daemon.child:MOST_DEATHS=100;esid.store.recoveries:WAITS_S=(0.0, 1.0, 1.0)"}


def kill_workers(daemon: Daemon, esi: FakeEsi, times: int) -> None:
    """Kill a random worker again and again while there is work; each is replaced within 2 s."""
    dice = random.Random(seed := os.urandom(4).hex())
    for number in range(times):
        before = daemon.children()
        victim = dice.choice(daemon.workers())
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda before=before: len(daemon.children().keys() - before.keys()) == 1,
            2.0,
            lambda number=number: f"the replacement {number} (seed {seed}): {daemon.log[-2000:]}",
        )
        until = time.monotonic() + dice.uniform(0.2, 1.0)
        wait_until(lambda until=until: time.monotonic() >= until, 2, "a random moment")


def wait_for_workers(daemon: Daemon, count: int) -> None:
    """Until so many workers work."""
    wait_until(lambda: len(daemon.workers()) >= count, 20, lambda: f"workers: {daemon.log}")


@pytest.mark.parametrize("main_stack", [RABBITMQ], indirect=True)
def test_no_connection_crosses_the_fork(make_daemon: Make, store: Store) -> None:
    daemon = make_daemon().start()
    assert daemon.process
    # What the supervisor had opened before the first fork and has not closed, every child has too
    descriptors = Path(f"/proc/{daemon.process.pid}/fd").iterdir()
    assert [name for one in descriptors if (name := str(one.readlink())).startswith("socket:")] == []
    assert daemon.stop() == 0


@both
@pytest.mark.quick_on(RABBITMQ)
def test_workers_killed_again_and_again_cost_no_row(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    daemon = make_daemon(hooks=NEVER_GIVE_UP, ESID_PROCESSES="2", ESID_THREADS="8")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    esi.latency_s = 0.1
    daemon.start()
    wait_for_workers(daemon, 2)
    for _ in range(4):
        kill_workers(daemon, esi, 1)
        wait_for_workers(daemon, 2)
    esi.latency_s = 0.0
    checker.wait_for_drain(daemon, store, 90)
    checker.check(store, esi, daemon, wanted)
    # And the deaths are counted where `esid status` finds them
    wait_until(
        lambda: notes.restarts(store) == {"worker": 4}, 10, lambda: f"4 restarts, not {notes.restarts(store)}: {daemon.log}"
    )
    assert json.loads(daemon.ok("status", "--json"))["restarts"] == {"worker": 4}
    assert "restarts    4 x worker" in daemon.ok("status")
    assert daemon.stop() == 0


@sqlite_only
@pytest.mark.parametrize("child", ["worker", "scheduler"])
def test_a_child_that_cannot_start_ends_the_daemon_at_once_with_the_cause(
    make_daemon: Make, store: Store, child: str
) -> None:
    daemon = make_daemon(hooks={"ESID_TEST_BOOT": child})
    before = time.monotonic()
    daemon.spawn()
    assert daemon.wait(15) == 70
    assert time.monotonic() - before < 10  # 5 s, and the start of Python on a busy machine
    assert processes(daemon) == set()
    assert daemon.log.count("daemon.child_failed") == 1  # no loop
    assert "ImportError: No module named 'gone'" in daemon.log
    assert daemon.log.count("daemon.gives_up") == 1
    assert "cannot start" in daemon.log


@sqlite_only
def test_the_sixth_death_within_a_minute_ends_the_daemon(make_daemon: Make, store: Store) -> None:
    daemon = make_daemon()
    daemon.start()
    for number in range(6):
        wait_for_workers(daemon, 1)
        before = daemon.children()
        os.kill(worker(daemon), signal.SIGKILL)
        if number < 5:
            wait_until(lambda before=before: len(daemon.children().keys() - before.keys()) == 1, 5, "a replacement")
    assert daemon.wait(15) == 70
    assert "worker-1 died 6 times within 60 s" in daemon.log
    assert processes(daemon) == set()


@sqlite_only
def test_a_child_that_cannot_be_replaced_is_tried_again_and_the_supervisor_hears_all_the_same(
    make_daemon: Make, store: Store, tmp_path: Path
) -> None:
    # Given a system that makes no process when a worker dies
    gate = tmp_path / "no fork"
    daemon = make_daemon(hooks={"ESID_TEST_NO_FORK": str(gate)})
    daemon.start()
    wait_for_workers(daemon, 1)
    gate.touch()
    os.kill(worker(daemon), signal.SIGKILL)
    wait_until(lambda: "daemon.child_missing" in daemon.log, 10, lambda: daemon.log)
    assert "worker-1 cannot be started: the system makes no process" in daemon.log

    # Then it is replaced as soon as there may be one
    gate.unlink()
    wait_for_workers(daemon, 1)

    # And a stop ends the others while it is missing
    said = daemon.log.count("daemon.child_missing")
    gate.touch()
    os.kill(worker(daemon), signal.SIGKILL)
    wait_until(lambda: daemon.log.count("daemon.child_missing") > said, 10, lambda: daemon.log)
    daemon.signal(signal.SIGQUIT)
    assert daemon.wait(5) == 0
    assert processes(daemon) == set()


@sqlite_only
def test_a_daemon_without_room_for_its_children_does_not_start_and_says_why(
    make_daemon: Make, store: Store, tmp_path: Path
) -> None:
    gate = tmp_path / "no fork"
    gate.touch()
    daemon = make_daemon(hooks={"ESID_TEST_NO_FORK": str(gate)})
    daemon.spawn()
    assert daemon.wait(15) == 70
    assert "worker-1 cannot be started: the system makes no process" in daemon.log
    assert "TasksMax=" in daemon.log
    assert "Traceback" not in daemon.log


@sqlite_only
def test_a_worker_that_hangs_says_where_and_is_replaced(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    # Given an id on which a thread takes the interpreter and never gives it back
    key = min(world.alliances)
    hooks = {"ESID_TEST_POISON": f"alliance:{key}:hang", "ESID_TEST_PATCH": PATIENT}
    daemon = make_daemon(hooks=hooks)
    daemon.ok("enqueue", "alliance", str(key))
    daemon.start("--no-scheduler")

    # Then the supervisor notices, has it print its threads, and replaces it
    wait_until(lambda: "daemon.child_replaced" in daemon.log, 30, lambda: daemon.log)
    assert "worker-1 hangs: nothing heard of its main thread" in daemon.log
    assert "Fatal Python error: Aborted" in daemon.log
    assert "sitecustomize.py" in daemon.log.partition("Fatal Python error")[2]  # where it stood
    daemon.signal(signal.SIGQUIT)
    assert daemon.wait(5) == 0


PATIENT = "esid.daemon.child:SILENT_S=2.0;esid.daemon.child:TRACE_S=0.5"


@sqlite_only
def test_a_worker_that_is_frozen_is_replaced_and_its_work_is_done(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    daemon = make_daemon(hooks={"ESID_TEST_PATCH": PATIENT})
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    esi.latency_s = 0.2
    daemon.start("--threads", "4")
    wait_for_workers(daemon, 1)
    os.kill(worker(daemon), signal.SIGSTOP)
    wait_until(lambda: "daemon.child_hangs" in daemon.log, 20, lambda: daemon.log)
    esi.latency_s = 0.0
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0


@sqlite_only
def test_a_daemon_that_was_frozen_as_a_whole_goes_on_and_kills_nobody(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    daemon = make_daemon(hooks={"ESID_TEST_PATCH": PATIENT})
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start("--threads", "4")
    wait_for_workers(daemon, 1)
    children = daemon.children()

    # When all of it stands still for longer than a child may be silent
    daemon.signal(signal.SIGSTOP, group=True)
    until = time.monotonic() + 5
    wait_until(lambda: time.monotonic() >= until, 6, "five seconds")
    daemon.signal(signal.SIGCONT, group=True)

    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert "daemon.child_hangs" not in daemon.log
    assert daemon.children() == children
    assert daemon.stop() == 0


@sqlite_only
def test_sigquit_ends_it_at_once_and_nothing_is_lost(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    hanging = esi.faults.add("/", hang_s=60)
    daemon = make_daemon()
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start()
    wait_until(lambda: hanging.hits >= 3, 15, "requests that hang")
    daemon.signal(signal.SIGQUIT)
    assert daemon.wait(8) == 0
    assert processes(daemon) == set()
    esi.faults.clear()
    daemon.start()
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0


@sqlite_only
def test_sighup_says_that_a_restart_is_needed_and_changes_nothing(make_daemon: Make, store: Store) -> None:
    daemon = make_daemon().start()
    children = daemon.children()
    daemon.signal(signal.SIGHUP, group=True)
    wait_until(lambda: "daemon.no_reload" in daemon.log, 10, lambda: daemon.log)
    assert daemon.children() == children
    assert daemon.stop() == 0


#: How a daemon is started from a terminal, and whether it is to end with it.
IN_FOREGROUND, FROM_A_SHELL, TOLD_TO_STAY = (), ("sh", "-c", '"$@" & wait', "sh"), ("nohup",)


@sqlite_only
@pytest.mark.parametrize("words", [IN_FOREGROUND, FROM_A_SHELL, TOLD_TO_STAY])
def test_a_daemon_ends_with_the_terminal_it_was_started_from(make_daemon: Make, words: tuple[str, ...]) -> None:
    daemon, (master, terminal) = make_daemon(), os.openpty()
    window = os.fdopen(master, "rb", buffering=0)
    with (daemon.directory / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            ["setsid", "--ctty", *words, sys.executable, "-m", "esid", "run"],
            env=daemon.environment,
            cwd=daemon.directory,
            stdin=terminal,
            stdout=log,
            stderr=log,
        )
    os.close(terminal)
    try:
        wait_until(lambda: "daemon.started" in daemon.log, 20, lambda: daemon.log)
        # When the session ends with who leads it, the kernel tells of it before it takes the terminal away
        if words == FROM_A_SHELL:
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        else:
            window.close()
        if words == TOLD_TO_STAY:
            wait_until(lambda: "daemon.no_reload" in daemon.log, 10, lambda: daemon.log)
            assert daemon.stop() == 0
            assert "daemon.terminal_closed" not in daemon.log
        else:
            wait_until(lambda: processes(daemon) == set(), 10, lambda: daemon.log)
            assert re.search("terminal_closed.*daemon.stopped", daemon.log, re.DOTALL)
    finally:
        window.close()
        with suppress(ProcessLookupError):
            os.killpg(daemon.process.pid, signal.SIGKILL)


@sqlite_only
@pytest.mark.parametrize("how", ["full", "closed"])
def test_a_log_that_nobody_reads_stops_no_work(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, how: str
) -> None:
    # Given a pipe that is full (or has no reader any more), and a daemon that has much to say
    reader, writer = os.pipe()
    daemon = make_daemon(ESID_LOG_LEVEL="DEBUG")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.spawn(stderr=writer)
    if how == "closed":
        os.close(reader)
    else:
        fill(writer)

    # Then everything is done all the same
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0
    os.close(writer)


def fill(writer: int) -> None:
    """Until the pipe takes no more; through a description of its own, so that the daemon's stays a blocking one."""
    own = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(own, b"x" * 4096)
    os.close(own)


@pytest.mark.long
@pytest.mark.timeout(1200)
@both
def test_killed_long(make_daemon: Make, esi: FakeEsi, store: Store) -> None:
    # 20 kills of a random worker, 5 of the supervisor, under load
    esi.world = esi._answering._world = world = World.generate(alliances=60, corporations=400, characters=900)
    wanted = checker.sent(world)
    daemon = make_daemon(hooks=NEVER_GIVE_UP, ESID_PROCESSES="2", ESID_THREADS="8")
    checker.enqueue(daemon, store, wanted)
    esi.latency_s = 0.1
    daemon.start()
    for _ in range(20):
        wait_for_workers(daemon, 2)
        kill_workers(daemon, esi, 1)
    for _ in range(5):
        wait_for_workers(daemon, 2)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        wait_until(lambda: not processes(daemon), 10, "the end of all children")
        daemon.start()
    esi.latency_s = 0.0
    checker.wait_for_drain(daemon, store, 400)
    checker.ask_again_for_killed(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0
