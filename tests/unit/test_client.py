"""The HTTP edge over real HTTP: what is sent, what each answer becomes, and that nothing lasts or grows without end."""

from __future__ import annotations

import datetime as dt
import gzip
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

import esid
from esid.errors import BadBody, BadField, EsiError, EsiUnavailable, Fault, Held, NotFound, Refused, TooLarge, Unreachable
from esid.esi import client as edge
from esid.esi import connection, transport
from esid.esi.answers import Answer
from esid.esi.budget import Budget, Limits
from esid.esi.budget.breaker import FAILURES
from esid.esi.budget.view import snapshot
from esid.esi.client import Client
from esid.esi.routes import LARGEST_BODY, Route
from tests.fake_esi import FakeEsi, World
from tests.tools.waiting import wait_until

ROOT = Path(__file__).parents[2]
ALLIANCE = Route("/alliances/{id}")
KILLMAIL = Route("/killmails/{id}/{argument}", group="killmail")
AFFILIATION = Route("/characters/affiliation")
OK = b"HTTP/1.1 200 OK\r\n"
Ask = Callable[..., Answer]


class Raw:
    """A server that answers each request on a connection of its own with some bytes, and then does `after`.

    `requests` holds the head of each request as it came.
    """

    def __init__(self, *parts: bytes, after: Callable[[socket.socket], object] = lambda _: None) -> None:
        self.requests: list[bytes] = []
        self._parts, self._after = parts, after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self.requests.append(connection.recv(65536))
                    for part in self._parts:
                        connection.sendall(part)
                    self._after(connection)


class Forgetful:
    """A server whose first connection answers once and is reset by the next request; all others answer each time."""

    def __init__(self, answer: bytes) -> None:
        self.requests, self.connections, self._answer = 0, 0, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.connections == 1), daemon=True).start()

    def _serve(self, connection: socket.socket, is_first: bool) -> None:
        with connection, suppress(OSError):
            answered = 0
            while connection.recv(65536):
                self.requests += 1
                if is_first and answered:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(self._answer)
                answered += 1


def linger(connection: socket.socket) -> None:
    """Keep the connection open until the client leaves."""
    connection.recv(1)


def pour(connection: socket.socket) -> None:
    """Send a body until the client leaves."""
    while True:
        connection.sendall(b" " * 65536)


def drip(connection: socket.socket) -> None:
    """Send a byte of body now and then until the client leaves."""
    connection.settimeout(0.05)
    while True:
        connection.sendall(b" ")
        with suppress(TimeoutError):
            if not connection.recv(1):
                return


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    """A budget of its own for each test, without a pace."""
    opened = Budget(tmp_path / "budget", Limits(max_rps=0))
    yield opened
    opened.close()


@pytest.fixture
def ask(esi: FakeEsi, world: World, budget: Budget) -> Ask:
    """Asks the fake for the first alliance."""
    client = Client(esi.base_url, budget)
    return lambda **more: client.get(ALLIANCE, id=first(world), **more)


def first(world: World) -> int:
    """The first alliance."""
    return next(iter(world.alliances))


def get(server: Raw, budget: Budget, etag: str | None = None) -> Answer:
    """Ask the raw server."""
    return Client(server.base_url, budget).get(ALLIANCE, id=7, etag=etag)


def took_s(act: Callable[[], object]) -> float:
    """Seconds that it takes to fail with an `EsiUnavailable`."""
    start = time.monotonic()
    with pytest.raises(EsiUnavailable):
        act()
    return time.monotonic() - start


# -- what is sent


def test_the_user_agent_names_program_version_and_contact() -> None:
    assert edge.user_agent("you@example.com") == f"esid/{esid.__version__} (you@example.com)"
    assert edge.user_agent("") == f"esid/{esid.__version__}"
    assert re.fullmatch(r"esid/\d+\.\d+\.\d+\S*", edge.user_agent(""))


def test_every_request_says_who_asks_in_which_language_for_which_date(esi: FakeEsi, world: World, budget: Budget) -> None:
    client = Client(esi.base_url, budget, contact="you@example.com", compatibility_date="2025-12-16")
    client.get(ALLIANCE, id=first(world))
    client.post(AFFILIATION, list(world.characters)[:3])
    for request in esi.log:
        assert request.headers["user-agent"] == edge.user_agent("you@example.com")
        assert request.headers["x-compatibility-date"] == "2025-12-16"
        assert request.headers["accept-language"] == "en"
        assert "if-none-match" not in request.headers


