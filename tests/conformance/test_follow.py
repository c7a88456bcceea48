"""Following a feed, on both databases: what was published stands in the tables, whatever the feed does in between."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esid import clock
from esid.clock import Stop
from esid.entities.killmail import Attacker, Killmail, KillmailItem, parse
from esid.entities.killmail_body import LARGEST_KILLMAIL
from esid.esi.answers import Answer
from esid.feeds import r2z2
from esid.feeds.follow import STANDBY_S, Follower
from esid.feeds.http import Source
from esid.feeds.pace import Pace
from esid.store import cursors, dead_letters, ledger, notes
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Job, Seen, utc_text
from tests.fake_feed import FakeFeed, Mail, Publisher, generate
from tests.tools import mirror

DAY = dt.date(2026, 11, 24)
#: Seconds after a 404, and until the present is looked up: short, so that a test need not wait.
AWAY_S, STUCK_S = 0.05, 0.2


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    """A feed that asks for shorter waits than zKillboard."""
    with FakeFeed(Publisher(), after_404_s=AWAY_S) as fake:
        yield fake


@pytest.fixture
def mails() -> list[Mail]:
    """Killmails of one day."""
    return generate(130_000_001, 12, DAY)


class Reader:
    """One follower and its steps."""

    def __init__(self, store: Store, fake: FakeFeed, tmp_path: Path, name: str = "pace") -> None:
        self.source = Source(fake.base_url, "", Pace(tmp_path / name, 0.001))
        self.follower = Follower(store, r2z2.feed(AWAY_S, STUCK_S), self.source, Stop())

    def until(self, store: Store, position: int, steps: int = 200) -> None:
        """Step until the feed stands there."""
        for _ in range(steps):
            if stands_at(store) == position:
                return
            self.follower._rest(self.follower.step())
        raise AssertionError(f"it stands at {stands_at(store)}, not at {position}")


@pytest.fixture
def reader(store: Store, feed: FakeFeed, tmp_path: Path) -> Iterator[Reader]:
    """A follower on the store, at the first file of the feed."""
    made = Reader(store, feed, tmp_path)
    assert made.follower.step() > 0
    yield made
    made.source.close()


def stands_at(store: Store) -> int:
    """Where the feed stands."""
    (state,) = cursors.states(store)
    return int(state["position"])


def assert_stored(store: Store, publisher: Publisher, *mails: Mail) -> None:
    """The tables hold these killmails with zKillboard's values, and no other."""
    found = mirror.table(store, Killmail)
    wanted = {one.id: mirror.killmail(one.id, one.hash, one.body) | publisher.values.get(one.id, {}) for one in mails}
    assert found == wanted
    assert mirror.table(store, Attacker) == {k: v for one in mails for k, v in mirror.attackers(one.id, one.body).items()}
    assert mirror.table(store, KillmailItem) == {k: v for one in mails for k, v in mirror.items(one.id, one.body).items()}


def letters(store: Store) -> list[dead_letters.DeadLetter]:
    """Every dead letter."""
    return dead_letters.find(store, Filter())


def test_what_is_published_stands_in_the_tables_with_its_values(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    for mail in mails:
        last = feed.publisher.publish(mail)
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, *mails)
    assert feed.violations() == []
    job = ledger.job(store, "killmail", mails[0].id)
    assert job
    assert (job["status"], job["argument"], job["expires_at"], job["due_at"]) == ("completed", mails[0].hash, None, None)


def test_everybody_on_a_killmail_becomes_known_and_characters_wait_for_company(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    victim = mails[0].body["victim"]
    corporation, character = (ledger.job(store, name, victim[f"{name}_id"]) for name in ("corporation", "character"))
    assert corporation
    assert character
    assert (corporation["status"], character["status"]) == ("pending", "pending")
    assert victim["character_id"] in ledger.gathered(store, "character", 100)[0]
    assert victim["corporation_id"] not in ledger.gathered(store, "corporation", 100)[0]


def test_a_restart_goes_on_where_the_feed_stood(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], tmp_path: Path
) -> None:
    first = feed.publisher.publish(mails[0])
    reader.until(store, first + 1)
    cursors.release(store, r2z2.NAME, reader.follower._owner)
    last = feed.publisher.publish(mails[1])
    before = feed.count("/ephemeral/sequence.json")
    Reader(store, feed, tmp_path).until(store, last + 1)
    assert_stored(store, feed.publisher, *mails[:2])
    assert feed.count("/ephemeral/sequence.json") == before
    assert feed.count(f"/ephemeral/{first}.json", 200) == 1


