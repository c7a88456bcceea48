"""The grammar of the command line: commands, their words and options. Reads nothing, does nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from esid import __version__, words
from esid.catalogue import LANES, NAMES
from esid.cli.typed import ALL_NAMES, IMPORT_SOURCES, LIST_NAMES, ROW_NAMES, SYNC_NAMES
from esid.errors import UsageError
from esid.settings import nearest

_ABOUT = "Keeps a local database equal to EVE Online's public ESI data."
_EPILOG = "`esid help COMMAND` shows its options and an example."


class Parser(argparse.ArgumentParser):
    """Errors are one line, with the nearest word that would have been right; no option may be shortened, and each may stand
    anywhere."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options first: behind one, argparse takes words for unknown where it could have done with fewer before."""
        return super().parse_known_args(self._options_first(args), namespace)

    def _options_first(self, typed: Sequence[str]) -> list[str]:
        """What was typed, with the options that are known here (and their values) before everything else."""
        known = {name: action for action in self._actions if action.dest != "help" for name in action.option_strings}
        options: list[str] = []
        rest: list[str] = []
        left = list(typed)
        while left and left[0] != "--":
            word = left.pop(0)
            name, _, value = word.partition("=")
            (options if name in known else rest).append(word)
            if name in known and not value and known[name].nargs != 0 and left:
                options.append(left.pop(0))
        return options + rest + left

    def error(self, message: str) -> NoReturn:
        typed = message.partition("invalid choice: '")[2].partition("'")[0]
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [word for action in self._actions for word in (*(action.choices or ()), *action.option_strings)]
        hint = nearest(typed or unknown, [str(word) for word in known]) if typed or unknown else ""
        raise UsageError(f"{message}{hint} (see `{self.prog} --help`)")


def _add_env_file(parser: argparse.ArgumentParser) -> None:
    """Before and behind the command; what was not typed is not set, or the second place would take the first one back."""
    help_ = "file with settings (default: $ESID_ENV_FILE, /etc/esid/esid.env, .env)"
    parser.add_argument("--env-file", metavar="PATH", default=argparse.SUPPRESS, help=help_)