def test_the_whole_head_of_a_request(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        get(server, budget, 'W/"x"')
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /alliances/7 HTTP/1.1"
    assert {line.partition(":")[0] for line in lines[1:] if line} == {
        "Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "X-Compatibility-Date", "X-Tenant",
        "If-None-Match",
    }  # fmt: skip
    assert "Accept-Encoding: gzip" in lines
    assert "X-Tenant: tranquility" in lines
    assert 'If-None-Match: W/"x"' in lines


def test_a_slash_at_the_end_of_the_base_url_does_not_count(esi: FakeEsi, world: World, budget: Budget) -> None:
    Client(esi.base_url + "/", budget).get(ALLIANCE, id=first(world))
    assert esi.log[0].path == f"/alliances/{first(world)}"


def test_the_ids_of_a_post_arrive_in_order(esi: FakeEsi, world: World, budget: Budget) -> None:
    ids = sorted(world.characters, reverse=True)
    answer = Client(esi.base_url, budget).post(AFFILIATION, ids)
    assert esi.log[0].ids == tuple(ids)
    assert [row["character_id"] for row in answer.body] == ids
    assert (answer.is_new, answer.etag) == (True, None)


def test_one_connection_serves_many_requests(ask: Ask, esi: FakeEsi) -> None:
    for _ in range(5):
        ask()
    assert len(esi._connections) == 1


def test_a_connection_that_the_other_side_has_closed_is_opened_anew(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        client = Client(server.base_url, budget)
        for number in (1, 2, 3):
            client.get(ALLIANCE, id=number)
            kept = client._adapter._kept.connection.sock  # type: ignore[attr-defined]
            wait_until(lambda kept=kept: connection.is_readable(kept), 5, "the end of the connection")
    assert len(server.requests) == 3


FRAMED = {
    "a length": b"Content-Length: 3\r\n\r\n[1]",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n2\r\n1]\r\n0\r\n\r\n",
    "chunks and a trailer": b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\nEtag: no\r\n\r\n",
    "the end of the connection": b"\r\n[1]",
    "an answer too many": b"Content-Length: 3\r\n\r\n[1]HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx",
    "garbage after it": b"Content-Length: 3\r\n\r\n[1]no HTTP at all",
}


@pytest.mark.parametrize("rest", FRAMED.values(), ids=FRAMED)
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nEtag: no\r\n\r\n"])
@pytest.mark.parametrize("is_dripped", [False, True])
def test_a_body_ends_where_its_answer_says(budget: Budget, interim: bytes, rest: bytes, is_dripped: bool) -> None:
    whole = interim + OK + rest
    parts = [whole[at : at + 1] for at in range(len(whole))] if is_dripped else [whole]
    with Raw(*parts) as server:
        answer = get(server, budget)
    assert (answer.body, answer.etag) == ([1], None)


@pytest.mark.parametrize("rest", ["an answer too many", "garbage after it", "the end of the connection"])
def test_nothing_follows_an_answer_with_a_loose_end(budget: Budget, rest: str) -> None:
    with Raw(OK + FRAMED[rest], after=linger if "end" not in rest else lambda _: None) as server:
        client = Client(server.base_url, budget)
        assert [client.get(ALLIANCE, id=number).body for number in (1, 2)] == [[1], [1]]
    assert len(server.requests) == 2


def test_a_304_has_no_body_whatever_its_length_says(budget: Budget) -> None:
    head = b'HTTP/1.1 304 Not Modified\r\nContent-Length: 527\r\nEtag: "a"\r\n\r\n'
    with Raw(head, after=linger) as server:
        answer = get(server, budget, etag='"a"')
    assert (answer.is_new, answer.etag) == (False, '"a"')


BROKEN = [
    b"Content-Length: 9\r\n\r\n{}",
    b"Transfer-Encoding: chunked\r\n\r\nxyz",
    b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
]


@pytest.mark.parametrize("rest", BROKEN, ids=repr)
@pytest.mark.parametrize(("status", "header"), [(420, b"X-Esi-Error-Limit-Reset"), (429, b"Retry-After")])
def test_who_is_told_to_wait_waits_although_the_body_is_broken(
    budget: Budget, status: int, header: bytes, rest: bytes
) -> None:
    with Raw(b"HTTP/1.1 %d X\r\n%b: 17\r\n" % (status, header) + rest) as server:
        with pytest.raises(Held) as caught:
            get(server, budget)
        assert (caught.value.reason, caught.value.wait_s) == (str(status), 17)
        # And nobody asks again
        with pytest.raises(Held):
            get(server, budget)
    assert len(server.requests) == 1


def test_the_connection_of_a_429_is_used_again_only_after_its_whole_body(budget: Budget) -> None:
    for body, left in ((b"{}", True), (b"{", False)):
        with Raw(b"HTTP/1.1 429 X\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n" + body, after=linger) as server:
            client = Client(server.base_url, budget)
            with pytest.raises(Held):
                client.get(Route(f"/{left}"))
            assert (client._adapter._kept.connection.sock is not None) == left  # type: ignore[attr-defined]
            client._adapter.close()


def test_trailers_do_not_go_on_for_ever(budget: Budget) -> None:
    def trail(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"X: " + b"y" * 10_000 + b"\r\n")

    sent = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n"
    with Raw(sent, after=trail) as server, pytest.raises(EsiUnavailable, match="trailers"):
        get(server, budget)


def test_a_path_with_a_blank_is_not_sent(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server, pytest.raises(EsiUnavailable, match="blank"):
        Client(server.base_url, budget).get(KILLMAIL, id=7, argument="a b")
    assert server.requests == []


def test_no_header_ends_its_line(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        with pytest.raises(EsiUnavailable, match="line break"):
            get(server, budget, etag='"a"\r\nX-Evil: 1')
        get(server, budget, etag='"a"')
    assert len(server.requests) == 1


def test_proxies_from_the_environment_are_not_used(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert ask().is_new


def test_passwords_from_a_netrc_file_are_not_sent(budget: Budget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        get(server, budget)
    assert b"authorization" not in server.requests[0].lower()


# -- 200 and 304


def test_a_200_is_a_new_answer_with_its_etag_and_expiry(ask: Ask, world: World) -> None:
    before = dt.datetime.now(dt.UTC)
    answer = ask()
    assert answer.is_new
    assert answer.body == world.alliances[first(world)]
    assert re.fullmatch(r'"[0-9a-f]{56}"', answer.etag or "")
    assert abs((answer.expires_at - before).total_seconds() - 3600) < 5
    assert abs((answer.checked_at - before).total_seconds()) < 5


def test_an_etag_is_sent_back_verbatim_and_a_304_is_no_new_answer(ask: Ask, esi: FakeEsi) -> None:
    etag = ask().etag
    esi.clock.advance(3601)
    answer = ask(etag=etag)
    assert esi.log[1].headers["if-none-match"] == etag
    assert esi.log[1].status == 304
    assert (answer.is_new, answer.body, answer.etag) == (False, None, etag)
    assert (answer.expires_at - dt.datetime.now(dt.UTC)).total_seconds() > 3500


def test_a_304_without_headers_keeps_the_etag_and_the_known_time(budget: Budget) -> None:
    with Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n") as server:
        answer = get(server, budget, etag='W/"abc"')
    assert (answer.is_new, answer.etag) == (False, 'W/"abc"')
    assert abs((answer.expires_at - dt.datetime.now(dt.UTC)).total_seconds() - ALLIANCE.cache_s) < 5


def test_a_304_that_nobody_asked_for_is_a_bad_body(budget: Budget) -> None:
    with Raw(b'HTTP/1.1 304 Not Modified\r\nEtag: "x"\r\n\r\n') as server, pytest.raises(BadBody) as caught:
        get(server, budget)
    assert caught.value.status == 304


def test_an_answer_without_an_etag_has_none(ask: Ask, esi: FakeEsi) -> None:
    esi.faults.add("/alliances", no_expires=True)
    answer = ask(etag='"old"')
    assert (answer.is_new, answer.etag) == (True, None)


def test_a_gzipped_answer_is_unpacked(budget: Budget) -> None:
    packed = gzip.compress(b'["\xc3\xbc"]')
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with Raw(OK + head, packed) as server:
        assert get(server, budget).body == ["ü"]


def test_a_chunked_answer_is_joined(budget: Budget) -> None:
    with Raw(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n[1\r\n", b"3\r\n,2]\r\n0\r\n\r\n") as server:
        assert get(server, budget).body == [1, 2]


@pytest.mark.parametrize(
    "what",
    [{"body": b""}, {"body": b" \n"}, {"html": 200}, {"body": b"[1"}, {"body": b'{"a": NaN}'}, {"body": b"[" * 100_000}],
    ids=["empty", "blank", "html", "cut", "nan", "deep"],
)  # fmt: skip
def test_a_200_that_is_not_json_is_a_bad_body(ask: Ask, esi: FakeEsi, what: dict[str, object]) -> None:
    esi.faults.add("/alliances", **what)
    with pytest.raises(BadBody):
        ask()


def test_a_bad_body_keeps_its_first_bytes(ask: Ask, esi: FakeEsi) -> None:
    esi.faults.add("/alliances", html=200)
    with pytest.raises(BadBody) as caught:
        ask()
    assert caught.value.sample == b"<html><body>Bad gateway</body></html>"


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 206, 226])
def test_another_2xx_is_no_answer(budget: Budget, status: int) -> None:
    body = b"" if status in (204, 205) else b"[]"
    sent = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    with Raw(sent) as server, pytest.raises(EsiError) as caught:
        get(server, budget)
    assert caught.value.status == status


# -- refusals


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Refused, "http_400"),
        (404, NotFound, "not_found"),
        (422, Refused, "wrong_pair"),
    ],
)
def test_what_esi_itself_refuses_is_the_ids(ask: Ask, esi: FakeEsi, status: int, kind: type[EsiError], reason: str) -> None:
    esi.faults.add("/alliances", status=status)
    with pytest.raises(EsiError) as caught:
        ask()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, caught.value.max_attempts) == (status, reason, 1)
    assert caught.value.fault is Fault.ID
    assert str(caught.value) == f"HTTP {status}: Undefined {status} response"
    assert b"Undefined" in caught.value.sample


