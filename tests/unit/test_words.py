"""Numbers and names in English, and tables that fit a terminal."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest

from esid import words
from esid.catalogue import NAMES
from esid.cli import overview, render
from esid.cli.watch import foot, moved
from esid.entities import ENTITIES
from esid.store.dead_letters import DeadLetter
from tests.tools.daemon import ROOT

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("number", "forms", "text"),
    [
        (0, ("id",), "0 ids"),
        (1, ("id",), "1 id"),
        (2, ("id",), "2 ids"),
        (94_259_891, ("killmail",), "94,259,891 killmails"),
        (1, ("job waits", "jobs wait"), "1 job waits"),
        (1000, ("job waits", "jobs wait"), "1,000 jobs wait"),
    ],
)
def test_a_number_and_what_it_counts(number: int, forms: tuple[str, ...], text: str) -> None:
    assert words.counted(number, *forms) == text


def test_no_sentence_has_a_plural_behind_a_number_that_may_be_one() -> None:
    # A number (no constant, and none that has its word), at most one word, and what it counts
    number = r"\{(?!counted|[^{}]*MOST_)[^{}]*(?:len\(|:,|count|dropped)[^{}]*\} (?:[a-z]+ )?"
    what = "ids|jobs|killmails|messages|rows|days|characters|members|lines|letters|threads|ticks|samples|times"
    found = [
        line.strip()
        for path in (ROOT / "esid").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"{number}(?:{what})\b(?!/)", line)
    ]
    assert found == []


@pytest.mark.parametrize("name", NAMES)
def test_an_entity_has_its_name_in_the_singular_and_the_plural(name: str) -> None:
    assert {words.entity(one) for one in (name, f"{name}s", name.upper(), f"{name.title()}S", f" {name} ")} == {name}


@pytest.mark.parametrize("word", ["", "s", "all", "pilot", "corpse", "npccorps", "alliance_corporations", "Kills and more"])
def test_another_word_stays_as_it_is(word: str) -> None:
    assert words.entity(word) == word


def busy() -> dict[str, Any]:
    """The state of a daemon with much of everything and trouble at hand, as `esid status --json` has it."""
    entities = ("alliances", "npccorps", "alliance", "alliance_corporations", "corporation", "character", "killmail")
    many, work = 94_259_891, {"entity": "corporation", "id": 98_132_409, "ids": 20, "for_s": 61}
    job = {
        "name": "refresh_character", "schedule": "17 */2 * * *", "last_run": "2026-11-24T12:00:00", "last_result": "failed",
        "last_duration_s": 123.4, "next_run": "2026-11-24T14:17:00", "last_words": "cannot be reached: " + "x" * 90,
    }  # fmt: skip
    bucket = {
        "group": "corporation-member", "limit": 3600, "window_s": 900, "available": 3528, "reserve": 72, "waiting": 120,
    }  # fmt: skip
    limits = {
        "error_limit": 100, "error_remain": 42, "error_reserve": 10, "error_reset_s": 37.0, "waiting": 1200,
        "in_flight": 64, "max_in_flight": 64, "rps": 49.98, "max_rps": 50, "requests": many, "errors": 1234,
        "not_modified": 9_425_989, "members": 3, "paused_s": 55,
        "buckets": [{**bucket, "closed_s": 0}, {**bucket, "closed_s": 899}],
        "breaker": {"state": "open", "open_s": 12_345.0, "routes": ["/characters/{character_id}/"]},
    }  # fmt: skip
    process = {"kind": "scheduler", "name": "a-long-host-name:25509:1", "up_s": 86_399, "doing": [work] * 16}
    rates = {"ids_per_s": 1234.5, "failed_per_s": 0.01, "requests_per_s": 49.9}
    return {
        "version": "0.1.0", "database": "sqlite:////srv/esid.db", "daemon": "pid 25509 since 2026-11-24 08:37:37 UTC",
        "audit": {}, "restarts": {}, "limits": limits,
        "queues": {"reachable": True, "pending": {f"esid.{name}": many for name in entities}},
        "ledger": {name: dict.fromkeys(("pending", "processing", "completed", "failed"), many) for name in entities},
        "oldest_open_s": dict.fromkeys(entities, 86_399.0),
        "freshness": {name: {"known": many, "fresh": 9, "share": 0.9999, "oldest_s": 200_000} for name in entities},
        "throughput": [{"minutes": minutes, **rates} for minutes in (1, 15, 60)],
        "processes": [process] * 3, "schedule": [job] * 9, "feeds": [],
        "killmail_days": [{"day": "2026-11-23", "have": 16_000, "expected": 16_100, "missing": 100}],
        "dead_letters": [{"entity": "alliance_corporations", "reason": "unavailable", "count": 1}], "unknown_fields": [],
        "dead_letters_forgotten": [{"entity": None, "reason": "bad_message", "count": 1}],
        "trouble": ["ESI has been away for 3 h; work waits, nothing is lost.", "refresh_character failed: " + "x " * 60],
    }  # fmt: skip


def test_every_list_is_called_something_in_words() -> None:
    lists = [entity.name for entity in ENTITIES if entity.most is not None]
    assert {words.called(name) for name in lists} & {one.name for one in ENTITIES} == set()
    assert max(len(words.called(entity.name)) for entity in ENTITIES) <= 22
    assert words.called("character") == "character"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_overview_fits_a_terminal(width: int) -> None:
    lines = list(overview.lines(busy(), width))

    assert [line for line in lines if len(line) > width] == []
    assert [line for line in lines if "1 ids" in line] == []
    # What is wrong comes before everything else
    assert lines[2].startswith("attention")
    # Lists have words, which fit their column
    assert [line for line in lines if "npccorps" in line and "pending" not in line] == []
    assert sum(line.startswith("  NPC corporation list ") for line in lines) == 2
    # Where nobody looks at columns nothing is left out
    assert any(line.endswith("x" * 90) for line in overview.lines(busy()))


def test_letters_keep_their_message_on_a_narrow_terminal() -> None:
    one = DeadLetter(
        77, "alliance_corporations", 2**62, "unavailable", "ESI says " + "no " * 40, 5, 500, None, None, None, NOW, NOW, 1
    )

    for width in (80, 120):
        lines = list(render.letters([one], width))
        assert max(map(len, lines)) <= width
        assert "ESI says no" in lines[1]
        assert lines[0].split()[0] == "number"


def test_a_bar_is_full_at_the_end_alone() -> None:
    assert "100 %  7 of 7" in render.bar(7, 7, 0.0)
    assert " 99 %  999 of 1,000" in render.bar(999, 1000, 10.0)
    # What was expected was too little, or too much
    assert " 99 %  100 of 101" in render.killmail_bar(100, 90, 10.0)
    for expected in (90, 110):
        assert "100 %  100 of 100" in render.killmail_bar(100, expected, 10.0, is_end=True)
    assert render.killmail_bar(1, None, 1.0).startswith("1 killmail ")


TEXT = [
    "esid",
    "daemon",
    "",
    "Ledger  pending",
    "  alliance",
    "",
    "Queues (esid)",
    "  one",
    "",
    "Freshness    known",
    "  one",
]


def test_the_foot_says_what_is_below() -> None:
    assert foot(TEXT, 0, 5).endswith("6 lines below: Queues, Freshness")
    assert foot(TEXT, 4, 6).endswith("1 line below")
    assert foot(TEXT, 5, 6).endswith("the end")
    assert foot(TEXT, 0, 11) == "q quits"


@pytest.mark.parametrize(
    ("key", "top", "after"),
    [
        ("j", 0, 1),
        ("k", 0, 0),
        ("down", 6, 6),
        ("page down", 0, 5),
        ("page up", 6, 1),
        ("G", 0, 6),
        ("g", 6, 0),
        ("x", 3, 3),
    ],
)
def test_keys_never_leave_the_text(key: str, top: int, after: int) -> None:
    assert moved(key, top, 5, 11) == after
    assert moved(key, 0, 20, 11) == 0
