"""`esid dead`: dead letters."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from esid.assembly import core
from esid.cli import render, typed
from esid.cli.printing import columns, confirmed, print_json, print_lines
from esid.errors import UsageError
from esid.settings import Settings
from esid.store import dead_letters
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.words import counted


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid dead`: its exit code."""
    wanted = Filter(
        ids=tuple(map(_number, options.ids)),
        entities=_entities(options.entity),
        reason=options.reason,
        since=typed.since(options.since) if options.since is not None else None,
    )
    acts = options.verb in {"retry", "drop"}
    if acts and wanted == Filter() and not options.all:
        raise UsageError(f"`esid dead {options.verb}` of which: name numbers or a filter, or say --all")
    store = core.ready_store(chosen)
    letters = dead_letters.find(store, wanted)
    _check_numbers(options.verb, wanted, letters)
    code = _act(options, chosen, store, wanted) if acts else _look(options, store, wanted, letters)
    store.close()
    return code


def _number(token: str) -> int:
    try:
        return typed.id_of(token)
    except UsageError:
        raise UsageError(f"{token[:60]!r} is no number of a dead letter; `esid dead list` lists them") from None


def _entities(name: str | None) -> tuple[str, ...]:
    """The list of alliances has the name that people give to alliances."""
    if name == "alliances":
        return ("alliance", "alliances")
    return (name,) if name else ()


def _check_numbers(verb: str, wanted: Filter, letters: Sequence[DeadLetter]) -> None:
    """Raises UsageError where a number that was typed is that of no letter (that fits): nothing has been done then."""
    if verb == "list":
        return
    there = {letter.id for letter in letters}
    missing = [str(number) for number in wanted.ids if number not in there]
    if missing and there:
        raise UsageError(f"no such dead letter: {', '.join(missing[:20])}; `esid dead list` lists them")
    if missing or (verb == "show" and not letters):
        raise UsageError("no such dead letter; `esid dead list` lists them")


def _act(options: argparse.Namespace, chosen: Settings, store: Store, wanted: Filter) -> int:
    if options.verb == "retry":
        done, words = core.open_requests(chosen, store).retry_dead(wanted), "put back into the queue"
    else:
        # What was named by its number is meant; a filter may fit more than somebody thinks.
        count = 0 if wanted.ids or options.yes else dead_letters.count(store, wanted)
        if count and not confirmed(f"Drop {counted(count, 'dead letter')} for good (the ids stay failed)?"):
            return 2
        done, words = dead_letters.drop(store, wanted), "dropped"
    print_json({"count": done}) if options.json else print(f"{done:,} {words}")
    return 0


def _look(options: argparse.Namespace, store: Store, wanted: Filter, letters: Sequence[DeadLetter]) -> int:
    if options.json:
        print_json([dataclasses.asdict(letter) for letter in letters])
    elif options.verb == "show":
        print_lines(line for letter in letters for line in render.letter(letter))
    elif not letters and wanted != Filter():
        print_lines(render.no_such_letters(dead_letters.reasons(store)))
    else:
        print_lines(render.letters(letters, columns()))
    return 0
