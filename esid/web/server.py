"""The status server: `/healthz` (the daemon is alive), `/readyz` (database and broker answer), `/status` (everything).

GET only, JSON only, read-only. Bound to loopback unless told otherwise.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from esid import __version__
from esid.errors import EsidError
from esid.esi.budget import Budget
from esid.queue.broker import Queue
from esid.store import migrate
from esid.store.connection import Store
from esid.web.status import collect

#: Seconds after which a client that says nothing is dropped.
_CLIENT_S = 10


class _Server(ThreadingHTTPServer):
    """Answers from the parts that it is given; a broken connection of a client is no news."""

    daemon_threads = True

    def __init__(self, listener: Any, store: Store, broker: Queue, budget: Budget) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.store, self.broker, self.budget = store, broker, budget

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""

    def ready(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """Whether work can be done now."""
        try:
            migrate.check(self.store)
            self.broker.depths()
        except EsidError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "error": str(error)}
        return HTTPStatus.OK, {"ready": True}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_S
    server_version = f"esid/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, {"alive": True})
        elif path == "/readyz":
            self._answer(*self.server.ready())
        elif path == "/status":
            self._status()
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "known paths: /healthz /readyz /status"})

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def _status(self) -> None:
        try:
            self._answer(HTTPStatus.OK, collect(self.server.store, self.server.broker, self.server.budget))
        except EsidError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def _answer(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        for name, text in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(listener: Any, store: Store, broker: Queue, budget: Budget) -> Iterator[None]:
    """Answer as long as the context lasts."""
    server = _Server(listener, store, broker, budget)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
