"""A day of the daemon in minutes: the real code from the schedule to the database, with the clock and the wire replaced.

`python -m tests.tools.simulation` simulates the whole of EVE (3,600 alliances, 17,800 corporations, 93,000 characters) and
prints requests by hour; the tests simulate a part of it. What must come out is computed in `docs/requests.md`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from esid import clock
from esid.clock import Stop
from esid.entities import BY_NAME, ENTITIES
from esid.entities.cadence import asked_every_s
from esid.esi.budget import Budget, Limits
from esid.esi.client import Client
from esid.queue.asking import Asking
from esid.queue.dispatch import dispatch
from esid.queue.outcome import Outcome
from esid.queue.publish import Publisher
from esid.queue.work import Work
from esid.store import ledger, migrate
from esid.store.connection import Store
from esid.store.model import utc_text

BEGIN = dt.datetime(2026, 11, 25, 12, 0, 0, tzinfo=dt.UTC)
HOUR_S, DAY_S = 3600.0, 86_400.0
#: Seconds between two looks of the schedule at what is due (its default), and of the dispatcher in this simulation.
SYNC_EVERY_S, DISPATCH_EVERY_S = 600.0, 15.0
FIRST_ALLIANCE, FIRST_CORPORATION, FIRST_CHARACTER = 99_000_000, 98_000_000, 90_000_000


class Time:
    """The time of a simulation, in the place of both clocks of the product.

    Attributes:
        now: what time it really is.
        ahead_s: seconds by which our clock is ahead of that.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.monotonic, self.ahead_s = BEGIN, 1000.0, 0.0
        patch.setattr(clock, "now", lambda: self.now + dt.timedelta(seconds=self.ahead_s))
        patch.setattr(clock, "monotonic", lambda: self.monotonic)

    def go_on(self, seconds: float) -> None:
        """So much time goes by."""
        self.now += dt.timedelta(seconds=seconds)
        self.monotonic += seconds


class Size:
    """How many of each there are."""

    def __init__(self, alliances: int, corporations: int, characters: int) -> None:
        self.alliances, self.corporations, self.characters = alliances, corporations, characters