@pytest.mark.parametrize("status", [401, 403, 405, 407, 410, 451])
def test_a_code_of_a_proxy_or_a_ban_stands_in_the_way_and_is_nobodys(ask: Ask, esi: FakeEsi, status: int) -> None:
    esi.faults.add("/alliances", status=status)
    with pytest.raises(Unreachable) as caught:
        ask()
    assert (caught.value.status, caught.value.reason, caught.value.fault) == (status, f"http_{status}", Fault.WAY)
    assert caught.value.max_attempts == EsiUnavailable.max_attempts


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("body", [b"", b"<html><body>nginx</body></html>", b"[]", b'{"message": "no"}'])
def test_a_refusal_that_is_not_worded_as_esi_words_it_comes_from_a_gateway(budget: Budget, status: int, body: bytes) -> None:
    sent = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    with Raw(sent) as server, pytest.raises(Unreachable) as caught:
        get(server, budget)
    assert caught.value.fault is Fault.WAY


@pytest.mark.parametrize("more", [{}, {"timeout": 10}, {"details": []}])
def test_an_error_that_comes_as_a_200_is_an_outage_and_no_data(ask: Ask, esi: FakeEsi, more: dict[str, object]) -> None:
    esi.faults.add("/alliances", json={"error": "The datasource tranquility is temporarily unavailable", **more})
    with pytest.raises(EsiUnavailable, match="temporarily unavailable") as caught:
        ask()
    assert caught.value.fault is Fault.ESI


