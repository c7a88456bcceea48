"""The command line: arguments and printing; no logic.

Exit codes
----------
0    done
1    `esid enqueue --wait` or `esid sync --wait`: some ids failed (see `esid dead list`)
2    what was typed cannot be meant
65   the database's schema is older or newer, or the file is damaged
69   database, RabbitMQ or the status server's address cannot be had
70   an error of our own, or a child process that cannot start or would not stay alive
75   another daemon runs on this database file
77   a file or directory cannot be read or written
78   a setting is missing, wrong or unknown; the database or RabbitMQ refused user or password
130  interrupted from the keyboard
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from esid import __version__, clock, log, render, settings
from esid.daemon import lock, parts
from esid.daemon.supervisor import Supervisor
from esid.entities import BY_NAME, ENTITIES, MIRRORED
from esid.entities.killmail import HASH
from esid.errors import EsidError, UsageError
from esid.queue.broker import PERSON
from esid.queue.progress import PLURALS
from esid.settings import Settings, nearest
from esid.store import dead_letters, ledger, migrate, show
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.store.ledger import Accepted
from esid.web import status

_ENTITY_NAMES = [entity.name for entity in MIRRORED]
_SYNC_NAMES = [PLURALS[entity.name] for entity in MIRRORED if entity.name != "killmail"]


class _Parser(argparse.ArgumentParser):
    """Errors are one line, with the nearest word that would have been right."""

    def error(self, message: str) -> NoReturn:
        typed = message.partition("invalid choice: '")[2].partition("'")[0]
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [word for action in self._actions for word in (*(action.choices or ()), *action.option_strings)]
        hint = nearest(typed or unknown, [str(word) for word in known]) if typed or unknown else ""
        raise UsageError(f"{message}{hint} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # Whatever is written (database, budget, lock) is for this user alone.
    os.umask(0o077)
    try:
        return _run(_parse(arguments))
    except EsidError as error:
        sys.stdout.flush()
        print(f"esid: {log.redacted(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


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
    code: int = options.command(options, chosen)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="esid", description="Keeps a local database equal to EVE Online's public ESI data.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command: Callable[..., int], help_: str, example: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, help=help_, description=help_, epilog=f"example: {example}", formatter_class=argparse.RawTextHelpFormatter
        )
        added.set_defaults(command=command, parser=added)
        return added

    run = add("run", _run_daemon, "Run the daemon in the foreground.", "esid run --actors alliance,corporation")
    run.add_argument("--actors", metavar="A,B", help=f"work on these only: {', '.join(_ENTITY_NAMES)}")
    run.add_argument("--processes", metavar="N", help="worker processes")
    run.add_argument("--threads", metavar="N", help="threads of each worker process")
    run.add_argument("--no-scheduler", action="store_true", help="start no syncs; another daemon on the database does")
    run.add_argument("--no-feed", action="store_true", help="read no killmail feed (this release reads none)")

    enqueue = add(
        "enqueue", _enqueue, "Ask for ids.", "esid enqueue character 12345678\n         esid enqueue killmail - < ids"
    )
    enqueue.add_argument("entity", choices=_ENTITY_NAMES, metavar="ENTITY", help=", ".join(_ENTITY_NAMES))
    enqueue.add_argument("ids", nargs="+", metavar="ID", help="ids (a killmail is ID:HASH), or - for standard input")

    sync = add("sync", _sync, "Start a full sync.", "esid sync all --wait")
    sync.add_argument("what", choices=[*_SYNC_NAMES, "all"], metavar="WHAT", help=", ".join([*_SYNC_NAMES, "all"]))
    for waiting in (enqueue, sync):
        waiting.add_argument("--wait", action="store_true", help="wait until it is done, with a progress bar")
        waiting.add_argument("--json", action="store_true", help="print the result as JSON")

    state = add("status", _status, "Show queues, ledger, limits and dead letters.", "esid status --watch")
    state.add_argument("--json", action="store_true", help="print everything as JSON")
    state.add_argument("--watch", action="store_true", help="again every 2 seconds")

    purge = add("purge", _purge, "Empty our queues (no others).", "esid purge killmail --yes")
    purge.add_argument("entities", nargs="*", metavar="ENTITY", help="these queues only")
    purge.add_argument("--yes", action="store_true", help="do not ask")

    _add_dead(add)
    one = add("show", _show, "Show one row, its freshness and its job.", "esid show alliance 99000006")
    one.add_argument("entity", choices=_ENTITY_NAMES, metavar="ENTITY", help=", ".join(_ENTITY_NAMES))
    one.add_argument("id", metavar="ID")
    one.add_argument("--json", action="store_true", help="print it as JSON")
    add("migrate", _migrate, "Bring the database's schema up to this program's.", "esid migrate")
    add("config", _config, "Show every setting in force and where it came from.", "esid config --json").add_argument(
        "--json", action="store_true", help="print it as JSON"
    )
    add("version", _config, "Print the version.", "esid version")
    return parser


def _add_dead(add: Callable[..., argparse.ArgumentParser]) -> None:
    dead = add("dead", _dead, "List, show, retry or drop dead letters.", "esid dead retry --reason unavailable")
    dead.add_argument("verb", choices=["list", "show", "retry", "drop"], metavar="VERB", help="list, show, retry, drop")
    dead.add_argument("ids", nargs="*", metavar="NUMBER", help="numbers of dead letters, as `esid dead list` prints them")
    dead.add_argument("--entity", choices=[entity.name for entity in ENTITIES], metavar="ENTITY", help="only of this entity")
    dead.add_argument("--reason", help="only with this reason")
    dead.add_argument("--since", metavar="AGE|DATE", help="only since then: 2d, 12h or 2026-11-24")
    dead.add_argument("--all", action="store_true", help="retry or drop all of them")
    dead.add_argument("--json", action="store_true", help="print the result as JSON")


# -- commands


def _run_daemon(options: argparse.Namespace, chosen: Settings) -> int:
    chosen = _override(options, chosen)
    settings.check_contact(chosen)
    log.set_up(chosen.esid_log_level, chosen.esid_log_format)
    return Supervisor(chosen, with_scheduler=not options.no_scheduler).run()


def _override(options: argparse.Namespace, chosen: Settings) -> Settings:
    """The settings with what was typed on top, checked like any setting."""
    typed = {"WORKER_TYPES": options.actors, "ESID_PROCESSES": options.processes, "ESID_THREADS": options.threads}
    flags = {"WORKER_TYPES": "--actors", "ESID_PROCESSES": "--processes", "ESID_THREADS": "--threads"}
    changes = {}
    for setting in settings.TABLE:
        if (text := typed.get(setting.name)) is not None:
            try:
                changes[setting.field] = setting.parse(text)
            except ValueError as error:
                raise UsageError(f"{flags[setting.name]} {text!r} is not {error}") from None
    return dataclasses.replace(chosen, **changes)


def _enqueue(options: argparse.Namespace, chosen: Settings) -> int:
    wanted = [_wanted(options.entity, token) for token in _tokens(options.ids)]
    if not wanted:
        raise UsageError("no ids were given")
    store = parts.ready_store(chosen)
    total, failed = Accepted((), (), ()), _failed(store, [options.entity])
    for part in parts.open_requests(chosen, store).enqueue(BY_NAME[options.entity], wanted):
        total = Accepted(total.queued + part.queued, total.pending + part.pending, total.fresh + part.fresh)
    code = _wait(store, chosen, [options.entity], failed) if options.wait else 0
    if options.json:
        _print_json({"queued": len(total.queued), "pending": len(total.pending), "fresh": len(total.fresh)})
    else:
        print(render.accepted(options.entity, total))
        _note_no_daemon(chosen, options.wait)
    store.close()
    return code


def _sync(options: argparse.Namespace, chosen: Settings) -> int:
    store = parts.ready_store(chosen)
    requests = parts.open_requests(chosen, store)
    queues = [name for name, plural in PLURALS.items() if options.what in {plural, "all"} and plural in _SYNC_NAMES]
    names = [entity.name for entity in ENTITIES if entity.queue in queues]
    failed = _failed(store, names)
    counts = {queue: requests.sync(queue, priority=PERSON) for queue in queues}
    code = _wait(store, chosen, names, failed) if options.wait else 0
    if options.json:
        _print_json({"queued": counts})
    else:
        for queue, count in counts.items():
            nothing = "everything is up to date" if options.wait else "everything is fresh or queued"
            print(f"{PLURALS[queue]}: {count:,} jobs queued" if count else f"{PLURALS[queue]}: {nothing}")
        _note_no_daemon(chosen, options.wait)
    store.close()
    return code


def _status(options: argparse.Namespace, chosen: Settings) -> int:
    store = parts.ready_store(chosen)
    broker = parts.open_publisher(chosen, store).broker
    budget = parts.open_budget(chosen)
    while True:
        state = status.collect(store, broker, budget)
        state["daemon"] = lock.holder(parts.lock_path(chosen))
        text = json.dumps(state, indent=2, default=str) if options.json else "\n".join(render.status(state))
        print(("\033[H\033[2J" if options.watch and sys.stdout.isatty() else "") + text, flush=True)
        if not options.watch:
            return 0
        clock.sleep(2)


def _purge(options: argparse.Namespace, chosen: Settings) -> int:
    for name in options.entities:
        if name not in _ENTITY_NAMES:
            raise UsageError(f"unknown entity {name!r}: one of {', '.join(_ENTITY_NAMES)}{nearest(name, _ENTITY_NAMES)}")
    queues = options.entities or _ENTITY_NAMES
    if not options.yes and not _confirmed(f"Empty the queues of {', '.join(queues)}?"):
        return 2
    store = parts.ready_store(chosen)
    requests = parts.open_requests(chosen, store)
    for queue in queues:
        messages, jobs = requests.purge(queue)
        print(f"{queue}: {messages:,} messages deleted, {jobs:,} jobs wait for the next full sync")
    store.close()
    return 0


def _dead(options: argparse.Namespace, chosen: Settings) -> int:
    wanted = Filter(
        ids=tuple(_id(token) for token in options.ids),
        entity=options.entity,
        reason=options.reason,
        since=_since(options.since) if options.since else None,
    )
    if options.verb in {"retry", "drop"} and wanted == Filter() and not options.all:
        raise UsageError(f"esid dead {options.verb}: name numbers or a filter, or say --all")
    store = parts.ready_store(chosen)
    if options.verb in {"list", "show"}:
        letters = dead_letters.find(store, wanted)
        if options.verb == "show" and not letters:
            raise UsageError("no such dead letter; `esid dead list` lists them")
        _print_letters(letters, options)
    else:
        act = parts.open_requests(chosen, store).retry_dead if options.verb == "retry" else _dropper(store)
        count = act(wanted)
        done = "put back into the queue" if options.verb == "retry" else "dropped"
        _print_json({"count": count}) if options.json else print(f"{count:,} {done}")
    store.close()
    return 0


def _show(options: argparse.Namespace, chosen: Settings) -> int:
    key = _id(options.id.partition(":")[0])
    store = parts.ready_store(chosen)
    rows = show.rows_of(store, BY_NAME[options.entity].tables, key)
    job = ledger.job(store, options.entity, key)
    if options.json:
        _print_json({"rows": rows, "job": job})
    elif job is None and not any(rows.values()):
        print(f"{options.entity} {key} is not known; ask for it with `esid enqueue {options.entity} {key}`")
    else:
        for table, found in rows.items():
            for row in found:
                _print_lines(render.fields(table, row))
        _print_lines(render.fields("job", job or {}))
    store.close()
    return 0 if job is not None or any(rows.values()) else 1


def _migrate(options: argparse.Namespace, chosen: Settings) -> int:
    store = parts.open_store(chosen)
    applied = migrate.migrate(store)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    store.close()
    return 0


def _config(options: argparse.Namespace, chosen: Settings) -> int:
    rows = [(one.name, chosen.shown(one), chosen.origins[one.name], one.unit) for one in settings.TABLE]
    if options.json:
        _print_json({name: {"value": value, "origin": origin} for name, value, origin, _ in rows})
    else:
        _print_lines(render.table(("setting", "value", "from", "unit"), rows))
    return 0


# -- what was typed


def _tokens(ids: Sequence[str]) -> Iterator[str]:
    for text in ids:
        if text == "-":
            sys.stdin.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            yield from (word for line in sys.stdin for word in line.split())
        else:
            yield text


def _wanted(entity: str, token: str) -> tuple[int, str | None]:
    if entity != "killmail":
        return _id(token), None
    key, _, hash_ = token.partition(":")
    if not hash_:
        raise UsageError(f"{token!r}: a killmail is asked by id and hash: ID:HASH")
    if not HASH.fullmatch(hash_.lower()):
        raise UsageError(f"{token!r}: a killmail's hash is 40 hexadecimal digits")
    return _id(key), hash_.lower()


def _id(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) <= 19 and 0 < int(token) < 2**63):
        raise UsageError(f"{token[:60]!r} is not an id: a whole number from 1 to 9223372036854775807")
    return int(token)


def _since(text: str) -> dt.datetime:
    try:
        return clock.now() - dt.timedelta(seconds=settings.duration(text))
    except (OverflowError, ValueError):
        pass
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is neither an age like 2d or 12h nor a date like 2026-11-24") from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Say --yes where nobody can answer")
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def _dropper(store: Store) -> Callable[[Filter], int]:
    return lambda wanted: dead_letters.drop(store, wanted)


# -- waiting


def _wait(store: Store, chosen: Settings, names: Sequence[str], failed_before: int) -> int:
    """Wait until no job of these entities is open; 1 when more of them have failed than before they were asked for."""
    started, done_before = clock.monotonic(), _known(store, names) - ledger.open_count(store, names)
    _note_no_daemon(chosen, waits=True)
    while is_open := ledger.open_count(store, names):
        known = _known(store, names)
        rate = (known - is_open - done_before) / max(0.1, clock.monotonic() - started)
        _draw_bar(known - is_open, known, rate)
        clock.sleep(0.5)
    if sys.stderr.isatty():
        _draw_bar(_known(store, names), _known(store, names), 0.0)
        print(file=sys.stderr)
    failed = _failed(store, names) - failed_before
    if failed > 0:
        print(f"{failed:,} ids failed; `esid dead list` says why", file=sys.stderr)
    return 1 if failed > 0 else 0


def _known(store: Store, names: Sequence[str]) -> int:
    counts = ledger.counts(store)
    return sum(sum(counts.get(name, {}).values()) for name in names)


def _failed(store: Store, names: Sequence[str]) -> int:
    counts = ledger.counts(store)
    return sum(counts.get(name, {}).get("failed", 0) for name in names)


def _draw_bar(done: int, known: int, rate: float) -> None:
    """One line, drawn over itself; nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        return
    print(f"\r\033[K{render.bar(done, known, rate)}", end="", file=sys.stderr, flush=True)


def _note_no_daemon(chosen: Settings, waits: bool) -> None:
    if chosen.database.startswith("sqlite:") and lock.holder(parts.lock_path(chosen)) is None:
        what = "waiting for one: start `esid run`" if waits else "it is kept until `esid run` is started"
        print(f"esid: no daemon is running here; {what}", file=sys.stderr)


# -- printing


def _print_letters(letters: Sequence[DeadLetter], options: argparse.Namespace) -> None:
    if options.json:
        _print_json([dataclasses.asdict(letter) for letter in letters])
    elif options.verb == "show":
        _print_lines(line for letter in letters for line in render.letter(letter))
    else:
        _print_lines(render.letters(letters))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))