def test_a_second_follower_stands_by_and_takes_over(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], tmp_path: Path
) -> None:
    other = Reader(store, feed, tmp_path)
    assert other.follower.step() == STANDBY_S
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    reader.follower._end()
    after = feed.publisher.publish(mails[1])
    other.until(store, after + 1)
    assert_stored(store, feed.publisher, *mails[:2])


def test_who_has_lost_the_lease_writes_nothing(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], tmp_path: Path
) -> None:
    # Given that the lease is over while the process was frozen, and another reads
    number = stands_at(store)
    store.run(lambda: store.rows("UPDATE feed_cursors SET owner = %s", ("elsewhere:1:x",)))
    feed.publisher.publish(mails[0])
    with pytest.raises(cursors.LeaseLost):
        reader.until(store, number + 1)
    assert mirror.table(store, Killmail) == {}
    assert stands_at(store) == number


def test_a_reissue_brings_the_new_values_and_the_file_that_was_rewritten(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    first = feed.publisher.publish(mails[0])
    second = feed.publisher.publish(mails[1])
    reader.until(store, second + 1)
    last = feed.publisher.reissue(mails[0], rewritten=first)
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, *mails[:2])
    assert feed.count(f"/ephemeral/{first}.json", 200) == 2


def test_values_of_before_do_not_overwrite_newer_ones(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    feed.publisher.publish(mails[0])
    feed.publisher.reissue(mails[0])
    last = feed.publisher.stale(mails[0])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])


def test_a_killmail_that_esi_told_of_keeps_its_row_and_gets_its_values(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    now = clock.now()
    answer = Answer(mails[0].body, True, '"e"', now, now + dt.timedelta(days=30))
    ledger.request(store, [Seen("killmail", mails[0].id, mails[0].hash)])
    ledger.finish(store, "killmail", [parse(Job("killmail", mails[0].id, mails[0].hash), answer)])
    assert_stored(store, feed.publisher, mails[0])
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])
    # And the other way round: ESI says nothing of values.
    ledger.finish(store, "killmail", [parse(Job("killmail", mails[0].id, mails[0].hash), answer)])
    assert_stored(store, feed.publisher, mails[0])


def test_unknown_fields_are_ignored_and_counted(store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]) -> None:
    mail = Mail(mails[0].id, mails[0].hash, mails[0].body | {"mood": "grim"})
    last = feed.publisher.publish(mail, signature="x")
    reader.until(store, last + 1)
    reader.follower._end()
    assert_stored(store, feed.publisher, mails[0])
    assert {name for _, name, _ in notes.unknown_fields(store)} == {"mood", "signature"}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"esi": None}, "bad_field"),
    ({"esi": {"killmail_id": 7}}, "bad_field"),
    ({"hash": ""}, "bad_field"),
    ({"hash": "0" * 39}, "bad_field"),
    ({"killmail_id": -1}, "bad_field"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_a_spoiled_body_is_a_dead_letter_and_the_feed_goes_on(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], changes: dict[str, Any], reason: str
) -> None:
    bad = feed.publisher.publish(mails[0], **changes)
    last = feed.publisher.publish(mails[1])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[1])
    (letter,) = letters(store)
    assert (letter.reason, letter.entity_type) == (reason, None)
    assert f"sequence {bad}" in letter.message
    assert letter.body