def test_an_answer_that_its_reader_refuses_is_none_for_the_breaker(esi: FakeEsi, budget: Budget, world: World) -> None:
    def refuse(answer: Answer) -> None:
        raise BadField("alliance", "name", answer.body)

    client = Client(esi.base_url, budget)
    for key in list(world.alliances)[:FAILURES]:
        with pytest.raises((BadField, Held)):
            client.get(ALLIANCE, id=key, read=refuse)
    assert snapshot(budget)["breaker"]["routes"] == [ALLIANCE.path]


def test_a_404_is_asked_again_after_three_weeks() -> None:
    assert NotFound.ask_again_after_s == 21 * 86_400


def test_the_words_of_a_refusal_are_those_of_esi(esi: FakeEsi, budget: Budget) -> None:
    client = Client(esi.base_url, budget)
    with pytest.raises(NotFound, match=r"^HTTP 404: Alliance not found$"):
        client.get(ALLIANCE, id=1)
    with pytest.raises(Refused, match=r"^HTTP 422: Invalid killmail_id and/or killmail_hash$"):
        client.get(KILLMAIL, id=1, argument="a" * 40)


@pytest.mark.parametrize("body", [b'{"error": 7}', b"[]", b"\xff\xfe", b"", b'{"error": ' + b"[" * 50_000])
def test_a_refusal_whose_body_is_odd_is_told_in_a_line(budget: Budget, body: bytes) -> None:
    sent = b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with Raw(sent) as server, pytest.raises(Unreachable) as caught:
        get(server, budget)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_redirect_is_not_followed(budget: Budget, status: int, method: str) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as other:
        location = f"Location: {other.base_url}/alliances/7\r\nContent-Length: 0\r\n\r\n".encode()
        with Raw(b"HTTP/1.1 %d X\r\n" % status + location) as server:
            client = Client(server.base_url, budget)
            with pytest.raises(Unreachable) as caught:
                client.get(ALLIANCE, id=7) if method == "get" else client.post(AFFILIATION, [7])
        assert (caught.value.status, caught.value.reason) == (status, f"http_{status}")
        assert len(server.requests) == 1
        assert other.requests == []


# -- waiting is not failing


