"""The status server: a page for people, `/metrics` for Prometheus, `/healthz`, `/readyz`, `/status` for programs.

GET only, read-only, bound to loopback unless told otherwise. Nothing that it is sent changes anything. On loopback it
answers to no name but localhost: a page of somebody else whose name comes to mean this machine reads nothing here.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from esid import __version__, clock
from esid.errors import EsidError
from esid.web import metrics, page
from esid.web.view import View

#: Seconds in which a client has sent its whole request and then taken its answer, and most clients at a time.
CLIENT_S, MOST_CLIENTS = 10, 128
#: Most bytes of the first line of a request, and of all of it; `http.server` itself takes 100 headers of 64 KiB.
MOST_LINE, MOST_HEAD = 2048, 128 * 1024
#: Seconds between two looks for clients that are late.
_LOOK_S = 1.0
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", _POLICY),
)
_STATIC = {"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8"}
_MISDIRECTED = "listening on loopback, this answers to addresses and to localhost alone; a proxy is to send them as Host"
_KNOWN = "known paths: / /metrics /healthz /readyz /status"


class _Server(ThreadingHTTPServer):
    """Answers from a view; a broken connection of a client is no news."""

    daemon_threads = True

    def __init__(self, listener: Any, view: View) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.view = view
        self.is_on_loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        self._lock = threading.Lock()
        # Those that have yet to say what they want, since when, and those that are answered; together the places.
        self._asking: dict[Any, float] = {}
        self._answered: set[Any] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a client. Where no place is left, it gets that of the slowest who has not said yet what it wants."""
        with self._lock:
            is_full = len(self._asking) + len(self._answered) >= MOST_CLIENTS
            if has_place := not is_full or bool(self._asking):
                if is_full:
                    self._cut(next(iter(self._asking)))
                self._asking[request] = clock.monotonic()
        if not has_place:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            # No thread could be made, which would have freed it.
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def service_actions(self) -> None:
        """Now and then: cut off who has not said all within its time, however often it says something."""
        since = clock.monotonic() - CLIENT_S
        with self._lock:
            for late in [one for one, began_at in self._asking.items() if began_at <= since]:
                self._cut(late)

    def has_asked(self, request: Any) -> bool:
        """A client has said all; False where it was cut off."""
        with self._lock:
            is_there = self._asking.pop(request, None) is not None
            if is_there:
                self._answered.add(request)
        return is_there

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._asking.pop(request, None)
            self._answered.discard(request)

    def _cut(self, request: Any) -> None:
        """Its thread reads the end, and closes the connection."""
        del self._asking[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Head:
    """What a client sends, up to a limit for all of it."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MOST_HEAD
        self.close = file.close

    def readline(self, size: int) -> bytes:
        """The next line. Raises LineTooLong, which `http.server` answers with 431."""
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_S
    server_version = f"esid/{__version__}"
    sys_version = ""

    def setup(self) -> None:
        """Bound what is read."""
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def parse_request(self) -> bool:
        """Read the rest of the request; False where there is nothing to answer."""
        return super().parse_request() and self.server.has_asked(self.connection)

    def do_GET(self) -> None:
        """Answer one request."""
        if len(self.requestline) > MOST_LINE:
            self._json(HTTPStatus.REQUEST_URI_TOO_LONG, {"error": f"the first line is longer than {MOST_LINE} bytes"})
            return
        if self.server.is_on_loopback and not all(map(_is_local, self.headers.get_all("Host", ()))):
            self._json(HTTPStatus.MISDIRECTED_REQUEST, {"error": _MISDIRECTED})
            return
        path = self.path.partition("?")[0]
        try:
            self._get(path)
        except EsidError as error:
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def __getattr__(self, name: str) -> Any:
        """Every other method is refused, whatever its name: the page is read-only."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def _get(self, path: str) -> None:
        view = self.server.view
        if path == "/":
            status, text = page.render(view)
            self._answer(status, "text/html; charset=utf-8", text.encode())
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.page(view))
        elif path == "/healthz":
            self._json(HTTPStatus.OK, {"alive": True})
        elif path == "/readyz":
            error = view.unready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if error else HTTPStatus.OK
            self._json(status, {"ready": False, "error": error} if error else {"ready": True})
        elif path == "/status":
            self._json(HTTPStatus.OK, view.state())
        elif path in _STATIC:
            body = (resources.files("esid.web") / "static" / path[1:]).read_bytes()
            self._answer(HTTPStatus.OK, _STATIC[path], body)
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": _KNOWN})

    def _refuse(self) -> None:
        body = b'{"error": "only GET: nothing can be changed here"}\n'
        self.close_connection = True
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "application/json", body, ("Allow", "GET"))

    def _json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(value, default=str).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, *more: tuple[str, str]) -> None:
        self.send_response(status)
        for name, text in (("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS, *more):
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_local(host: str) -> bool:
    """Whether a Host header names an address, or this machine by the one name that nobody else can have."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


@contextmanager
def serve(listener: Any, view: View) -> Iterator[None]:
    """Answer as long as the context lasts."""
    server = _Server(listener, view)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": _LOOK_S}, name="web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