class Wire(requests.adapters.BaseAdapter):
    """Answers in the place of ESI, without a socket, and books who asked when.

    Attributes:
        early: URLs that were asked for before the Expires of their last answer.
        by_hour: hour -> kind of route -> requests.
        asked: path -> requests.
        changing: paths whose answer is another one each time.
    """

    def __init__(self, size: Size, now: Any) -> None:
        super().__init__()
        self._size, self._now = size, now
        self.early: list[str] = []
        self.by_hour: dict[int, Counter[str]] = {}
        self.asked: Counter[str] = Counter()
        self.changing: set[str] = set()
        self._expires: dict[str, float] = {}

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        """One exchange."""
        now, path = self._now(), request.path_url
        kind, cache_s, body = self._body(path, request.body)
        hour = int((now - BEGIN).total_seconds() // HOUR_S)
        self.by_hour.setdefault(hour, Counter())[kind] += 1
        self.asked[path] += 1
        if request.method == "GET":
            if now.timestamp() < self._expires.get(path, 0.0):
                self.early.append(path)
            self._expires[path] = now.timestamp() + cache_s
        is_known = request.headers.get("If-None-Match") and request.method == "GET" and path not in self.changing
        return self._response(304 if is_known else 200, body, cache_s, now, request)

    def close(self) -> None:
        """Nothing is open."""

    def _body(self, path: str, posted: bytes | None) -> tuple[str, float, Any]:
        parts, size = path.strip("/").split("/"), self._size
        if posted:
            ids = json.loads(posted)
            return path, 0.0, [self._posted(path, key) for key in ids]
        if parts == ["alliances"]:
            return path, HOUR_S, list(range(FIRST_ALLIANCE, FIRST_ALLIANCE + size.alliances))
        if parts == ["corporations", "npccorps"]:
            return path, DAY_S, []
        key = int(parts[1])
        if parts[0] == "alliances":
            return (path.replace(parts[1], "{id}"), HOUR_S, self._alliance(key, len(parts) > 2))
        if parts[0] == "corporations":
            return "/corporations/{id}", HOUR_S, _CORPORATION
        return "/characters/{id}", DAY_S, {**_CHARACTER, "corporation_id": FIRST_CORPORATION}

    def _alliance(self, key: int, members: bool) -> Any:
        place, count = key - FIRST_ALLIANCE, self._size.corporations
        own = range(FIRST_CORPORATION + place, FIRST_CORPORATION + count, self._size.alliances)
        return list(own) if members else {**_ALLIANCE, "creator_corporation_id": own[0], "executor_corporation_id": own[0]}

    def _posted(self, path: str, key: int) -> dict[str, Any]:
        if path == "/universe/names":
            return {"id": key, "name": _CHARACTER["name"], "category": "character"}
        return {"character_id": key, "corporation_id": FIRST_CORPORATION}

    def _response(self, status: int, body: Any, cache_s: float, now: dt.datetime, request: Any) -> requests.Response:
        headers = {"Date": format_datetime(now, usegmt=True)}
        if cache_s:
            headers["Expires"] = format_datetime(now + dt.timedelta(seconds=cache_s), usegmt=True)
            path = request.path_url
            headers["Etag"] = f'"{self.asked[path] if path in self.changing else 1}"'
        return made_response(request, status, headers, b"" if status == 304 else json.dumps(body).encode())


def made_response(
    request: Any, status: int, headers: dict[str, str], body: bytes, ends_with: Exception | None = None
) -> requests.Response:
    """What an adapter gives back, without a socket.

    Args:
        ends_with: raised where the body ends too early.
    """
    response = requests.Response()
    response.status_code, response.request, response.url = status, request, request.url
    response.headers.update(headers)
    response.raw = Raw(body, ends_with)
    return response


class Raw:
    """The part of urllib3's response that the client reads."""

    def __init__(self, data: bytes, ends_with: Exception | None = None) -> None:
        self._data, self._ends_with = data, ends_with

    def read(self, *_: Any, **__: Any) -> bytes:
        """All of it, once."""
        data, self._data = self._data, b""
        if not data and self._ends_with:
            raise self._ends_with
        return data

    def close(self) -> None:
        """Nothing is open."""

    release_conn = close


_ALLIANCE = {
    "name": "A", "ticker": "A", "date_founded": "2010-01-01T00:00:00Z", "creator_id": FIRST_CHARACTER,
}  # fmt: skip
_CORPORATION = {"name": "C", "ticker": "C", "member_count": 1, "ceo_id": FIRST_CHARACTER, "tax_rates": {"isk": 1.0}}
_CHARACTER = {"name": "P", "birthday": "2010-01-01T00:00:00Z", "bloodline_id": 1, "race_id": 1, "gender": "male"}


class Inbox:
    """A broker whose messages are done one after the other by the simulation."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, int, Any]] = []
        self._count = 0

    def enqueue_many(self, messages: Any) -> None:
        """Take messages."""
        for message in messages:
            self._count += 1
            heapq.heappush(self._messages, (-int(message.options["broker_priority"]), self._count, message))

    def take(self) -> Any:
        """The next message, or None."""
        return heapq.heappop(self._messages)[2] if self._messages else None


class Day:
    """The daemon's parts around a clock that the simulation moves."""

    def __init__(self, size: Size, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._time = Time(patch)
        self.wire = Wire(size, lambda: self.now)
        self.store = Store(f"sqlite:///{directory / 'day.db'}")
        migrate.migrate(self.store)
        self.store.rows("PRAGMA synchronous = OFF")
        self._inbox = Inbox()
        publisher: Any = Publisher(self.store, self._inbox, "day")  # type: ignore[arg-type]
        self._publisher, self._budget = publisher, Budget(directory / "budget", Limits(max_rps=0), Stop())
        client = Client("http://127.0.0.1", self._budget, adapter=self.wire)
        self._queues = ("alliance", "corporation", "character")
        self._work = Work(self.store, client, publisher, self._queues)
        self._requests = Asking(self.store, publisher, "day")
        self._know(size)

    @property
    def now(self) -> dt.datetime:
        """What time it is."""
        return self._time.now

    def run(self, hours: int) -> None:
        """So many hours."""
        for _ in range(int(hours * HOUR_S / SYNC_EVERY_S)):
            for queue in self._queues:
                self._requests.sync(queue)
                self._requests.refresh(queue)
            steps = int(SYNC_EVERY_S / DISPATCH_EVERY_S)
            while steps and self.open_jobs():
                dispatch(self.store, self._publisher, self._queues)
                self._drain()
                self._time.go_on(DISPATCH_EVERY_S)
                steps -= 1
            # Nothing is left to be done until the schedule looks again.
            self._time.go_on(steps * DISPATCH_EVERY_S)

    def close(self) -> None:
        """Close the parts."""
        self._budget.close()
        self.store.close()

    def _know(self, size: Size) -> None:
        """Characters do not stand in a list: a feed or a person has brought them in."""
        for first in range(0, size.characters, 5000):
            ids = range(FIRST_CHARACTER + first, FIRST_CHARACTER + min(first + 5000, size.characters))
            list(self._requests.enqueue(BY_NAME["character"], ((key, None) for key in ids)))

    def _drain(self) -> None:
        while message := self._inbox.take():
            outcome = self._work.perform(BY_NAME[message.actor_name], message.args[0])
            assert outcome == Outcome(), outcome

    def sleep(self, days: float, *, but_one_in: int) -> None:
        """Let what is known have slept so long, but for one id of so many."""
        slept = utc_text(self.now - dt.timedelta(days=days))
        sql = "UPDATE sync_jobs SET changed_at = %s, created_at = %s WHERE entity_id % %s <> 0 AND entity_id <> 1"
        self.store.rows(sql, (slept, slept, but_one_in))
        # And the database is as old.
        self.store.rows("UPDATE schema_migrations SET applied_at = %s", (slept,))
        self.store._born_at = None

    def open_jobs(self) -> int:
        """Jobs that are not done."""
        return ledger.open_count(self.store, [entity.name for entity in ENTITIES])


@contextmanager
def day(size: Size) -> Iterator[Day]:
    """A day that has not begun."""
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory(prefix="esid-day-") as directory:
        made = Day(size, Path(directory), patch)
        try:
            yield made
        finally:
            made.close()
            patch.undo()


def computed(size: Size, slept_days: float = 0.0) -> dict[str, float]:
    """Requests an hour in the long run, from the cache times and the cadence: see docs/requests.md.

    What is due is looked for every 10 minutes, so that an hour of cache time is asked once in 60 to 70 minutes.

    Args:
        slept_days: for how long nothing has changed.
    """
    each_hour = HOUR_S / asked_every_s(HOUR_S, slept_days * DAY_S)
    each_day = HOUR_S / asked_every_s(DAY_S, slept_days * DAY_S)
    return {
        "/alliances": 1.0,
        "/alliances/{id}": size.alliances * each_hour,
        "/alliances/{id}/corporations": size.alliances * each_hour,
        "/corporations/{id}": size.corporations * each_hour,
        "/characters/affiliation": size.characters / 1000 * each_hour,
        "/characters/{id}": size.characters * each_day,
    }


def main() -> None:
    """Simulate, and print what was asked in each hour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of EVE")
    parser.add_argument("--hours", type=int, default=24)
    options = parser.parse_args()
    size = Size(*(max(1, int(count * options.scale)) for count in (3600, 17_800, 93_000)))
    with day(size) as simulated:
        for hour in range(options.hours):
            simulated.run(1)
            print(hour, dict(simulated.wire.by_hour.get(hour, {})), flush=True)
        print("early:", len(simulated.wire.early), "open:", simulated.open_jobs())
        totals: Counter[str] = sum(simulated.wire.by_hour.values(), Counter())
        for kind, wanted in computed(size).items():
            print(f"{kind:<32}{totals[kind] / options.hours:>12.1f} an hour, at most {wanted:.1f}")


if __name__ == "__main__":
    main()