def test_a_420_holds_until_the_window_ends(ask: Ask, esi: FakeEsi) -> None:
    esi.faults.add("/alliances", status=420, headers={"X-Esi-Error-Limit-Reset": "42"})
    with pytest.raises(Held) as caught:
        ask()
    assert (caught.value.wait_s, caught.value.reason) == (42.0, "420")


@pytest.mark.parametrize(
    "reset",
    [None, "", "soon", "-1", "\xb2", "99999", "9" * 30],
    ids=["missing", "empty", "word", "negative", "²", "a day", "huge"],
)
def test_a_420_that_tells_no_believable_time_holds_for_a_minute(ask: Ask, esi: FakeEsi, reset: str | None) -> None:
    # A window is a minute long, so nothing longer is believed.
    esi.faults.add("/alliances", status=420, headers={"X-Esi-Error-Limit-Reset": reset})
    with pytest.raises(Held) as caught:
        ask()
    assert caught.value.wait_s == 60.0


@pytest.mark.parametrize(
    ("text", "wait_s"), [("5", 5.0), ("0", 0.0), ("-5", 60.0), ("soon", 60.0), ("1000000000", 900.0), (None, 60.0)], ids=repr
)
@pytest.mark.parametrize("group", [None, "killmail"])
def test_a_429_holds_for_as_long_as_it_says_within_bounds(
    esi: FakeEsi, budget: Budget, group: str | None, text: str | None, wait_s: float
) -> None:
    esi.faults.add("/", status=429, headers={"Retry-After": text})
    route = KILLMAIL if group else ALLIANCE
    with pytest.raises(Held) as caught:
        Client(esi.base_url, budget).get(route, id=7, argument="a" * 40)
    assert (caught.value.wait_s, caught.value.reason) == (wait_s, "429")


def test_a_429_with_a_date_holds_until_then_by_the_clock_of_esi(budget: Budget) -> None:
    dates = b"Date: Sun, 27 Sep 2020 22:00:00 GMT\r\nRetry-After: Sun, 27 Sep 2020 22:01:30 GMT\r\n"
    with Raw(b"HTTP/1.1 429 X\r\n" + dates + b"Content-Length: 0\r\n\r\n") as server, pytest.raises(Held) as caught:
        get(server, budget)
    assert caught.value.wait_s == 90.0


# -- outages


@pytest.mark.parametrize(
    "what", [{"status": 500}, {"html": 502}, {"status": 503}, {"status": 504}, {"status": 520}], ids=str
)
def test_a_5xx_is_unavailable_with_its_status_and_first_bytes(ask: Ask, esi: FakeEsi, what: dict[str, int]) -> None:
    esi.faults.add("/alliances", **what)
    with pytest.raises(EsiUnavailable) as caught:
        ask()
    (status,) = what.values()
    assert caught.value.status == status
    assert str(caught.value).startswith(f"HTTP {status}: ")
    assert caught.value.sample
    assert (caught.value.reason, caught.value.max_attempts) == ("unavailable", 10)


@pytest.mark.parametrize("what", [{"drop": True}, {"reset": True}], ids=str)
def test_a_connection_that_ends_without_an_answer_is_unavailable(ask: Ask, esi: FakeEsi, what: dict[str, bool]) -> None:
    esi.faults.add("/alliances", times=1, **what)
    with pytest.raises(EsiUnavailable) as caught:
        ask()
    assert caught.value.status is None
    assert ask().is_new


CUT = [
    OK + b'Content-Length: 100\r\n\r\n{"name": "half',
    OK + b"Content-Length: 100\r\n\r\n[1, 2, 3]",
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n[1, 2, 3]\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n[1,",
    OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[1]\r\n",
    OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 abc X\r\n\r\n",
    OK + b"Content-Length: 2\r\nX: " + b"y" * 100_000 + b"\r\n\r\n[]",
    OK + b"X: y\r\n" * 30_000 + b"Content-Length: 2\r\n\r\n[]",
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[1]",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
    b"",
]


@pytest.mark.parametrize("sent", CUT, ids=lambda sent: repr(sent[-24:]))
def test_an_answer_that_is_cut_or_no_http_is_unavailable(budget: Budget, sent: bytes) -> None:
    with Raw(sent) as server, pytest.raises(EsiUnavailable) as caught:
        get(server, budget)
    assert 0 < len(str(caught.value)) <= 300


HEADS = [OK + b"Content-Type: appli", OK, b"HTTP/1.1 200 O", b"HTTP/1.1 404 Not Found\r\nContent-Le", b"HTTP/1.1 422 X\r\n"]


@pytest.mark.parametrize("sent", HEADS, ids=repr)
def test_a_head_that_is_cut_is_no_answer(budget: Budget, sent: bytes) -> None:
    with Raw(sent) as server, pytest.raises(EsiUnavailable):
        get(server, budget)


@pytest.mark.parametrize(
    "sent",
    [CUT[0], CUT[3], OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"[]")[:-4]],
    ids=["length", "chunks", "gzip"],
)
def test_an_answer_that_is_cut_is_said_to_be_so(budget: Budget, sent: bytes) -> None:
    with Raw(sent) as server, pytest.raises(EsiUnavailable, match=r" at 127\.0\.0\.1:\d+: the answer ended too early$"):
        get(server, budget)


