"""The fake as a server, and its books: who asked what when, and which of zKillboard's rules that broke."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Self

from tests.fake_feed.publisher import Publisher
from tests.tools.ports import free_ports

#: zKillboard's rules: requests in a second, seconds after a 404.
MOST_A_SECOND, AFTER_404_S = 15, 6.0


@dataclass(frozen=True)
class Asked:
    """One request: seconds of the monotonic clock, path, status, User-Agent."""

    at: float
    path: str
    status: int
    agent: str


class _Server(ThreadingHTTPServer):
    """A peer that was killed is no news."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class FakeFeed:
    """Serves one publisher on a port of 127.0.0.1: zKillboard at `base_url`, EVE Ref at `archive_url`.

    `statuses` makes the next requests of a path's beginning fail: [(path, status, headers, times)]; `is_away` refuses
    every request with 503. Stopping keeps the port for the next start.
    """

    def __init__(self, publisher: Publisher, after_404_s: float = AFTER_404_S) -> None:
        self.publisher = publisher
        self.log: list[Asked] = []
        self.is_away = False
        self._faults: list[list[Any]] = []
        self._after_404_s = after_404_s
        self._lock = threading.Lock()
        (self._port,) = free_ports(1)
        self._server: ThreadingHTTPServer | None = None

    @property
    def base_url(self) -> str:
        """zKillboard's address."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def archive_url(self) -> str:
        """EVE Ref's address."""
        return f"{self.base_url}/killmails"

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a daemon that reads from here."""
        return {
            "ESID_FEED_URL": self.base_url,
            "ESID_ARCHIVE_URL": self.archive_url,
            "ESID_ZKILLBOARD_URL": self.base_url,
        }

    def fail(self, path: str, status: int, times: int = 1, **headers: str) -> None:
        """Let the next requests whose path begins so fail."""
        self._faults.append([path, status, times, {name.replace("_", "-"): text for name, text in headers.items()}])

    def count(self, prefix: str = "/", status: int | None = None) -> int:
        """How many requests fit."""
        return sum(one.path.startswith(prefix) and status in (None, one.status) for one in list(self.log))

    def violations(self) -> list[str]:
        """Every breach of the rules so far, in words."""
        asked = [one for one in list(self.log) if not one.path.startswith("/killmails/")]
        found = [f"no User-Agent: {one.path}" for one in asked if not one.agent.startswith("esid/")]
        for first, later in zip(asked, asked[MOST_A_SECOND:], strict=False):
            if later.at - first.at < 1.0:
                found.append(f"{MOST_A_SECOND + 1} requests within {later.at - first.at:.3f} s before {later.path}")
        for before, after in pairwise(asked):
            is_feed = before.path.startswith("/ephemeral/") and before.status == 404
            if is_feed and after.path.startswith("/ephemeral/") and after.at - before.at < self._after_404_s - 0.05:
                found.append(f"{after.path} {after.at - before.at:.3f} s after the 404 of {before.path}")
        return found

    def start(self) -> Self:
        """Listen and answer from now on."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake._answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        at, path = time.monotonic(), request.path
        status, headers, body = self._decide(path)
        with self._lock:
            self.log.append(Asked(at, path, status, request.headers.get("User-Agent", "")))
        try:
            request.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(body))}.items():
                request.send_header(name, text)
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            request.close_connection = True

    def _decide(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.is_away:
            return 503, {}, b"<html>away</html>"
        with self._lock:
            for fault in self._faults:
                if path.startswith(fault[0]) and fault[2] > 0:
                    fault[2] -= 1
                    return fault[1], fault[3], b""
        body = self.publisher.answer(path)
        if body is None:
            return 404, {}, b"<html>404</html>"
        return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, body