@pytest.mark.parametrize(
    "changes",
    [{"zkb": None}, {"zkb": {"totalValue": "1"}}, {"zkb": {"points": 1.5}}, {"zkb": []}, {"uploaded_at": 10**18}],
    ids=str,
)
def test_a_killmail_whose_values_are_spoiled_is_stored_without_them(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], changes: dict[str, Any]
) -> None:
    last = feed.publisher.publish(mails[0], **changes)
    reader.until(store, last + 1)
    reader.follower._unknown.flush(store, now=True)
    assert letters(store) == []
    row = mirror.table(store, Killmail)[mails[0].id]
    assert (row["hash"], row["attacker_count"]) == (mails[0].hash, len(mails[0].body["attackers"]))
    assert (row["total_value"], row["points"], row["npc"]) == (None, None, None)
    assert ("killmail", "zkb (spoiled)", 1) in notes.unknown_fields(store)
    # And values that come later are taken
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"<html>", "bad_body"), (b"", "bad_body"), (b"[" * 10_000, "bad_body"), (b"[]", "bad_field"), (b"{}", "bad_field")],
    ids=repr,
)
def test_a_body_that_is_no_killmail_is_refused_once_it_stays_so(
    store: Store,
    feed: FakeFeed,
    reader: Reader,
    mails: list[Mail],
    body: bytes,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esid.feeds.follow.AGAIN_S", 0.01)
    bad = feed.publisher.publish_bytes(body)
    last = feed.publisher.publish(mails[1])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[1])
    assert [letter.reason for letter in letters(store)] == [reason]
    # What may be a gateway's page is asked for once more.
    assert feed.count(f"/ephemeral/{bad}.json", 200) == (2 if reason == "bad_body" else 1)


def test_a_body_that_is_spoiled_only_once_is_no_dead_letter(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esid.feeds.follow.AGAIN_S", 0.01)
    number = feed.publisher.publish(mails[0])
    feed.publisher.spoiled[f"/ephemeral/{number}.json"] = b"<html>"
    reader.follower.step()
    feed.publisher.spoiled.clear()
    reader.until(store, number + 1)
    assert_stored(store, feed.publisher, mails[0])
    assert letters(store) == []


def test_a_file_too_large_is_refused_with_its_beginning(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    feed.publisher.publish_bytes(b"[" + b" " * LARGEST_KILLMAIL + b"]")
    last = feed.publisher.publish(mails[1])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[1])
    assert [letter.reason for letter in letters(store)] == ["too_large"]


def rewritten(store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]) -> tuple[int, int]:
    """The numbers of a file that was read, and of the newest one, which says that the first was written anew."""
    first = feed.publisher.publish(mails[0])
    reader.until(store, first + 1)
    return first, feed.publisher.reissue(mails[1], rewritten=first)


def test_a_rewritten_file_too_large_is_refused_and_the_feed_goes_on(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    first, last = rewritten(store, feed, reader, mails)
    feed.publisher.files[first] = b"[" + b" " * LARGEST_KILLMAIL + b"]"
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, *mails[:2])
    (letter,) = letters(store)
    assert letter.reason == "too_large"
    assert f"sequence {first}" in letter.message


def test_a_rewritten_file_that_is_refused_does_not_hold_the_feed(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    first, last = rewritten(store, feed, reader, mails)
    feed.fail(f"/ephemeral/{first}.json", 410, times=1000)
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, *mails[:2])
    assert [letter.reason for letter in letters(store)] == ["http_410"]


def test_a_rewritten_file_that_is_away_for_a_moment_is_asked_for_again(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esid.feeds.follow.FIRST_WAIT_S", 0.01)
    first, last = rewritten(store, feed, reader, mails)
    feed.fail(f"/ephemeral/{first}.json", 503)
    reader.until(store, last + 1)
    assert letters(store) == []
    assert feed.count(f"/ephemeral/{first}.json", 200) == 2


def test_hashes_that_ccp_has_written_by_hand_are_stored_and_never_asked(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    mail = Mail(mails[0].id, "CCP VERIFIED", mails[0].body)
    last = feed.publisher.publish(mail)
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mail)
    assert ledger.open_count(store, ["killmail"]) == 0


def test_an_outage_is_said_once_and_nothing_is_lost(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("esid.feeds.follow.FIRST_WAIT_S", 0.01)
    caplog.set_level("INFO")
    feed.is_away = True
    for _ in range(5):
        reader.follower._rest(reader.follower.step())
    last = feed.publisher.publish(mails[0])
    feed.is_away = False
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])
    assert [record.getMessage() for record in caplog.records].count("feed.away") == 1
    assert [record.getMessage() for record in caplog.records].count("feed.back") == 1


