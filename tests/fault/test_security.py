"""What such a daemon must not do: fetch where data tell it, build SQL from text, show secrets, run pickles, open doors."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from esid.queue.broker import open_broker, queue_name
from esid.queue.rabbitmq import RabbitBroker
from esid.store import dead_letters, ledger, messages
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import ROOT, Daemon, Make
from tests.tools.ports import free_ports
from tests.tools.processes import processes, worker
from tests.tools.servers import Postgres
from tests.tools.stacks import STACKS
from tests.tools.waiting import wait_until

sqlite_only = pytest.mark.parametrize("main_stack", [STACKS[0]], indirect=True)
at_scale = pytest.mark.parametrize("main_stack", [STACKS[1]], indirect=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254", "file:///etc/passwd", "http://esi.evetech.net", "https://evil.example",
        "https://user:pass@esi.evetech.net", "https://esi.evetech.net@evil.example", "https://esi.evetech.net/../x?y=1",
        "gopher://esi.evetech.net", "https://esi.evetech.net.evil.example", "//esi.evetech.net",
    ],
)  # fmt: skip
def test_a_base_url_that_is_not_esi_is_refused_at_start(tmp_path: Path, url: str) -> None:
    daemon = Daemon({"ESID_DATA_DIR": str(tmp_path), "ESI_CONTACT": "a@example.com", "ESI_BASE_URL": url})
    ran = daemon.run("run")
    assert ran.code == 78
    assert "ESI_BASE_URL" in ran.err
    assert "pass@" not in ran.err
    assert list(tmp_path.glob("esid*")) == []


@sqlite_only
def test_a_redirect_to_another_host_is_not_followed(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    # Given another server, where nobody has to be asked
    with FakeEsi(World()) as trap:
        key = min(world.corporations)
        esi.faults.add(f"/corporations/{key}", exact=True, redirect=f"{trap.base_url}/corporations/{key}")
        daemon = make_daemon()
        checker.enqueue(daemon, store, {"corporation": [key]})
        daemon.start("--no-scheduler")
        # It is no id's own: it is asked again, and nobody is dead
        error = "SELECT error FROM sync_jobs WHERE error LIKE 'http_302%%'"
        wait_until(lambda: store.run(lambda: store.rows(error, ())), 20, lambda: daemon.log)
        assert dead_letters.find(store, Filter()) == []
        assert trap.log == []


@pytest.mark.parametrize("typed", ["1; DROP TABLE characters", "../../status", "١٢٣"])
def test_what_is_no_id_reaches_neither_url_nor_sql(tmp_path: Path, typed: str) -> None:
    ran = Daemon({"ESID_DATA_DIR": str(tmp_path)}, is_set_up=True).run("enqueue", "character", "--", typed)
    assert ran.code == 2
    assert list(tmp_path.iterdir()) == []


NO_IDS: list[object] = [
    ["1; DROP TABLE sync_jobs"], [True], [1.5], [None], [-1], [2**63], ["7"], [[1]], [], {"a": 1}, "12",
    list(range(1, 1002)),
]  # fmt: skip


def test_messages_with_ids_that_are_none_are_dead_letters(make_daemon: Make, esi: FakeEsi, store: Store) -> None:
    daemon = make_daemon()
    right = {"actor_name": "corporation", "kwargs": {}, "options": {}, "message_id": "m", "message_timestamp": 1}
    right["queue_name"] = queue_name(daemon.settings["ESID_QUEUE_PREFIX"], "corporation")
    wrong = [{"args": [ids]} for ids in NO_IDS] + [{"args": []}, {"args": [[1], [2]]}, {"args": [[1]], "kwargs": {"a": 1}}]
    for one in wrong:
        put(daemon, store, json.dumps({**right, **one}).encode())
    daemon.start("--no-scheduler")
    wait_until(lambda: sum(one.count for one in dead_letters.find(store, Filter())) == len(wrong), 20, "all of them")
    assert {letter.reason for letter in dead_letters.find(store, Filter())} == {"bad_message"}
    assert esi.log == []
    assert "daemon.child_replaced" not in daemon.log


def put(daemon: Daemon, store: Store, body: bytes) -> None:
    """Bytes on the queue of corporations."""
    prefix = daemon.settings["ESID_QUEUE_PREFIX"]
    broker = open_broker(store, daemon.settings["RABBITMQ_URL"], prefix)
    broker.check()
    if isinstance(broker, RabbitBroker):
        broker.channel.basic_publish("", queue_name(prefix, "corporation"), body)
        broker.close()
    else:
        messages.put(store, [(queue_name(prefix, "corporation"), 0, body.decode("latin-1"), 0.0)])


class Bomb:
    """What a pickle may do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


def test_a_pickle_on_the_queue_is_a_dead_letter_and_runs_nothing(make_daemon: Make, store: Store, tmp_path: Path) -> None:
    daemon = make_daemon()
    put(daemon, store, pickle.dumps(Bomb(tmp_path / "executed"), protocol=0))
    daemon.start("--no-scheduler")
    (letter,) = wait_until(lambda: dead_letters.find(store, Filter()), 20, lambda: daemon.log)
    assert letter.reason == "bad_message"
    assert not (tmp_path / "executed").exists()


