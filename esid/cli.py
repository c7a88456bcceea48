"""The command line: arguments and printing; no logic.

Exit codes
----------
0    done
1    `esid enqueue --wait` or `esid sync --wait`: some ids failed (see `esid dead list`); `esid show`: nothing is known
     of the id; `esid import`, `esid heal`: some days or killmails could not be had, the others are there
2    what was typed cannot be meant
65   the database's schema is older or newer, or the file is damaged
69   database, RabbitMQ, the status server's address or a source of killmails cannot be had
70   an error of our own, or a child process that cannot start or would not stay alive
75   another daemon runs on this database file
77   a file or directory cannot be read or written
78   a setting is missing, wrong or unknown; the database or RabbitMQ refused user or password
130  interrupted from the keyboard
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from esid import __version__, log, settings
from esid.errors import EsidError
from esid.settings import ENTITY_NAMES
from esid.typed import IMPORT_SOURCES, LIST_NAMES, SYNC_NAMES, Parser

#: What was typed, and the settings; its exit code.
_Command = Callable[[argparse.Namespace, settings.Settings], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # Whatever is written (database, budget, lock) is for this user alone.
    os.umask(0o077)
    code, words = 0, ""
    try:
        code, words = _attempt(arguments)
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ENOSPC}:
            raise
        # What is left is not written once more at the exit. A reader that has had enough is no fault.
        _leave_unread(1)
        if error.errno == errno.ENOSPC:
            code, words = 77, f"standard output cannot be written: {error.strerror}"
    if words:
        try:
            print(f"esid: {log.printable(log.redacted(words))}", file=sys.stderr, flush=True)
        except OSError:
            _leave_unread(2)  # the exit code tells
    return code


def _leave_unread(descriptor: int) -> None:
    """Nobody reads what is written there; Python's own end would fall over what is left in its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _attempt(arguments: Sequence[str] | None) -> tuple[int, str]:
    """The exit code, and what is wrong in words."""
    try:
        return _run(_parse(arguments)), ""
    except EsidError as error:
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        return 130, ""
    except SystemExit as after_help:
        return int(after_help.code or 0), ""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was typed; an unknown option is an error of the command that it was typed for."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _run(options: argparse.Namespace) -> int:
    if options.name == "version":
        print(f"esid {__version__}")
        return 0
    chosen = settings.read()
    log.hide(*chosen.secrets)
    for warning in chosen.warnings:
        print(f"esid: warning: {warning}", file=sys.stderr)
    return _command(options.command)(options, chosen)