def test_a_429_is_obeyed(store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]) -> None:
    last = feed.publisher.publish(mails[0])
    feed.fail("/ephemeral/", 429, Retry_After="1")
    started = clock.monotonic()
    reader.until(store, last + 1)
    assert clock.monotonic() - started >= 1.0
    assert feed.count("/ephemeral/", 429) == 1


def test_files_that_have_expired_are_passed_in_one_jump(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a daemon that was off for two days, and a feed that has gone on
    caplog.set_level("INFO")
    old = utc_text(clock.now() - dt.timedelta(days=2))
    store.run(lambda: store.rows("UPDATE feed_cursors SET moved_at = %s", (old,)))
    reader.follower._cursor = None
    first = feed.publisher.next_sequence
    feed.publisher.next_sequence = feed.publisher.head = first + 300
    last = feed.publisher.publish(mails[0])
    before = feed.count()
    reader.until(store, last + 1)
    # Then one file was missed, the present was asked for once, and one line says so
    assert feed.count() - before <= 4
    jumps = [record.esid_words for record in caplog.records if record.getMessage() == "feed.jumped"]  # type: ignore[attr-defined]
    assert len(jumps) == 1
    assert f"from sequence {first} to {first + 299}" in jumps[0]
    assert feed.violations() == []


def test_a_hole_after_a_long_silence_takes_no_files_with_it(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    # Given a feed that said nothing for two days, and then goes on where it stood
    old = utc_text(clock.now() - dt.timedelta(days=2))
    store.run(lambda: store.rows("UPDATE feed_cursors SET moved_at = %s", (old,)))
    reader.follower._cursor = None
    for _ in range(3):
        reader.follower._rest(reader.follower.step())
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    # When a number has no file
    feed.publisher.next_sequence += 1
    for mail in mails[1:4]:
        last = feed.publisher.publish(mail)
    feed.publisher.head = last
    reader.until(store, last + 1)
    # Then that number alone is passed
    assert_stored(store, feed.publisher, *mails[:4])


def test_a_file_too_large_after_a_wait_takes_no_file_with_it(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    # Given that a file was waited for so long that the present is to be looked up, and is too large
    reader.follower._rest(reader.follower.step())
    feed.publisher.publish_bytes(b"[" + b" " * LARGEST_KILLMAIL + b"]")
    reader.follower.step()
    for mail in mails[:2]:
        last = feed.publisher.publish(mail)
    feed.publisher.head = last
    reader.follower._rest(STUCK_S)
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, *mails[:2])


def test_a_number_without_a_file_is_passed_once_the_feed_is_beyond_it(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    feed.publisher.next_sequence += 1
    last = feed.publisher.publish(mails[0])
    feed.publisher.head = last
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])
    assert feed.violations() == []


def test_a_long_row_of_numbers_without_files_ends_in_the_present(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail]
) -> None:
    feed.publisher.next_sequence += 40
    last = feed.publisher.publish(mails[0])
    feed.publisher.head = last
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])
    assert feed.count("/ephemeral/9", 404) < 30


def test_a_sequence_that_was_begun_anew_is_followed(
    store: Store, feed: FakeFeed, reader: Reader, mails: list[Mail], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    feed.publisher.next_sequence = feed.publisher.head = 100
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])


def test_a_quiet_feed_is_asked_again_after_its_wait_and_no_sooner(store: Store, feed: FakeFeed, reader: Reader) -> None:
    for _ in range(8):
        reader.follower._rest(reader.follower.step())
    assert feed.violations() == []
    assert stands_at(store) == feed.publisher.next_sequence


def test_a_present_that_is_no_number_is_an_outage_and_not_an_end(
    store: Store, feed: FakeFeed, mails: list[Mail], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esid.feeds.follow.FIRST_WAIT_S", 0.01)
    feed.publisher.spoiled["/ephemeral/sequence.json"] = json.dumps({"sequence": "x"}).encode()
    reader = Reader(store, feed, tmp_path)
    reader.follower.step()
    feed.publisher.spoiled.clear()
    last = feed.publisher.publish(mails[0])
    reader.until(store, last + 1) if cursors.states(store)[0]["position"] else reader.follower.step()
    reader.until(store, last + 1)
    assert_stored(store, feed.publisher, mails[0])
