"""Locks of PostgreSQL whose holder can be asked no more: stopped, or behind a link that is down. They end within 30 s.

And what a statement has waited for is said: who holds the lock, or the standby that does not confirm.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from esid.errors import DatabaseHindered, DatabaseUnavailable
from esid.esi.budget.shares import SHARE_S
from esid.store import connection, drivers, egress, leader, ledger, migrate, notes, pg_deadline
from esid.store.connection import Store
from esid.store.leader import Leadership
from esid.store.model import Seen
from tests.tools.daemon import ROOT
from tests.tools.ports import free_ports
from tests.tools.servers import PrivatePostgres
from tests.tools.waiting import wait_until

spawn = multiprocessing.get_context("spawn")
QUEUES = ("alliance", "corporation")


@pytest.fixture
def store(pg_store: Store) -> Store:
    """A PostgreSQL: what is tested here SQLite does not have."""
    return pg_store


def stand_still() -> None:
    """As a container that is frozen."""
    os.kill(os.getpid(), signal.SIGSTOP)


def lead(store: Store) -> None:
    """Stand still as the owner of the schedule."""
    lead = Leadership(store, QUEUES)
    assert lead.renew() == set(QUEUES)
    stand_still()


def share(store: Store) -> None:
    """Stand still in the middle of an exchange of shares."""

    def meet(_: float, __: Mapping[str, Any]) -> tuple[str, Any]:
        stand_still()
        return "frozen", {}

    egress.exchange(store, "default", meet)


def take(store: Store) -> None:
    """Stand still with jobs in hand that are not committed."""
    store.run(lambda: (ledger.take(store, "corporation", [1, 2]), stand_still()))


def _run(url: str, what: Callable[[Store], None], short_s: int) -> None:
    # Shorter than the figures in force, which the tests look at.
    leader.SILENT_S = short_s
    drivers._SESSION["idle_in_transaction_session_timeout"] = short_s * 1000
    egress._STILL_MS = short_s * 1000
    what(Store(url, pool_size=2))


@pytest.fixture
def frozen(pg_url: str) -> Iterator[Callable[[Callable[[Store], None]], None]]:
    """Lets a process do something until it stands still."""
    made = []

    def freeze(what: Callable[[Store], None]) -> None:
        process = spawn.Process(target=_run, args=(pg_url, what, 2))
        process.start()
        made.append(process)
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", 20, "a process that stands still")

    yield freeze
    for process in made:
        process.kill()
        process.join()


def test_the_figures_in_force_end_every_lock_within_30_s() -> None:
    keepalive_s = sum(drivers._SESSION[f"tcp_keepalives_{name}"] for name in ("idle", "interval"))
    cut_s = keepalive_s + drivers._SESSION["tcp_keepalives_interval"] * drivers._SESSION["tcp_keepalives_count"]
    assert max(cut_s, drivers.IDLE_IN_TRANSACTION_S, leader.SILENT_S, drivers._SESSION["tcp_user_timeout"] / 1000) <= 25
    # Nobody that is awake is taken for one that stands still
    assert leader.SILENT_S > pg_deadline.SOON_S
    # An exchange that stands still costs the others no share
    assert egress._STILL_MS < egress._WAIT_MS < SHARE_S * 1000


def test_the_schedule_of_a_process_that_stands_still_is_taken_over(store: Store, frozen: Any) -> None:
    frozen(lead)
    other = Leadership(store, QUEUES)
    assert other.renew() == set()
    wait_until(lambda: other.renew() == set(QUEUES), 10, "the takeover")
    other.close()


def test_an_exchange_of_shares_that_stands_still_holds_up_nobody(store: Store, frozen: Any) -> None:
    frozen(share)
    met = list[Mapping[str, Any]]()
    egress.exchange(store, "default", lambda now, rows: (met.append(dict(rows)) or "awake", {"at": now}))
    assert met == [{}]


def test_rows_from_before_the_clock_was_set_back_are_repaired_where_they_are_met(store: Store) -> None:
    egress.exchange(store, "default", lambda now, _: ("ahead", {"at": now + 86_400}))

    def meet(now: float, rows: dict[str, Any]) -> tuple[str, Any]:
        rows["ahead"] = {"at": now}
        return "me", {"at": now}

    egress.exchange(store, "default", meet)
    met = list[dict[str, Any]]()
    egress.exchange(store, "default", lambda now, rows: (met.append({"now": now, **rows}) or "me", {"at": now}))
    assert met[0]["ahead"]["at"] < met[0]["now"]


def test_jobs_in_the_hands_of_a_process_that_stands_still_are_free_again(store: Store, frozen: Any) -> None:
    ledger.request(store, [Seen("corporation", key) for key in (1, 2)])
    frozen(take)
    assert [job.id for job in ledger.take(store, "corporation", [1, 2])] == [1, 2]


def test_who_holds_a_lock_is_named(pg_url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a session that nothing ends and that is in the middle of an exchange
    monkeypatch.setattr(egress, "_WAIT_MS", 500)
    monkeypatch.setattr(egress, "_STILL_MS", 0)
    holder, in_hand, release = (
        Store(f"{pg_url}?application_name=somebody", pool_size=1),
        threading.Event(),
        threading.Event(),
    )
    pids = list[int]()

    def meet(_: float, __: Mapping[str, Any]) -> tuple[str, Any]:
        pids.append(holder.rows("SELECT pg_backend_pid()")[0][0])
        in_hand.set()
        release.wait(30)
        return "holder", {}

    thread = threading.Thread(target=lambda: egress.exchange(holder, "default", meet))
    thread.start()
    assert in_hand.wait(10)
    try:
        with pytest.raises(DatabaseHindered, match="a lock was not free in time") as caught:
            egress.exchange(store, "default", lambda now, rows: ("me", {}))
        words = rf"pid {pids[0]} (somebody, 127.0.0.1), idle in transaction for "
        assert words in str(caught.value)
    finally:
        release.set()
        thread.join()
        holder.close()


def test_a_standby_that_does_not_confirm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a primary that waits for a standby which is not there
    monkeypatch.setattr(connection, "_SILENT_S", 1)
    with PrivatePostgres() as server:
        store = Store(server.url(server.create_database()), pool_size=2, statement_s=2)
        migrate.migrate(store)
        server._client("psql", "-qc", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "postgres")
        server._client("psql", "-qc", "SELECT pg_reload_conf()", "postgres")
        wait_until(lambda: store.change("SHOW synchronous_standby_names", ()) == [("nobody",)], 10, "the setting")

        # When something is written, then the words say what is wrong
        with pytest.raises(DatabaseUnavailable, match="synchronous standby: start it") as caught:
            notes.set_memo(store, "a", "1")
        assert "is it running" not in str(caught.value)
        # Its row is locked by a session that waits
        with pytest.raises(DatabaseUnavailable, match="synchronous standby: start it"):
            notes.set_memo(store, "a", "2")
        store.close()


def test_a_statement_that_takes_too_long_is_told_from_a_server_that_is_gone(pg_url: str) -> None:
    store = Store(pg_url, pool_size=1, statement_s=1)
    with pytest.raises(
        DatabaseHindered, match=r"not done in time \(canceling statement due to statement timeout\)"
    ) as caught:
        store.change("SELECT pg_sleep(5)", ())
    assert "cannot be reached" not in str(caught.value)
    store.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port on loopback that answers no SYN: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fill = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
            fill.append(one)
        yield port
        for one in fill:
            one.close()


def test_a_silent_address_costs_five_seconds(silent: int) -> None:
    store, began = Store(f"postgresql://esid@127.0.0.1:{silent}/esid"), time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        ledger.counts(store)
    assert time.monotonic() - began < 9


def test_a_server_that_accepts_and_says_nothing_costs_five_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store, began = Store(f"postgresql://esid@127.0.0.1:{listener.getsockname()[1]}/esid"), time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no answer within 5 s"):
            ledger.counts(store)
        assert 4 < time.monotonic() - began < 9


def test_behind_a_silent_address_of_a_name_the_next_one_is_tried(silent: int, store: Store, pg_url: str) -> None:
    port = store.database.connect_params["port"]
    both = Store(pg_url, pool_size=1)
    both.database.connect_params.update(host="127.0.0.1,127.0.0.1", port=f"{silent},{port}")
    began = time.monotonic()
    assert ledger.counts(both) == {}
    assert time.monotonic() - began < 9
    both.close()


#: Stands on the far side of a link, with everything in hand.
_FAR = """
import sys, time
from esid.store.connection import Store
from esid.store.leader import Leadership
from esid.store import ledger
store = Store(sys.argv[1], pool_size=2)
lead = Leadership(store, ("alliance", "corporation"))
assert lead.renew()
print("ready", flush=True)
store.run(lambda: (ledger.take(store, "corporation", [1, 2]), print("taken", flush=True), time.sleep(90)))
"""


#: A network of four addresses that no other run has at the same time: ours is the first of its two, the host's the second.
_NET = f"10.214.{os.getpid() // 64 % 256}.{os.getpid() % 64 * 4}"
OURS, THEIRS = (_NET.rpartition(".")[0] + f".{int(_NET.rpartition('.')[2]) + number}" for number in (1, 2))


@pytest.fixture
def link() -> Iterator[str]:
    """A network namespace with a link of its own to us."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.fail("needs root and iproute2: apt install iproute2")
    name = f"esid{os.getpid()}"
    ours = f"ve{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
        ip("link", "add", ours, "type", "veth", "peer", "name", "far", "netns", name)
        ip("addr", "add", f"{OURS}/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{THEIRS}/30", "dev", "far")
        ip("-n", name, "link", "set", "far", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", ours], check=False, capture_output=True)


def test_a_host_whose_link_is_cut_loses_its_locks_within_30_s(link: str) -> None:
    # Given a host behind a link that owns the schedule and has jobs in hand, with the figures in force
    (port,) = free_ports(1)
    with PrivatePostgres() as server:
        server.stop()
        with (server._data / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1,{OURS}'\nport = {port}\n")
        with (server._data / "pg_hba.conf").open("a") as hba:
            hba.write(f"host all esid {_NET}/30 trust\n")
        server.port = port
        server.start()
        name = server.create_database()
        store = Store(server.url(name), pool_size=2)
        migrate.migrate(store)
        ledger.request(store, [Seen("corporation", key) for key in (1, 2)])
        far = subprocess.Popen(
            ["ip", "netns", "exec", link, sys.executable, "-c", _FAR, f"postgresql://esid@{OURS}:{port}/{name}"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            assert far.stdout
            assert [far.stdout.readline(), far.stdout.readline()] == [b"ready\n", b"taken\n"]
            other = Leadership(store, QUEUES)
            assert other.renew() == set()

            # When the link goes down, then another host has both within 30 s
            subprocess.run(["ip", "-n", link, "link", "set", "far", "down"], check=True)
            began = time.monotonic()

            def has_both() -> bool:
                with suppress(DatabaseUnavailable):
                    return other.renew() == set(QUEUES) and bool(ledger.take(store, "corporation", [1, 2]))
                return False

            wait_until(has_both, 35, "the takeover")
            assert time.monotonic() - began < 30
            other.close()
        finally:
            far.kill()
            far.communicate()
            store.close()
