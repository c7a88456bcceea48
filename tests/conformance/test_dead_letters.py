"""Dead letters stay few on both databases, and lose as little as possible by that."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from esid import clock
from esid.cli import render
from esid.queue.asking import Asking
from esid.queue.broker import open_broker
from esid.queue.publish import Publisher
from esid.schedule import tasks
from esid.store import counters, dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.model import Failure, Seen, utc_text


def foreign(number: int) -> str:
    """A message whose actor nobody knows."""
    message = dramatiq.Message(queue_name="esid.corporation", actor_name="war", args=(number,), kwargs={}, options={})
    return message.encode().decode()


def test_messages_of_which_the_same_is_to_be_said_are_one_letter_with_a_count(store: Store) -> None:
    for number in range(50):
        dead_letters.add_message(store, "bad_message", "not JSON", f"{number}")
    dead_letters.add_message(store, "bad_message", "no ids", "x")
    newest, other = sorted(dead_letters.find(store, Filter()), key=lambda one: -one.count)
    assert (newest.count, newest.message, newest.body) == (50, "not JSON", "49")
    assert newest.first_at < newest.last_at
    assert other.count == 1
    assert dead_letters.reasons(store) == [(None, "bad_message", 51)]
    listed = list(render.letters([newest]))
    assert listed[0].split()[6] == "count"
    assert " 50 " in listed[1]
    assert any("count" in line and "50" in line for line in render.letter(newest))


def test_a_retry_sends_each_message_of_an_unknown_actor_that_was_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more of them than are kept, and one that came twice
    monkeypatch.setattr(dead_letters, "MOST_BODIES", 10)
    bodies = [foreign(number) for number in range(40)]
    for body in [bodies[0], *bodies]:
        dead_letters.add_message(store, "unknown_actor", "war is not defined", body)
    assert len(dead_letters.find(store, Filter())) == 11
    assert dead_letters.reasons(store) == [(None, "unknown_actor", 41)]
    assert sorted(one.count for one in dead_letters.find(store, Filter())) == [*[1] * 9, 2, 30]
    # When they are sent again
    requests = Asking(store, Publisher(store, open_broker(store, None, "esid"), "esid"), "esid")
    assert requests.retry_dead(Filter(reason="unknown_actor")) == 11
    # Then all bodies that were kept are in the queue, and no letter is left
    with store.connection():
        sent = [json.loads(body)["args"][0] for (body,) in store.rows("SELECT body FROM messages")]
    assert sorted(sent) == [*range(10), 39]
    assert dead_letters.find(store, Filter()) == []


def test_above_a_cap_what_there_is_most_of_loses_its_oldest_letters_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a flood of ids that fail alike beside a few letters of other kinds
    monkeypatch.setattr(dead_letters, "MOST_LETTERS", 100)
    monkeypatch.setattr(dead_letters, "_AT_ONCE", 30)
    flood = list(range(1, 201))
    ledger.request(store, [Seen("corporation", key) for key in flood])
    ledger.request(store, [Seen("alliance", 7)])
    dead_letters.add_message(store, "unknown_actor", "war is not defined", foreign(1))
    ledger.retry(store, "alliance", {}, {7: Failure("not_found", "404")})
    old = utc_text(clock.now() - dt.timedelta(days=100))
    store.run(lambda: store.rows("UPDATE dead_letters SET first_at = %s, last_at = %s", (old, old)))
    for key in flood:
        ledger.retry(store, "corporation", {}, {key: Failure("http_400", "HTTP 400")})
    # When the sweep comes by, twice
    unused: Any = None
    monkeypatch.setattr(tasks, "sweep", lambda *_: 0)
    sweep = tasks.works(store, unused, unused)["sweep"]
    with caplog.at_level(logging.WARNING):
        sweep()
        sweep()
    # Then the flood alone was cut to the cap, newest kept, with one line; the ids stay failed with their error
    left = dead_letters.find(store, Filter())
    assert len(left) == 100
    assert {one.reason for one in left if one.entity_type != "corporation"} == {"unknown_actor", "not_found"}
    assert {one.entity_id for one in left if one.entity_type == "corporation"} == set(flood[-98:])
    (words,) = [vars(record)["esid_words"] for record in caplog.records]
    assert "only 100 dead letters are kept: the 102 oldest of corporation, http_400, are forgotten" in words
    # And how many is counted for good
    assert dead_letters.forgotten(counters.values(store)) == [("corporation", "http_400", 102)]
    shown = ledger.job(store, "corporation", 1)
    assert shown
    assert (shown["status"], shown["error"]) == ("failed", "http_400: HTTP 400")


def test_letters_that_are_forgotten_while_the_answer_is_lost_are_counted_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, lose_an_answer: Callable[[], None]
) -> None:
    monkeypatch.setattr(dead_letters, "MOST_LETTERS", 5)
    for number in range(12):
        dead_letters.add_message(store, "bad_message", f"not a message: {number}", "")
    dead_letters.add_message(store, "bad_message", "the newest", "")
    lose_an_answer()
    assert dead_letters.prune(store) == {(None, "bad_message"): 8}
    assert len(dead_letters.find(store, Filter())) == 5
    assert dead_letters.forgotten(counters.values(store)) == [(None, "bad_message", 8)]
