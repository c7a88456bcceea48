"""`esid dead`: dead letters."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence

from esid import render, typed
from esid.commands.terminal import print_json, print_lines
from esid.daemon import parts
from esid.errors import UsageError
from esid.settings import Settings
from esid.store import dead_letters
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter


def dead(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid dead`: its exit code."""
    wanted = Filter(
        ids=tuple(typed.id_of(token) for token in options.ids),
        entity=options.entity,
        reason=options.reason,
        since=typed.since(options.since) if options.since else None,
    )
    if options.verb in {"retry", "drop"} and wanted == Filter() and not options.all:
        raise UsageError(f"`esid dead {options.verb}` of which: name numbers or a filter, or say --all")
    store = parts.ready_store(chosen)
    letters = dead_letters.find(store, wanted)
    if not letters and (options.verb == "show" or (options.ids and options.verb == "retry")):
        raise UsageError("no such dead letter; `esid dead list` lists them")
    if options.verb == "list" and not letters and wanted != Filter() and not options.json:
        print_lines(render.no_such_letters(dead_letters.reasons(store)))
    elif options.verb in {"list", "show"}:
        _print(letters, options)
    else:
        act = parts.open_requests(chosen, store).retry_dead if options.verb == "retry" else _dropper(store)
        count = act(wanted)
        done = "put back into the queue" if options.verb == "retry" else "dropped"
        print_json({"count": count}) if options.json else print(f"{count:,} {done}")
    store.close()
    return 0


def _dropper(store: Store) -> Callable[[Filter], int]:
    return lambda wanted: dead_letters.drop(store, wanted)


def _print(letters: Sequence[DeadLetter], options: argparse.Namespace) -> None:
    if options.json:
        print_json([dataclasses.asdict(letter) for letter in letters])
    elif options.verb == "show":
        print_lines(line for letter in letters for line in render.letter(letter))
    else:
        print_lines(render.letters(letters))