class Grammar:
    """All commands.

    Attributes:
        parser: of the whole line. A namespace has `name` and `parser` of the command; None where none was typed.
        commands: name -> parser.
    """

    def __init__(self) -> None:
        self.parser = Parser(prog="esid", description=_ABOUT, epilog=_EPILOG)
        self.parser.add_argument(
            "--version", "-V", action="version", version=f"esid {__version__}", help="print the version"
        )
        self.parser.add_argument(
            "--json", dest="json_first", action="store_true", help="print JSON, also behind the command"
        )
        _add_env_file(self.parser)
        self._adding = self.parser.add_subparsers(dest="name", metavar="COMMAND", parser_class=Parser)
        self._add_daemon()
        self._add_asking()
        self._add_killmails()
        self._add_looking()
        self._add_dead()
        self._add_rest()
        self.commands: dict[str, argparse.ArgumentParser] = dict(self._adding.choices)
        self._topics.choices = list(self.commands)

    def _add(self, name: str, help_: str, example: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = self._adding.add_parser(
            name, help=help_, description=help_, epilog=f"example: {example}", formatter_class=argparse.RawTextHelpFormatter
        )
        added.set_defaults(parser=added)
        _add_env_file(added)
        return added

    def _add_daemon(self) -> None:
        run = self._add("run", "Run the daemon in the foreground.", "esid run --actors alliance,corporation")
        run.add_argument("--actors", metavar="A,B", help=f"work on these only: {', '.join(NAMES)}")
        run.add_argument("--processes", metavar="N", help="worker processes")
        run.add_argument("--threads", metavar="N", help="threads of each worker process")
        run.add_argument(
            "--no-scheduler",
            action="store_true",
            help="start no syncs by itself; on PostgreSQL another daemon does, and retries too",
        )
        run.add_argument("--no-feed", action="store_true", help="read no killmail feed; another daemon on the database does")

    def _add_asking(self) -> None:
        enqueue = self._add(
            "enqueue",
            "Ask for ids.",
            "esid enqueue character 12345678\n         esid enqueue killmail - < ids",
        )
        _add_entity(enqueue)
        enqueue.add_argument(
            "ids", nargs="+", metavar="ID", help="ids or links (a killmail is ID:HASH or a link), or - for standard input"
        )
        sync = self._add("sync", "Start a full sync.", "esid sync all --wait")
        sync.add_argument(
            "what",
            nargs="+",
            type=_syncable,
            choices=[*SYNC_NAMES, "all"],
            metavar="WHAT",
            help=", ".join([*SYNC_NAMES, "all"]),
        )
        for waiting in (enqueue, sync):
            waiting.add_argument("--wait", action="store_true", help="wait until it is done, with a progress bar")
            waiting.add_argument("--json", action="store_true", help="print the result as JSON")
        purge = self._add("purge", "Empty our queues (no others).", "esid purge killmail --yes")
        purge.add_argument("entities", nargs="*", type=words.entity, metavar="ENTITY", help="these queues only")
        purge.add_argument("--yes", action="store_true", help="do not ask")

    def _add_killmails(self) -> None:
        bring = self._add(
            "import",
            "Import killmails from day archives, or all of a killreport; again is harmless, and goes on where it stopped.",
            "esid import killmails --from 2021-11-29 --to 2021-12-03",
        )
        whats = ["killmails", "killreport"]
        bring.add_argument("what", type=_plural, choices=whats, metavar="WHAT", help=", ".join(whats))
        bring.add_argument(
            "address", nargs="?", metavar="URL|FILE", help="killreport's database: its URL, or the .env that has it"
        )
        bring.add_argument("--from-url", metavar="URL|FILE", help="the same, by name")
        bring.add_argument("--from", dest="first", metavar="DAY", help="the first day")
        bring.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: the first)")
        bring.add_argument("--dir", metavar="PATH", help="a folder with archives, instead of the network; without days: all")
        help_ = "everef: archives of EVE Ref (default); zkillboard: its raw files; esi: its hashes, bodies from ESI"
        bring.add_argument("--source", choices=IMPORT_SOURCES, metavar="SOURCE", help=help_)
        bring.add_argument("--processes", metavar="N", help="processes (default: one for each core)")
        bring.add_argument("--again", action="store_true", help="read archives again that were read to their end")
        heal = self._add(
            "heal",
            "Compare killmails by day with zKillboard's totals and fetch what is missing.",
            "esid heal --since 2026-10-01",
        )
        heal.add_argument("--since", metavar="AGE|DATE", help="every day since then (default: 14d)")
        for command in (bring, heal):
            command.add_argument("--json", action="store_true", help="print the result as JSON")

    def _add_looking(self) -> None:
        state = self._add("status", "Show queues, ledger, limits and dead letters.", "esid status --watch")
        state.add_argument("--json", action="store_true", help="print everything as JSON")
        state.add_argument("--watch", action="store_true", help="again every 2 seconds; on a terminal q leaves")
        plans = self._add("schedule", "List the schedule, or run a job now.", "esid schedule run sync_alliance")
        plans.add_argument("verb", nargs="?", choices=["list", "run"], default="list", metavar="VERB", help="list, run")
        plans.add_argument("jobs", nargs="*", metavar="NAME", help="jobs to run, as `esid schedule` prints them")
        plans.add_argument("--json", action="store_true", help="print it as JSON")
        one = self._add("show", "Show one row, its freshness and its job.", "esid show alliance 99000006")
        _add_entity(one)
        one.add_argument("id", metavar="ID", help="an id, or a link to it")
        one.add_argument("--json", action="store_true", help="print it as JSON")

    def _add_dead(self) -> None:
        dead = self._add("dead", "List, show, retry or drop dead letters.", "esid dead retry --reason unavailable")
        dead.add_argument(
            "verb", nargs="?", type=_verb, choices=["list", "show", "retry", "drop"], default="list", metavar="VERB",
            help="list (default), show, retry, drop",
        )  # fmt: skip
        dead.add_argument("ids", nargs="*", metavar="NUMBER", help="numbers, as `esid dead list` prints them")
        dead.add_argument(
            "--entity", type=_listed, choices=ALL_NAMES, metavar="ENTITY", help="only of this entity: %(choices)s"
        )
        dead.add_argument("--reason", help="only with this reason")
        dead.add_argument("--since", metavar="AGE|DATE", help="only since then: 2d, 12h or 2026-11-24")
        dead.add_argument("--all", action="store_true", help="retry or drop all of them")
        dead.add_argument("--yes", action="store_true", help="drop without asking")
        dead.add_argument("--json", action="store_true", help="print the result as JSON")

    def _add_rest(self) -> None:
        migrate = self._add("migrate", "Bring the database's schema up to this program's.", "esid migrate")
        migrate.add_argument(
            "--grant-read", metavar="ROLE", help="let this role of PostgreSQL read all tables, later ones too"
        )
        config = self._add("config", "Show every setting in force and where it came from.", "esid config --json")
        config.add_argument("--json", action="store_true", help="print it as JSON")
        self._add("version", "Print the version.", "esid version")
        about = self._add("help", "Print the help of a command.", "esid help status")
        self._topics = about.add_argument("topic", nargs="?", metavar="COMMAND", help="the command")
        about.add_argument("more", nargs="*", help=argparse.SUPPRESS)


def _add_entity(command: argparse.ArgumentParser) -> None:
    command.add_argument("entity", type=words.entity, choices=ROW_NAMES, metavar="ENTITY", help="%(choices)s")


def _plural(word: str) -> str:
    """`killmails` for whatever means killmails; any other word as it is."""
    name = words.entity(word)
    return words.plural(name) if name in NAMES else word


def _syncable(word: str) -> str:
    if why := {lane.name: lane.unlisted for lane in LANES}.get(words.entity(word)):
        raise argparse.ArgumentTypeError(why)
    return _plural(word)


def _listed(word: str) -> str:
    """The name of a list stays one, also where it is a plural."""
    return word if word in LIST_NAMES else words.entity(word)


def _verb(word: str) -> str:
    if word.isdigit():
        raise argparse.ArgumentTypeError(f"`esid dead show {word}`, or retry or drop?")
    return word