@at_scale
def test_no_secret_stands_anywhere_that_others_can_read(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, postgres: Postgres
) -> None:
    # Given a password in the database's URL
    name = urlsplit(store.url).path.lstrip("/")
    (port,) = free_ports(1)
    daemon = make_daemon(
        DATABASE_URL=postgres.password_url(name), ESID_LOG_LEVEL="DEBUG", ESID_HTTP_LISTEN=f"127.0.0.1:{port}"
    )
    esi.faults.add(f"/corporations/{min(world.corporations)}", exact=True, body=b"<html>")
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    daemon.start()
    checker.wait_for_drain(daemon, store, 60)
    # And a fault that quotes the database's own words
    with store.connection():
        store.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secretrole' "
                   "AND datname = current_database()")  # fmt: skip

    texts = [daemon.ok(*command.split()) for command in ("status --json", "config", "config --json", "dead list --json")]
    texts += [daemon.ok("show", "corporation", str(max(world.corporations))), get(port, "/status"), get(port, "/readyz")]
    for pid in processes(daemon):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        texts.append(command)
        assert stat.S_IMODE(Path(f"/proc/{pid}/environ").stat().st_mode) & 0o077 == 0
    assert daemon.stop() == 0
    checker.assert_no_secret([postgres.password], [*texts, daemon.log])


def get(port: int, path: str) -> str:
    """A page of the status server."""
    http = HTTPConnection("127.0.0.1", port, timeout=20)
    http.request("GET", path)
    text = http.getresponse().read().decode()
    http.close()
    return text


@sqlite_only
def test_what_it_writes_is_for_its_user_alone(make_daemon: Make, store: Store, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    daemon = make_daemon().start()
    data = tmp_path / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in data.iterdir()} == dict.fromkeys(
        (path.name for path in data.iterdir()), 0
    )
    assert daemon.stop() == 0


def test_an_env_file_with_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    daemon = Daemon({"ESID_DATA_DIR": str(tmp_path)})
    env = daemon.directory / ".env"
    env.write_text("DB_HOST=127.0.0.1\nDB_PASSWORD=hunter2\n")
    env.chmod(0o644)
    ran = daemon.run("run")
    assert ran.code == 78
    assert "chmod 600" in ran.err
    assert "hunter2" not in ran.err


@pytest.fixture
def listening(make_daemon: Make, store: Store) -> tuple[Daemon, int]:
    """A daemon with its status server."""
    (port,) = free_ports(1)
    return make_daemon(ESID_HTTP_LISTEN=f"127.0.0.1:{port}").start(), port


@sqlite_only
def test_no_port_is_open_but_the_one_on_loopback(listening: tuple[Daemon, int]) -> None:
    daemon, port = listening
    links = []
    for pid in processes(daemon):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed while we looked
                links.append(str(link.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.add(fields[1])
    assert found == {f"0100007F:{port:04X}"}


@sqlite_only
def test_the_status_server_obeys_nobody_and_outlives_the_slow(
    listening: tuple[Daemon, int], esi: FakeEsi, world: World, store: Store
) -> None:
    daemon, port = listening
    # Given fifty clients that never end their request
    slow = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(50)]
    for client in slow:
        client.sendall(b"GET /status HTTP/1.1\r\nX-Slow: ")
    for head in (
        b"POST /status HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"\0\xff\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(head)
            answer = client.recv(1000)
            assert b" 200 " not in answer
            assert b"Traceback" not in answer
    # Then others are answered and the work goes on
    assert json.loads(get(port, "/healthz")) == {"alive": True}
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    checker.wait_for_drain(daemon, store, 60)
    for client in slow:
        client.close()
    assert daemon.stop() == 0


@sqlite_only
@pytest.mark.parametrize(
    "fault",
    [{"gzip_bomb": 200 * 2**20}, {"body": b"[" * 3_000_000}, {"body": b'{"name":' + b"7" * 200_000 + b"}"}],
    ids=["gzip of 200 MB", "deep", "digits"],
)
def test_a_bomb_costs_little_memory_and_is_a_dead_letter(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store, fault: dict[str, object]
) -> None:
    key = min(world.corporations)
    daemon = make_daemon().start("--no-scheduler")
    other = max(world.corporations)
    checker.enqueue(daemon, store, {"corporation": [other]})
    wait_until(lambda: ledger.job(store, "corporation", other)["status"] == "completed", 20, "another one")  # type: ignore[index]
    pid = worker(daemon)
    before = peak_kb(pid)
    esi.faults.add(f"/corporations/{key}", exact=True, **fault)
    esi.faults.add(f"/corporations/{key}", exact=True, **fault)
    checker.enqueue(daemon, store, {"corporation": [key]})
    wait_until(lambda: esi.count(prefix=f"/corporations/{key}") >= 1, 20, lambda: daemon.log)
    wait_until(lambda: dead_letters.find(store, Filter()) or waits(store, key), 20, lambda: daemon.log)
    assert peak_kb(pid) - before < 64 * 1024
    assert worker(daemon) == pid
    assert daemon.stop() == 0


def waits(store: Store, key: int) -> bool:
    """True when an id has failed and waits for another attempt."""
    with store.connection():
        return bool(store.rows("SELECT 1 FROM sync_jobs WHERE entity_id = %s AND retry_count > 0", (key,)))


def peak_kb(pid: int) -> int:
    """The most memory that a process ever had."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


@sqlite_only
def test_few_file_descriptors_are_an_error_or_enough(make_daemon: Make, esi: FakeEsi, world: World, store: Store) -> None:
    # Given 64 of them for each process
    daemon = make_daemon(ESID_THREADS="8")
    daemon.spawn()
    assert daemon.process
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    wait_until(lambda: "daemon.started" in daemon.log, 30, lambda: daemon.log)
    wanted = checker.sent(world)
    checker.enqueue(daemon, store, wanted)
    checker.wait_for_drain(daemon, store, 60)
    checker.check(store, esi, daemon, wanted)
    assert daemon.stop() == 0


def test_the_unit_file_scores_well() -> None:
    unit = ROOT / "contrib" / "systemd" / "esid.service"
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    ran = subprocess.run(command, capture_output=True, check=False)
    with suppress(UnicodeDecodeError):
        assert ran.returncode == 0, ran.stdout.decode()[-2000:]
