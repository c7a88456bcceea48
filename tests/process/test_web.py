"""The status server of a real daemon: health, readiness, metrics, the page; and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from esid.store import counters
from esid.store.connection import Store
from tests.fake_esi import FakeEsi
from tests.tools.daemon import ROOT, Daemon
from tests.tools.ports import free_ports
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

embedded = pytest.mark.parametrize("stack", [STACKS[0]], indirect=True)
STATUS_MD = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
METRICS_MD = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


class Web:
    """The status server of one daemon."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """(status, headers, body)."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()


@pytest.fixture
def web(daemon: Daemon) -> Web:
    """A daemon that has done everything, and its status server."""
    (port,) = free_ports(1)
    daemon.settings |= {"ESID_HTTP_LISTEN": f"127.0.0.1:{port}", "ESID_FEED_URL": "off"}
    daemon.start()
    made = Web(port)
    wait_until(lambda: made.get("/readyz")[0] == 200, 30, lambda: daemon.log)
    return made


def test_prometheus_gets_right_numbers_in_its_own_form(web: Web, daemon: Daemon, esi: FakeEsi) -> None:
    wait_until(lambda: value(web, 'esid_ledger_jobs{entity="alliance",status="completed"}') == 6, 60, lambda: daemon.log)
    wait_until(lambda: value(web, 'esid_ids_total{entity="alliance",result="done"}') >= 6, 60, "the counts of the worker")
    text = web.get("/metrics")[2]
    assert value(web, "esid_esi_requests_total") >= 20
    assert value(web, 'esid_message_duration_seconds_count{entity="alliance"}') >= 1
    assert value(web, 'esid_processes{kind="worker"}') == 1
    ran = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    # Every metric stands in the docs, and no other
    shown = {
        re.sub(r"_total$", "", name) for name in re.findall(r"^# TYPE (\S+) ", text, re.M) if not name.endswith("_created")
    }
    documented = set(re.findall(r"^\| `([a-z_]+?)(?:_total)?` \|", METRICS_MD, re.M))
    assert shown == documented


def value(web: Web, name: str) -> float:
    """One number of /metrics; 0 where it is not there."""
    found = re.findall(rf"^{re.escape(name)} (\S+)$", web.get("/metrics")[2], re.M)
    return float(found[0]) if found else 0.0


@embedded
def test_the_keys_of_the_status_are_those_of_its_doc(web: Web, daemon: Daemon, stack: Stack) -> None:
    store = Store(stack.database_url)
    counters.add(store, {"forgotten:corporation:http_400": 3, "forgotten::bad_message": 2})
    store.close()
    daemon.ok("enqueue", "character", "95999999")
    wait_until(lambda: json.loads(web.get("/status")[2])["dead_letters"], 60, lambda: daemon.log)
    wait_until(lambda: json.loads(web.get("/status")[2])["processes"], 60, lambda: daemon.log)
    documented = set(re.findall(r"^\| `([^`]+)` \|", STATUS_MD, re.M))
    wait_until(lambda: json.loads(web.get("/status")[2])["dead_letters_forgotten"], 10, "what was forgotten is counted")
    assert value(web, 'esid_dead_letters_forgotten_total{entity="corporation",reason="http_400"}') == 3
    assert value(web, 'esid_dead_letters_forgotten_total{entity="",reason="bad_message"}') == 2
    assert "2 bad_message" in daemon.ok("status").partition("were forgotten")[2]
    for state in (json.loads(web.get("/status")[2]), json.loads(daemon.ok("status", "--json"))):
        shown = keys(state)
        assert shown - {"daemon"} <= documented, shown - documented
    assert {name for name in documented if "[]" not in name and "*" not in name} - {"queues.error"} <= shown


def keys(value: Any, path: str = "") -> set[str]:
    """Paths of all keys; * stands for names that are data, [] for the rows of a list."""
    if isinstance(value, list):
        return set().union(*(keys(one, f"{path}[]") for one in value))
    if not isinstance(value, dict):
        return {path}
    named = path in {
        "restarts", "audit", "etag_lies", "queues.pending", "ledger", "oldest_open_s", "freshness", "processes[].held",
        "processes[].jobs",
    }  # fmt: skip
    found = [keys(one, f"{path}.{'*' if named else name}".lstrip(".")) for name, one in value.items()]
    return set().union(*found) if found else {path + ".*"}


@embedded
def test_the_server_is_read_only_and_says_so(web: Web) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"):
        status, headers, _ = web.get("/", method)
        assert (status, headers["Allow"]) == (405, "GET"), method
    status, headers, _ = web.get("/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert web.get("/etc/passwd")[0] == 404
    assert web.get("/../../etc/passwd")[0] == 404
    assert web.get("/" + "x" * 3000)[0] == 414
    # Headers without end are cut off
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(300)) + b"\r\n")
        assert b" 431 " in client.recv(100)


@pytest.mark.parametrize("stack", [STACKS[1]], indirect=True)
def test_a_hung_worker_makes_it_unready(web: Web, daemon: Daemon, stack: Stack) -> None:
    store = Store(stack.database_url)
    with store.connection():
        ((name,),) = store.rows("SELECT name FROM processes WHERE kind = 'worker'")
    os.kill(int(name.split(":")[1]), signal.SIGSTOP)
    # When its beats lie too long back (the supervisor replaces it then, and all is well again)
    with store.connection():
        store.rows("UPDATE processes SET beat_at = '2026-01-01 00:00:00.000000+00:00' WHERE kind = 'worker'")
    status, _, body = web.get("/readyz")
    assert (status, "0 of 1 workers" in body) == (503, True)
    assert web.get("/healthz")[0] == 200
    os.kill(int(name.split(":")[1]), signal.SIGCONT)
    wait_until(lambda: web.get("/readyz")[0] == 200, 60, lambda: daemon.log)
    store.close()