def test_a_gzip_body_that_is_cut_is_no_answer(budget: Budget) -> None:
    packed = gzip.compress(b"[" + b"1," * 5000 + b"1]")[:-20]
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with Raw(OK + head, packed) as server, pytest.raises((EsiUnavailable, BadBody)):
        get(server, budget)


def test_a_body_without_a_length_that_is_cut_is_no_answer(budget: Budget) -> None:
    with Raw(OK + b'\r\n[{"name": "half') as server, pytest.raises((EsiUnavailable, BadBody)):
        get(server, budget)


def test_a_truncated_answer_of_a_list_is_unavailable(ask: Ask, esi: FakeEsi) -> None:
    esi.faults.add("/alliances", truncate=True)
    with pytest.raises(Unreachable):
        ask()


def test_a_kept_connection_that_has_died_costs_nothing(budget: Budget) -> None:
    with Forgetful(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        client = Client(server.base_url, budget)
        before = snapshot(budget)["errors"]
        assert [client.get(ALLIANCE, id=number).body for number in (1, 2, 3)] == [[], [], []]
        assert (server.requests, server.connections) == (4, 2)
    assert snapshot(budget)["errors"] == before


def test_a_connection_that_nobody_has_used_for_a_while_is_opened_anew(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_IDLE_S", 0.0)
    with Forgetful(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        client = Client(server.base_url, budget)
        assert [client.get(ALLIANCE, id=number).body for number in (1, 2)] == [[], []]
        assert (server.requests, server.connections) == (2, 2)


def test_a_new_connection_that_dies_is_not_tried_again(budget: Budget) -> None:
    with Raw() as server, pytest.raises(Unreachable):
        get(server, budget)
    assert len(server.requests) == 1


def test_a_refused_connection_is_unavailable_and_names_the_host_but_no_secret(budget: Budget) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(EsiUnavailable) as caught:
        Client(f"http://me:hunter2@127.0.0.1:{port}", budget).get(Route("/alliances/{id}?token=geheim"), id=7)
    words = str(caught.value)
    assert "127.0.0.1" in words
    assert "refused" in words
    assert "hunter2" not in words
    assert "geheim" not in words


def test_a_name_that_does_not_resolve_is_unavailable_and_named(budget: Budget) -> None:
    with pytest.raises(EsiUnavailable, match=r"nowhere\.invalid"):
        Client("http://nowhere.invalid", budget).get(ALLIANCE, id=7)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that neither takes a connection nor refuses one: its queue of those to be taken is full."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with suppress(TimeoutError):
            while True:
                waiting.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.2))
        yield port


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Every name has one address for each of these ports."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_all_addresses_of_a_name_together_have_the_time_to_connect(
    budget: Budget, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    monkeypatch.setattr(edge, "CONNECT_S", 0.8)
    resolve(monkeypatch, *[silent] * 20)
    assert 0.7 < took_s(lambda: Client("http://esi.invalid", budget).get(ALLIANCE, id=7)) < 8


def test_an_address_that_says_nothing_leaves_time_for_the_next(
    budget: Budget, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    monkeypatch.setattr(edge, "CONNECT_S", 1.0)
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server:
        resolve(monkeypatch, silent, int(server.base_url.rpartition(":")[2]))
        assert Client("http://esi.invalid", budget).get(ALLIANCE, id=7).body == []


def test_connecting_ends_with_the_exchange(budget: Budget, monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 0.5)
    monkeypatch.setattr(edge, "CONNECT_S", 20.0)
    assert took_s(lambda: Client(f"http://127.0.0.1:{silent}", budget).get(ALLIANCE, id=7)) < 10


def test_connecting_ends_at_a_stop(budget: Budget, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECT_S", 20.0)
    client, took = Client(f"http://127.0.0.1:{silent}", budget), list[float]()
    asking = threading.Thread(target=lambda: took.append(took_s(lambda: client.get(ALLIANCE, id=7))))
    asking.start()
    wait_until(lambda: any(one.sock for one in client._watch._exchanges), 5, "a thread that connects")
    client.end_within(0)
    asking.join(30)
    assert took[0] < 10


def test_a_server_without_tls_is_unavailable_and_not_asked_in_the_clear(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 2\r\n\r\n[]") as server, pytest.raises(EsiUnavailable, match="TLS"):
        Client(server.base_url.replace("http:", "https:"), budget).get(ALLIANCE, id=7)
    assert not [head for head in server.requests if b"GET" in head]


# -- deadlines


def test_a_server_that_never_answers_is_given_up(ask: Ask, esi: FakeEsi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "READ_S", 0.3)
    esi.faults.add("/alliances", hang_s=60)
    assert 0.2 < took_s(ask) < 8


@pytest.mark.parametrize("what", [{"drip_s": 0.05}, {"headers_drip_s": 0.05}], ids=str)
def test_a_drip_is_cut_by_the_total_deadline(
    ask: Ask, esi: FakeEsi, monkeypatch: pytest.MonkeyPatch, what: dict[str, float]
) -> None:
    # A byte comes every 0.05 s, so that no read ever lasts for READ_S.
    monkeypatch.setattr(edge, "READ_S", 1.0)
    monkeypatch.setattr(edge, "TOTAL_S", 1.5)
    esi.faults.add("/alliances", **what)
    assert 1.4 < took_s(ask) < 15


@pytest.mark.parametrize("head", [b"Connection: close\r\n\r\n", b"Content-Length: 9999\r\nConnection: close\r\n\r\n"])
def test_a_drip_on_a_closing_connection_is_cut_too(budget: Budget, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 1.0)
    with Raw(OK + head, after=drip) as server:
        assert 0.9 < took_s(lambda: get(server, budget)) < 15


def test_a_tls_handshake_that_never_ends_is_given_up(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECT_S", 0.3)
    monkeypatch.setattr(edge, "READ_S", 0.3)
    with Raw(after=linger) as server:
        client = Client(server.base_url.replace("http:", "https:"), budget)
        assert took_s(lambda: client.get(ALLIANCE, id=7)) < 4


def test_a_tls_handshake_that_drips_is_cut_by_the_total_deadline(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 1.0)
    monkeypatch.setattr(edge, "CONNECT_S", 1.0)
    with Raw(b"\x16\x03\x03\x40\x00", after=drip) as server:  # the head of a message of 16 KiB
        client = Client(server.base_url.replace("http:", "https:"), budget)
        assert 0.9 < took_s(lambda: client.get(ALLIANCE, id=7)) < 15


def test_a_cut_exchange_says_so_and_the_next_one_goes_well(ask: Ask, esi: FakeEsi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 1.0)
    esi.faults.add("/alliances", times=1, drip_s=0.05)
    with pytest.raises(EsiUnavailable, match="no whole answer within 1 s"):
        ask()
    assert ask().is_new


def test_a_watcher_that_could_not_be_started_is_started_by_the_next_exchange(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 1.0)
    with Raw(OK + b"Content-Length: 9999\r\n\r\n", after=drip) as server:
        client = Client(server.base_url, budget)
        with monkeypatch.context() as limits:
            limits.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="new thread"):
                client.get(ALLIANCE, id=7)
        assert 0.9 < took_s(lambda: client.get(ALLIANCE, id=7)) < 15


def no_thread(_: threading.Thread) -> None:
    """A system that makes no more threads."""
    raise RuntimeError("can't start new thread")


def test_the_deadline_of_one_thread_does_not_cut_another(
    esi: FakeEsi, world: World, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "TOTAL_S", 1.0)
    slow, *others = list(world.alliances)[:5]
    esi.faults.add(f"/alliances/{slow}", drip_s=0.05)
    client = Client(esi.base_url, budget)
    victim = threading.Thread(target=lambda: took_s(lambda: client.get(ALLIANCE, id=slow)))
    victim.start()
    while victim.is_alive():
        assert all(client.get(ALLIANCE, id=key).is_new for key in others)
    assert esi.count(status=200) > 20


# -- size


def test_a_body_of_50_mb_is_too_large(budget: Budget) -> None:
    with Raw(OK + b"Content-Length: 52428800\r\n\r\n", *[b" " * 2**20] * 50) as server, pytest.raises(TooLarge) as caught:
        get(server, budget)
    assert (caught.value.reason, caught.value.max_attempts, caught.value.status) == ("too_large", 1, 200)
    assert len(caught.value.sample) == 200


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"503 X", b"302 X"])
def test_a_body_without_end_is_too_large(budget: Budget, status: bytes) -> None:
    with Raw(b"HTTP/1.1 " + status + b"\r\n\r\n", after=pour) as server, pytest.raises(EsiError) as caught:
        get(server, budget)
    assert str(status[:3], "ascii") == str(caught.value.status)


def test_a_body_just_below_the_cap_is_read(budget: Budget) -> None:
    body = b" " * (LARGEST_BODY - 2) + b"[]"
    with Raw(OK + b"Content-Length: %d\r\n\r\n" % len(body), body) as server:
        assert get(server, budget).body == []
    with Raw(OK + b"Content-Length: %d\r\n\r\n" % (len(body) + 1), body + b" ") as server, pytest.raises(TooLarge):
        get(server, budget)


@pytest.mark.parametrize("body", [b"[" * 500_000, b"9" * 5000, b"[-" + b"9" * 100_000 + b"]", b'{"a":' * 100_000], ids=len)
def test_a_body_without_end_in_depth_or_digits_is_no_json(budget: Budget, body: bytes) -> None:
    with Raw(OK + b"Content-Length: %d\r\n\r\n" % len(body), body) as server, pytest.raises(BadBody):
        get(server, budget)


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "x"])
def test_an_answer_that_is_packed_in_another_way_than_was_asked_for_is_nobodys(budget: Budget, encoding: str) -> None:
    head = f"Content-Encoding: {encoding}\r\nContent-Length: 10\r\n\r\n".encode()
    with Raw(OK + head, zlib.compress(b"[]")[:10]) as server, pytest.raises(Unreachable, match="not asked for") as caught:
        get(server, budget)
    assert caught.value.max_attempts > 5


