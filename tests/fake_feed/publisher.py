"""What the fake publishes: a sequence of files, the history by day, and day archives made from the same killmails."""

from __future__ import annotations

import bz2
import datetime as dt
import io
import json
import tarfile
import threading
import time
from typing import Any

from tests.fake_feed.killmails import Mail

#: sequence.json is written anew after so many files.
LAG = 51


class Publisher:
    """The truth, and how it is told.

    `mails` are in the history and the archives by id; `values` are zKillboard's of those that the feed has told of.
    `spoiled` replaces the answer of a path.
    """

    def __init__(self, first_sequence: int = 96_000_000) -> None:
        self.mails: dict[int, Mail] = {}
        self.values: dict[int, dict[str, Any]] = {}
        self.files: dict[int, bytes] = {}
        self.next_sequence = first_sequence
        self.head = first_sequence
        self.spoiled: dict[str, bytes] = {}
        self._clock = int(time.time())
        self._lock = threading.Lock()

    def set_clock(self, by: int) -> None:
        """Move the times of what is published from now on, in seconds."""
        with self._lock:
            self._clock += by

    def add(self, *mails: Mail) -> None:
        """Put killmails into the history and the archives, and not into the feed."""
        self.mails |= {mail.id: mail for mail in mails}

    def publish(self, mail: Mail, **changes: Any) -> int:
        """Put one killmail into the feed, as the newest of what is known of it; its sequence."""
        with self._lock:
            self._clock += 1
            self.mails[mail.id] = mail
            self.values[mail.id] = _values(mail, self._clock)
            return self._put(self._envelope(mail, self._clock) | changes)

    def publish_bytes(self, body: bytes) -> int:
        """Put anything into the feed."""
        with self._lock:
            return self._put(body)

    def reissue(self, mail: Mail, rewritten: int | None = None) -> int:
        """The values are worked out anew: a new file, and the older one (of any killmail) rewritten as well."""
        with self._lock:
            self._clock += 1
            self.values[mail.id] = _values(mail, self._clock)
            number = self.next_sequence
            if rewritten is not None:
                self.files[rewritten] = json.dumps(self._envelope(mail, self._clock) | {"sequence_id": rewritten}).encode()
            more = {} if rewritten is None else {"sequence_updated": rewritten}
            return self._put(self._envelope(mail, self._clock) | {"sequence_id": number} | more)

    def stale(self, mail: Mail) -> int:
        """An old file arrives late: values of before, uploaded before the newest."""
        with self._lock:
            return self._put(self._envelope(mail, self._clock - 1000))

    def answer(self, path: str) -> bytes | None:
        """The body of a path; None = 404."""
        if path in self.spoiled:
            return self.spoiled[path]
        name = path.removesuffix(".json")
        if path == "/ephemeral/sequence.json":
            return json.dumps({"sequence": self.head}).encode()
        if path.startswith("/ephemeral/"):
            return self.files.get(int(name.rpartition("/")[2]))
        if path.startswith("/history/"):
            return self._history(path, name.rpartition("/")[2])
        if path.startswith("/api/killID/"):
            mail = self.mails.get(int(path.split("/")[3]))
            return json.dumps([mail.body | {"zkb": {"hash": mail.hash}}] if mail else []).encode()
        if path == "/killmails/totals.json":
            return json.dumps(self._totals()).encode()
        if path.startswith("/killmails/") and path.endswith(".tar.bz2"):
            day = dt.date.fromisoformat(path.rpartition("killmails-")[2].removesuffix(".tar.bz2"))
            found = self.of(day)
            return archive(found) if found else None
        return None

    def of(self, day: dt.date) -> list[Mail]:
        """The killmails of a day, by id."""
        return sorted((mail for mail in self.mails.values() if mail.day == day), key=lambda mail: mail.id)

    def _history(self, path: str, name: str) -> bytes | None:
        if name == "totals":
            return json.dumps(self._totals()).encode()
        found = self.of(dt.datetime.strptime(name, "%Y%m%d").date())
        if not found:
            return None
        if "/raw/" in path:
            return json.dumps({str(mail.id): mail.body for mail in found}).encode()
        return json.dumps({str(mail.id): mail.hash for mail in found}).encode()

    def _totals(self) -> dict[str, int]:
        days = [mail.day for mail in self.mails.values()]
        return {f"{day:%Y%m%d}": days.count(day) for day in set(days)}

    def _envelope(self, mail: Mail, uploaded_at: int) -> dict[str, Any]:
        values = _values(mail, uploaded_at)
        zkb = {
            "locationID": 50_000_001, "hash": mail.hash, "fittedValue": values["fitted_value"],
            "droppedValue": values["dropped_value"], "destroyedValue": values["destroyed_value"],
            "totalValue": values["total_value"], "points": values["points"], "npc": values["npc"], "solo": values["solo"],
            "awox": values["awox"], "labels": ["pvp"], "attackerCount": len(mail.body["attackers"]), "href": "https://x/",
        }  # fmt: skip
        return {
            "killmail_id": mail.id,
            "hash": mail.hash,
            "esi": mail.body,
            "zkb": zkb,
            "uploaded_at": uploaded_at,
            "sequence_id": self.next_sequence,
        }

    def _put(self, body: dict[str, Any] | bytes) -> int:
        number = self.next_sequence
        self.files[number] = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.next_sequence += 1
        if number - self.head >= LAG:
            self.head = number
        return number


def _values(mail: Mail, uploaded_at: int) -> dict[str, Any]:
    """zKillboard's values of a killmail as they were worked out at a time."""
    return {
        "total_value": mail.id % 1000 * 1e6 + uploaded_at % 1000 + 0.25,
        "destroyed_value": 0.0,
        "dropped_value": mail.id % 7 * 1e5 + 0.5,
        "fitted_value": 1e5,
        "points": uploaded_at % 97,
        "npc": mail.id % 5 == 0,
        "solo": mail.id % 2 == 0,
        "awox": False,
    }


def archive(mails: list[Mail]) -> bytes:
    """EVE Ref's archive of these killmails."""
    return tar_of({
        f"killmails/{mail.id}.json": json.dumps(
            mail.body | {"killmail_hash": mail.hash, "http_last_modified": "2021-11-29T11:37:14Z"}
        ).encode()
        for mail in mails
    })  # fmt: skip


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar.bz2 with these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return bz2.compress(out.getvalue())
