"""Attempts come to an end, whatever else is learned of the same ids meanwhile."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

from esid import clock
from esid.entities import BY_NAME
from esid.entities.base import Failed
from esid.errors import EsiError, EsiUnavailable, NotFound, Refused
from esid.esi.answers import Answer
from esid.esi.routes import Route
from esid.queue.asking import Asking
from esid.queue.attempts import Attempts
from esid.queue.dispatch import dispatch
from esid.queue.middleware.crashes import Crashes
from esid.queue.publish import Publisher
from esid.queue.work import Work
from esid.store import dead_letters, ledger
from esid.store.connection import Store
from esid.store.dead_letters import Filter
from esid.store.ledger import due
from esid.store.model import Done, Failure, Seen, utc_time
from tests.tools.messages import Inbox

CHARACTER = BY_NAME["character"]
H1, H2 = "a" * 40, "b" * 40


class HalfAnEsi:
    """Bulk routes that work, and a route for details that does not."""

    def __init__(self, error: EsiError) -> None:
        self._error, self.asked, self.has_others = error, 0, True

    def get(self, *_: Any, **__: Any) -> Answer:
        """Never."""
        self.asked += 1
        raise self._error

    def retry_wait_s(self, _: Route, wait_s: float) -> float:
        """Nobody else waits."""
        return wait_s

    def was_outage(self, *_: Any) -> bool:
        """Never."""
        return False

    def is_doubted(self, *_: Any) -> bool:
        """Never."""
        return False

    def has_answered(self, _: str) -> bool:
        """As it may be."""
        return self.has_others

    def post(self, route: Route, ids: Any, *_: Any, **__: Any) -> Answer:
        """Always."""
        now = clock.now()
        named, known = {"name": "x", "category": "character"}, {"corporation_id": 1_000_001}
        is_names = route.path.endswith("names")
        rows = [{"id": key, **named} if is_names else {"character_id": key, **known} for key in ids]
        return Answer(rows, True, None, now, now + dt.timedelta(hours=1))


def letters(store: Store) -> list[tuple[int | None, str]]:
    """Ids and reasons of what is given up."""
    return sorted((one.entity_id, one.reason) for one in dead_letters.find(store, Filter()))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("error", "attempts"), [(NotFound("HTTP 404", status=404), 3), (EsiUnavailable("HTTP 502", status=502), 10)]
)
def test_characters_that_fail_together_are_given_up_though_their_affiliations_are_known(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: EsiError, attempts: int
) -> None:
    # Given more characters than go into one small message, whose details cannot be had
    moved = [dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)]
    monkeypatch.setattr(clock, "now", lambda: moved[0])
    inbox, esi = Inbox(), HalfAnEsi(error)
    publisher = Publisher(store, inbox, "t")  # type: ignore[arg-type]
    work = Work(store, esi, publisher, ["character"])  # type: ignore[arg-type]
    keys = range(90_000_001, 90_000_031)
    list(Asking(store, publisher, "t").enqueue(CHARACTER, [(key, None) for key in keys]))

    # When two hours go by
    for _ in range(240):
        dispatch(store, publisher, ["character"])
        while inbox.messages:
            work.perform(CHARACTER, list(inbox.messages.pop(0).args[0]))
        moved[0] += dt.timedelta(seconds=30)

    # Then each was asked as often as the table says, and is a dead letter
    assert esi.asked == attempts * len(keys)
    assert letters(store) == [(key, error.reason) for key in keys]


def test_what_is_learned_on_the_way_forgives_no_attempt_and_drops_no_letter(store: Store) -> None:
    def learn(*, unfinished: bool) -> None:
        ledger.take(store, "character", [1])
        ledger.finish(store, "character", [Done(1, checked_at=clock.now(), unfinished=unfinished)])

    ledger.request(store, [Seen("character", 1)])
    ledger.retry(store, "character", {1: 0.0}, {1: Failure("not_found", "HTTP 404")})
    learn(unfinished=True)
    job = ledger.job(store, "character", 1)
    assert job
    assert (job["retry_count"], job["error"]) == (1, "not_found: HTTP 404")
    ledger.retry(store, "character", {}, {1: Failure("not_found", "HTTP 404")})
    ledger.request(store, [Seen("character", 1)])
    learn(unfinished=True)
    assert letters(store) == [(1, "not_found")]
    learn(unfinished=False)
    assert letters(store) == []


def test_what_somebody_else_has_done_meanwhile_has_not_failed(store: Store) -> None:
    # Given two deliveries of one id, of which the second succeeds before the failure of the first is written down
    ledger.request(store, [Seen("corporation", 5)])
    (job,) = ledger.take(store, "corporation", [5])
    ledger.finish(store, "corporation", [Done(5, checked_at=clock.now(), expires_at=clock.now())])
    book(store, Failed(job, NotFound("HTTP 404", status=404)))
    assert ledger.states(store, "corporation", [5]) == [(5, "completed")]
    assert letters(store) == []


def test_a_hash_that_was_put_right_while_the_wrong_one_was_asked_is_asked(store: Store) -> None:
    ledger.request(store, [Seen("killmail", 7, H1)])
    (job,) = ledger.take(store, "killmail", [7])
    assert ledger.request(store, [Seen("killmail", 7, H2)]).queued == (7,)
    book(store, Failed(job, Refused("HTTP 422", status=422, reason="wrong_pair")))
    assert letters(store) == []
    assert [one.argument for one in ledger.take(store, "killmail", [7])] == [H2]


@pytest.mark.parametrize("words", ["bad \ud800", "bad \0", "B\0a\0d\0"])
def test_words_that_no_database_keeps_are_kept_in_other_words(store: Store, words: str) -> None:
    ledger.request(store, [Seen("corporation", 5)])
    (job,) = ledger.take(store, "corporation", [5])
    book(store, Failed(job, NotFound(words, status=404)))
    assert letters(store) == [(5, "not_found")]
    dead_letters.add_message(store, "bad_message", words, words)
    assert len(letters_of_messages(store)) == 1


def test_an_end_that_cannot_be_written_for_a_reason_of_our_own_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> set[int]:
        raise ValueError("of our own")

    ledger.request(store, [Seen("corporation", 5)])
    monkeypatch.setattr(ledger, "retry", broken)
    message = SimpleNamespace(requeue=False, actor_name="corporation", args=([5],))
    crashed: Any = Crashes(store)
    crashed.after_process_message(None, message, exception=RuntimeError("boom"))
    assert not message.requeue
    assert [record.getMessage() for record in caplog.records] == ["work.unbooked"]


@pytest.mark.parametrize("has_others", [True, False])
@pytest.mark.parametrize("error", [NotFound("HTTP 404", status=404), Refused("HTTP 422", status=422)], ids=repr)
def test_what_is_refused_while_nobody_else_is_answered_is_asked_again_soon_for_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: EsiError, has_others: bool
) -> None:
    # Given an id that never had an answer, and a route that has (or has not) answered somebody lately
    moved = [dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)]
    monkeypatch.setattr(clock, "now", lambda: moved[0])
    error.path = "/corporations/{id}"
    waits_s = list[float]()
    ledger.request(store, [Seen("corporation", 5)])
    for _ in range(30):
        (job,) = ledger.take(store, "corporation", [5])
        book(store, Failed(job, error), has_others=has_others)
        letter = ledger.job(store, "corporation", 5)
        assert letter
        assert letter["status"] == "failed"
        at = utc_time(letter["next_at"])
        assert at
        waits_s.append((at - moved[0]).total_seconds())
        moved[0] = at
        assert due.by_schedule(store, "corporation", 10) == [5]
    # Then it is believed at once, or when it has said so for a day
    seldom_s = 7 * 86_400.0 if isinstance(error, Refused) or not has_others else 21 * 86_400.0
    assert waits_s == ([seldom_s] * 30 if has_others else [3600.0] * 25 + [seldom_s] * 5)


def letters_of_messages(store: Store) -> list[str]:
    """What is given up and names no id."""
    return [one.message for one in dead_letters.find(store, Filter()) if one.entity_id is None]


def book(store: Store, failed: Failed, *, has_others: bool = True) -> None:
    """Write down a failed attempt as the unit of work does."""
    client: Any = HalfAnEsi(failed.error)
    client.has_others = has_others
    entity = BY_NAME[failed.job.entity]
    ledger.book(store, entity.name, Attempts(client).judge(entity, [failed]))