def test_of_a_large_error_the_beginning_is_read(budget: Budget) -> None:
    body = b"<html>" + b"x" * 10_000_000
    with (
        Raw(b"HTTP/1.1 503 X\r\n\r\n", body) as server,
        pytest.raises(EsiUnavailable, match="HTTP 503: <html>xxx") as caught,
    ):
        get(server, budget)
    assert len(caught.value.sample) == 200


PEAK = """
import sys
from pathlib import Path
from esid.errors import TooLarge
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.esi.routes import Route

def peak_kb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

client = Client(sys.argv[1], Budget(Path(sys.argv[2]), Limits(max_rps=0)))
client.get(Route("/status", group="status"))
before = peak_kb()
try:
    client.get(Route("/alliances"))
except TooLarge:
    print(peak_kb() - before)
"""


@pytest.mark.heavy
def test_a_gzip_bomb_of_200_mb_is_too_large_and_never_in_memory(esi: FakeEsi, tmp_path: Path) -> None:
    esi.faults.add("/alliances", gzip_bomb=200 * 2**20)
    command = [sys.executable, "-c", PEAK, esi.base_url, str(tmp_path / "budget")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert int(done.stdout) < 64 * 1024


MANY = """
import sys, threading
from pathlib import Path
from esid.entities.alliance import ALLIANCES
from esid.errors import EsiError
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.store.model import Job

def peak_kb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

client = Client(sys.argv[1], Budget(Path(sys.argv[2]), Limits(max_rps=0)))
job, errors = Job("alliances", 1), []

def ask(number):
    try:
        client.get(ALLIANCES.route, query=[("page", str(number))], read=lambda answer: ALLIANCES.parse(job, answer))
    except EsiError as error:
        errors.append(error)

ask(100)
before = peak_kb()
threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 17)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert {error.reason for error in errors[1:]} == {"bad_field"}, errors
print(peak_kb() - before)
"""


@pytest.mark.heavy
def test_sixteen_threads_with_large_bodies_take_the_memory_of_one(tmp_path: Path) -> None:
    # Given bodies just below the largest, whose values take 25 times their length
    body = b"[" + b"[]," * 690_000 + b"[]]"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answering, body)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        # When sixteen threads read one each, and keep the errors
        command = [sys.executable, "-c", MANY, f"http://127.0.0.1:{server.server_port}", str(tmp_path / "budget")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        server.shutdown()
        thread.join()
    # Then that costs one value, and the texts
    assert done.stderr == ""
    assert int(done.stdout) < 200 * 1024


class _Answering(BaseHTTPRequestHandler):
    """Answers the first request with a little, and each other with a body."""

    def __init__(self, body: bytes, *more: Any) -> None:
        self._body = body
        super().__init__(*more)

    def do_GET(self) -> None:
        """Answer."""
        # On a busy machine some ask after others have failed, and whether ESI is there at all.
        small = {"/alliances?page=100": b"[]", "/status": b'{"players": 1}'}
        body = small.get(self.path, self._body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
