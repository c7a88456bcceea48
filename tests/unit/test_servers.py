"""The private servers start, crash, come back with their data, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pika
import psycopg2
import pytest

from tests.tools import servers
from tests.tools.servers import PrivatePostgres, PrivateRabbitmq
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[PrivateRabbitmq]:
    with PrivateRabbitmq() as server:
        yield server


def query(url: str, sql: str) -> list[tuple]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def processes_using(directory: Path) -> list[str]:
    """The command lines and environments of living processes that name the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in text:
            found.append(text.decode(errors="replace"))
    return found


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_keeps_its_data_over_a_restart(postgres: PrivatePostgres, mode: str) -> None:
    name = postgres.create_database()
    query(postgres.url(name), "CREATE TABLE t AS SELECT 1 AS a")
    with pytest.raises(psycopg2.ProgrammingError):
        query(postgres.url(name), "SELECT no_such_column FROM t")
    assert "no_such_column" in postgres.log_of(name)
    assert postgres.log_of(name[:-1]) == ""
    postgres.stop(mode)
    with pytest.raises(psycopg2.OperationalError):
        query(postgres.url(name), "SELECT 1")
    postgres.start()
    assert query(postgres.url(name), "SELECT a FROM t") == [(1,)]


def test_postgres_checks_the_password(postgres: PrivatePostgres) -> None:
    name = postgres.create_database()
    assert query(postgres.password_url(name), "SELECT current_user") == [("secretrole",)]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(postgres.password_url(name, "wr@ng/pw"), "SELECT 1")


def test_a_dropped_database_is_gone_even_when_in_use(postgres: PrivatePostgres) -> None:
    name = postgres.create_database()
    connection = psycopg2.connect(postgres.url(name))
    postgres.drop_database(name)
    connection.close()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        query(postgres.url(name), "SELECT 1")


def test_rabbitmq_keeps_durable_messages_over_a_stop_and_a_crash(rabbitmq: PrivateRabbitmq) -> None:
    # A queue that was declared just before a crash may be lost: RabbitMQ 3.10 writes definitions later
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        connection.channel().queue_declare("q", durable=True)
    rabbitmq.stop()
    rabbitmq.start()
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"hello", pika.BasicProperties(delivery_mode=2))
    rabbitmq.kill()
    rabbitmq.start()
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        assert connection.channel().basic_get("q", auto_ack=True)[2] == b"hello"


def test_close_leaves_no_process_and_no_file() -> None:
    server = PrivatePostgres().start()
    assert processes_using(server.directory)
    server.close()
    wait_until(lambda: not processes_using(server.directory), 5, "all processes to end")
    assert not server.directory.exists()


def test_an_interrupted_run_leaves_no_process_and_no_file() -> None:
    script = """
        import sys, threading
        from tests.tools.servers import PrivatePostgres, PrivateRabbitmq
        for each in (PrivatePostgres(), PrivateRabbitmq()):
            print(each.start().directory, flush=True)
        print("ready", flush=True)
        threading.Event().wait()
    """
    root = Path(__file__).absolute().parents[2]
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        directories = []
        while (line := run.stdout.readline().strip()) != "ready":
            assert line, "the script ended early"
            directories.append(Path(line))
        run.send_signal(signal.SIGINT)
        run.wait(30)
    for directory in directories:
        wait_until(lambda each=directory: not processes_using(each), 5, "all processes to end")
        assert not directory.exists()


def test_a_missing_package_is_named() -> None:
    with pytest.raises(RuntimeError, match="apt install nothing-such"):
        servers._newest("/usr/lib/nothing-*/bin", "nothing", "nothing-such")