def _command(name: str) -> _Command:
    """The function of a command. Only what it needs is imported: one of people is to answer at once."""
    module, _, function = name.partition(":")
    # What is imported stays; looking for garbage in it takes an eighth of the time.
    gc.disable()
    found: _Command = getattr(import_module(f"esid.commands.{module}"), function)
    gc.freeze()
    gc.enable()
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="esid", description="Keeps a local database equal to EVE Online's public ESI data.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, command: str, help_: str, example: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, help=help_, description=help_, epilog=f"example: {example}", formatter_class=argparse.RawTextHelpFormatter
        )
        added.set_defaults(command=command, parser=added)
        return added

    run = add("run", "daemon:run", "Run the daemon in the foreground.", "esid run --actors alliance,corporation")
    run.add_argument("--actors", metavar="A,B", help=f"work on these only: {', '.join(ENTITY_NAMES)}")
    run.add_argument("--processes", metavar="N", help="worker processes")
    run.add_argument("--threads", metavar="N", help="threads of each worker process")
    run.add_argument(
        "--no-scheduler",
        action="store_true",
        help="start no syncs by itself; on PostgreSQL another daemon does, and retries too",
    )
    run.add_argument("--no-feed", action="store_true", help="read no killmail feed; another daemon on the database does")

    enqueue = add(
        "enqueue",
        "asking:enqueue",
        "Ask for ids.",
        "esid enqueue character 12345678\n         esid enqueue killmail - < ids",
    )
    enqueue.add_argument("entity", choices=ENTITY_NAMES, metavar="ENTITY", help=", ".join(ENTITY_NAMES))
    enqueue.add_argument(
        "ids", nargs="+", metavar="ID", help="ids (a killmail is ID:HASH or a link to it), or - for standard input"
    )

    sync = add("sync", "asking:sync", "Start a full sync.", "esid sync all --wait")
    sync.add_argument("what", choices=[*SYNC_NAMES, "all"], metavar="WHAT", help=", ".join([*SYNC_NAMES, "all"]))
    for waiting in (enqueue, sync):
        waiting.add_argument("--wait", action="store_true", help="wait until it is done, with a progress bar")
        waiting.add_argument("--json", action="store_true", help="print the result as JSON")

    _add_sources(add)
    state = add("status", "looking:status", "Show queues, ledger, limits and dead letters.", "esid status --watch")
    state.add_argument("--json", action="store_true", help="print everything as JSON")
    state.add_argument("--watch", action="store_true", help="again every 2 seconds")

    plans = add("schedule", "schedule:schedule", "List the schedule, or run a job now.", "esid schedule run sync_alliance")
    plans.add_argument("verb", nargs="?", choices=["list", "run"], default="list", metavar="VERB", help="list, run")
    plans.add_argument("jobs", nargs="*", metavar="NAME", help="jobs to run, as `esid schedule` prints them")
    plans.add_argument("--json", action="store_true", help="print the list as JSON")

    purge = add("purge", "asking:purge", "Empty our queues (no others).", "esid purge killmail --yes")
    purge.add_argument("entities", nargs="*", metavar="ENTITY", help="these queues only")
    purge.add_argument("--yes", action="store_true", help="do not ask")

    _add_dead(add)
    one = add("show", "looking:show", "Show one row, its freshness and its job.", "esid show alliance 99000006")
    one.add_argument("entity", choices=ENTITY_NAMES, metavar="ENTITY", help=", ".join(ENTITY_NAMES))
    one.add_argument("id", metavar="ID")
    one.add_argument("--json", action="store_true", help="print it as JSON")
    add("migrate", "migrate:migrate", "Bring the database's schema up to this program's.", "esid migrate")
    add("config", "config:config", "Show every setting in force and where it came from.", "esid config --json").add_argument(
        "--json", action="store_true", help="print it as JSON"
    )
    add("version", "config:config", "Print the version.", "esid version")
    return parser


def _add_sources(add: Callable[..., argparse.ArgumentParser]) -> None:
    example = "esid import killmails --from 2021-11-29 --to 2021-12-03"
    bring = add(
        "import",
        "killmails:import_",
        "Import killmails from day archives; again is harmless, and goes on where it stopped.",
        example,
    )
    bring.add_argument("what", choices=["killmails"], metavar="WHAT", help="killmails")
    bring.add_argument("--from", dest="first", metavar="DAY", help="the first day")
    bring.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: the first)")
    bring.add_argument("--dir", metavar="PATH", help="a folder with archives, instead of the network")
    help_ = "everef: archives of EVE Ref (default); zkillboard: its raw files; esi: its hashes, bodies from ESI"
    bring.add_argument("--source", choices=IMPORT_SOURCES, default=IMPORT_SOURCES[0], metavar="SOURCE", help=help_)
    bring.add_argument("--processes", metavar="N", help="processes (default: one for each core)")
    bring.add_argument("--again", action="store_true", help="read archives again that were read to their end")
    heal = add(
        "heal",
        "killmails:heal",
        "Compare killmails by day with zKillboard's totals and fetch what is missing.",
        "esid heal --since 2026-10-01",
    )
    heal.add_argument("--since", metavar="AGE|DATE", help="every day since then (default: 14d)")
    for command in (bring, heal):
        command.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_dead(add: Callable[..., argparse.ArgumentParser]) -> None:
    dead = add("dead", "letters:dead", "List, show, retry or drop dead letters.", "esid dead retry --reason unavailable")
    dead.add_argument("verb", choices=["list", "show", "retry", "drop"], metavar="VERB", help="list, show, retry, drop")
    dead.add_argument("ids", nargs="*", metavar="NUMBER", help="numbers of dead letters, as `esid dead list` prints them")
    dead.add_argument("--entity", choices=[*LIST_NAMES, *ENTITY_NAMES], metavar="ENTITY", help="only of this entity")
    dead.add_argument("--reason", help="only with this reason")
    dead.add_argument("--since", metavar="AGE|DATE", help="only since then: 2d, 12h or 2026-11-24")
    dead.add_argument("--all", action="store_true", help="retry or drop all of them")
    dead.add_argument("--json", action="store_true", help="print the result as JSON")
