"""A stand-in for ESI that costs little: `python -m bench.standin --latency 0.06`.

One process, one thread, uvloop; bodies are made from the id, so that there are as many corporations and characters as
are asked for. Answers carry ESI's headers, ETags are honoured. It checks nothing: that is the fake ESI's part (`tests`).
`GET /_told` tells what was asked so far and what that cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import uvloop

from tests.fake_esi.limits import Limits

ALLIANCE, CORPORATION, CHARACTER = 99_000_000, 98_000_000, 90_000_000
_TEXT = "An ordinary description of about as many characters as they have on the average. " * 3


@dataclass
class World:
    """How much there is, and how fresh.

    Attributes:
        latency_s: seconds before each answer.
        fresh_s: seconds until what is answered expires.
        limits: what each answer is charged to; answers about a corporation to the bucket `corporation`, where there is one.
    """

    alliances: int
    corporations: int
    latency_s: float
    fresh_s: float
    limits: Limits
    asked: Counter[str] = field(default_factory=Counter)
    first_at: float = 0.0
    last_at: float = 0.0

    def answer(self, method: str, path: str, etag: str, body: bytes) -> bytes:
        """One answer, whole."""
        if path == "/_told":
            return _http(200, json.dumps(self.told()).encode(), {})
        self.last_at = time.monotonic()
        self.first_at = self.first_at or self.last_at
        parts = path.strip("/").split("/")
        kind = parts[0] + ("/" + parts[2] if len(parts) == 3 else "/list" if len(parts) == 1 else "")
        self.asked[kind if method == "GET" else path] += 1
        if method == "POST":
            return self._charged(200, _bulk(path, json.loads(body)))
        group = "corporation" if kind == "corporations" else None
        if refusal := self.limits.refusal(group, time.time()):
            return self._charged(refusal, group=group)
        mine = f'"{path}"'
        fresh = {"ETag": mine, "Expires": formatdate(time.time() + self.fresh_s, usegmt=True)}
        if etag == mine:
            return self._charged(304, b"", fresh, group)
        return self._charged(200, json.dumps(self._one(parts)).encode(), fresh, group)

    def _charged(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, group: str | None = None
    ) -> bytes:
        if status != HTTPStatus.OK:
            self.asked[str(status)] += 1
        return _http(status, body, {**(headers or {}), **self.limits.account(group, status, time.time())})

    def told(self) -> dict[str, object]:
        """What was asked: counts by kind, the seconds between the first and the last, seconds of processor used."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "asked": dict(self.asked),
            "requests": sum(count for kind, count in self.asked.items() if not kind.isdigit()),
            "first_at": self.first_at,
            "last_at": self.last_at,
            "cpu_s": used.ru_utime + used.ru_stime,
        }

    def _one(self, parts: list[str]) -> object:
        if parts == ["alliances"]:
            return [ALLIANCE + number for number in range(self.alliances)]
        if parts == ["corporations", "npccorps"]:
            return []
        if parts == ["status"]:
            return {"players": 20_000, "server_version": "1", "start_time": "2026-01-01T11:05:00Z"}
        number = int(parts[1]) % 1_000_000
        if len(parts) == 3:
            return [CORPORATION + one for one in range(number, self.corporations, self.alliances)]
        return {"alliances": _alliance, "corporations": corporation, "characters": _character}[parts[0]](number)


def _alliance(number: int) -> dict[str, object]:
    return {
        "name": f"Alliance {number}", "ticker": f"A{number}", "creator_id": CHARACTER + number,
        "creator_corporation_id": CORPORATION + number, "executor_corporation_id": CORPORATION + number,
        "date_founded": "2015-06-01T12:00:00Z",
    }  # fmt: skip


def corporation(number: int) -> dict[str, object]:
    """The body of one corporation."""
    return {
        "name": f"Corporation {number}", "ticker": f"C{number}", "member_count": number % 500, "ceo_id": CHARACTER + number,
        "creator_id": CHARACTER + number, "date_founded": "2015-06-01T12:00:00Z", "description": _TEXT,
        "home_station_id": 60_003_760, "shares": 1000, "tax_rate": 0.1, "url": "http://example.com", "war_eligible": True,
    }  # fmt: skip


def _character(number: int) -> dict[str, object]:
    return {
        "name": f"Character {number}", "birthday": "2012-06-01T12:00:00Z", "bloodline_id": 1, "race_id": 1, "gender": "male",
        "corporation_id": CORPORATION + number % 1000, "description": "", "security_status": 1.5,
    }  # fmt: skip


def _bulk(path: str, ids: list[int]) -> bytes:
    if path.startswith("/universe/names"):
        return json.dumps(
            [{"category": "character", "id": key, "name": f"Character {key % 1_000_000}"} for key in ids]
        ).encode()
    return json.dumps([{"character_id": key, "corporation_id": CORPORATION + key % 1000} for key in ids]).encode()


def _http(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{told}"
        f"Date: {formatdate(usegmt=True)}\r\nLast-Modified: Wed, 25 Nov 2026 12:00:00 GMT\r\nCache-Control: public\r\n"
        "Vary: Accept-Encoding\r\n"
        "X-Esi-Request-Id: 0\r\nX-Compatibility-Date: 2026-08-18\r\nConnection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One client; it sends the next request when the last one is answered."""

    def __init__(self, world: World) -> None:
        self._world, self._read = world, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        method, path, *_ = head.split(b" ", 2)
        length = _header(head, b"content-length")
        if len(body) < int(length or 0):
            return
        self._read = b""
        answer = self._world.answer(method.decode(), path.decode(), _header(head, b"if-none-match").decode(), body)
        if self._world.latency_s and path != b"/_told":
            asyncio.get_running_loop().call_later(self._world.latency_s, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _header(head: bytes, name: bytes) -> bytes:
    start = head.lower().find(b"\r\n" + name + b":")
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b""


async def _serve(world: World, port: int, said: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(world), "127.0.0.1", port, backlog=1024)
    said(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


def main() -> None:
    """Print the base URL and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--alliances", type=int, default=3_600)
    parser.add_argument("--corporations", type=int, default=17_800)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--fresh", type=float, default=3_600.0, help="seconds until what is answered expires")
    parser.add_argument("--tokens", type=int, default=0, help="what a bucket of corporations holds; 0 = there is none")
    parser.add_argument("--window", type=int, default=900, help="seconds after which a token comes back")
    given = parser.parse_args()
    limits = Limits(100, 60, {"corporation": (given.tokens, given.window)} if given.tokens else {})
    world = World(given.alliances, given.corporations, given.latency, given.fresh, limits)
    uvloop.run(_serve(world, given.port, lambda text: print(text, flush=True)))


if __name__ == "__main__":
    main()
