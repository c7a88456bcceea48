"""The command line: arguments and printing; no logic.

Exit codes
----------
0    done
1    `esid enqueue --wait` or `esid sync --wait`: some ids failed (see `esid dead list`); `esid import`, `esid heal`:
     some days or killmails could not be had (each is named), the others are there
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
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from esid import __version__, clock, log, plan, render, schedule, settings, typed
from esid.clock import Stop
from esid.daemon import lock, parts
from esid.daemon.supervisor import Supervisor
from esid.entities import BY_NAME, ENTITIES, MIRRORED
from esid.errors import EsidError, EsiError, Held, SourceUnavailable, UsageError
from esid.feeds import importing, links
from esid.feeds.archives import EVEREF, HASHES, SOURCES, Folder
from esid.feeds.importing import Unit
from esid.queue.broker import PERSON
from esid.queue.progress import PLURALS
from esid.settings import Settings, nearest
from esid.store import dead_letters, ledger, migrate, show
from esid.store.connection import Store
from esid.store.dead_letters import DeadLetter, Filter
from esid.store.ledger import Accepted
from esid.typed import Parser
from esid.web import status, timetable

_ENTITY_NAMES = [entity.name for entity in MIRRORED]
_SYNC_NAMES = [PLURALS[entity.name] for entity in MIRRORED if entity.name != "killmail"]


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
    parser = Parser(prog="esid", description="Keeps a local database equal to EVE Online's public ESI data.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=Parser)

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
    run.add_argument(
        "--no-scheduler",
        action="store_true",
        help="start no syncs by itself; on PostgreSQL another daemon does, and retries too",
    )
    run.add_argument("--no-feed", action="store_true", help="read no killmail feed; another daemon on the database does")

    enqueue = add(
        "enqueue", _enqueue, "Ask for ids.", "esid enqueue character 12345678\n         esid enqueue killmail - < ids"
    )
    enqueue.add_argument("entity", choices=_ENTITY_NAMES, metavar="ENTITY", help=", ".join(_ENTITY_NAMES))
    enqueue.add_argument(
        "ids", nargs="+", metavar="ID", help="ids (a killmail is ID:HASH or a link to it), or - for standard input"
    )

    sync = add("sync", _sync, "Start a full sync.", "esid sync all --wait")
    sync.add_argument("what", choices=[*_SYNC_NAMES, "all"], metavar="WHAT", help=", ".join([*_SYNC_NAMES, "all"]))
    for waiting in (enqueue, sync):
        waiting.add_argument("--wait", action="store_true", help="wait until it is done, with a progress bar")
        waiting.add_argument("--json", action="store_true", help="print the result as JSON")

    _add_sources(add)
    state = add("status", _status, "Show queues, ledger, limits and dead letters.", "esid status --watch")
    state.add_argument("--json", action="store_true", help="print everything as JSON")
    state.add_argument("--watch", action="store_true", help="again every 2 seconds")

    plans = add("schedule", _schedule, "List the schedule, or run a job now.", "esid schedule run sync_alliance")
    plans.add_argument("verb", nargs="?", choices=["list", "run"], default="list", metavar="VERB", help="list, run")
    plans.add_argument("jobs", nargs="*", metavar="NAME", help="jobs to run, as `esid schedule` prints them")
    plans.add_argument("--json", action="store_true", help="print the list as JSON")

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


def _add_sources(add: Callable[..., argparse.ArgumentParser]) -> None:
    example = "esid import killmails --from 2021-11-29 --to 2021-12-03"
    bring = add(
        "import", _import, "Import killmails from day archives; again is harmless, and goes on where it stopped.", example
    )
    bring.add_argument("what", choices=["killmails"], metavar="WHAT", help="killmails")
    bring.add_argument("--from", dest="first", metavar="DAY", help="the first day")
    bring.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: the first)")
    bring.add_argument("--dir", metavar="PATH", help="a folder with archives, instead of the network")
    help_ = "everef: archives of EVE Ref (default); zkillboard: its raw files; esi: its hashes, bodies from ESI"
    bring.add_argument("--source", choices=[*SOURCES, HASHES], default=EVEREF, metavar="SOURCE", help=help_)
    bring.add_argument("--processes", metavar="N", help="processes (default: one for each core)")
    bring.add_argument("--again", action="store_true", help="read archives again that were read to their end")
    heal = add(
        "heal",
        _heal,
        "Compare killmails by day with zKillboard's totals and fetch what is missing.",
        "esid heal --since 2026-10-01",
    )
    heal.add_argument("--since", metavar="AGE|DATE", help="every day since then (default: 14d)")
    for command in (bring, heal):
        command.add_argument("--json", action="store_true", help="print the result as JSON")


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
    log.set_up(chosen.esid_log_level, chosen.esid_log_format, journal=settings.is_journal())
    return Supervisor(chosen, with_scheduler=not options.no_scheduler, with_feed=not options.no_feed).run()


def _override(options: argparse.Namespace, chosen: Settings) -> Settings:
    """The settings with what was typed on top, checked like any setting."""
    given = {"WORKER_TYPES": options.actors, "ESID_PROCESSES": options.processes, "ESID_THREADS": options.threads}
    flags = {"WORKER_TYPES": "--actors", "ESID_PROCESSES": "--processes", "ESID_THREADS": "--threads"}
    changes = {}
    for setting in settings.TABLE:
        if (text := given.get(setting.name)) is not None:
            try:
                changes[setting.field] = setting.parse(text)
            except ValueError as error:
                raise UsageError(f"{flags[setting.name]} {text!r} is not {error}") from None
    return dataclasses.replace(chosen, **changes)


def _enqueue(options: argparse.Namespace, chosen: Settings) -> int:
    wanted = [typed.wanted(options.entity, token) for token in typed.tokens(options.ids)]
    if not wanted:
        raise UsageError("no ids were given")
    store = parts.ready_store(chosen)
    if options.entity == "killmail":
        wanted = list(links.with_hashes(store, lambda: parts.open_zkillboard(chosen), wanted))
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
    sources = status.Sources(
        store,
        parts.open_publisher(chosen, store).broker,
        parts.open_budget(chosen),
        parts.schedules(chosen),
        parts.installation(store),
        chosen.entities,
    )
    in_place = options.watch and sys.stdout.isatty()
    while True:
        state = status.collect(sources)
        state["daemon"] = lock.holder(parts.lock_path(chosen))
        text = json.dumps(state, indent=2, default=str) if options.json else "\n".join(render.status(state))
        # Drawn over the last one, line by line: a cleared screen would flicker.
        print("\033[H" + text.replace("\n", "\033[K\n") + "\033[K\n\033[J" if in_place else text, flush=True)
        if not options.watch:
            return 0
        clock.sleep(2)


def _schedule(options: argparse.Namespace, chosen: Settings) -> int:
    names = [job.name for job in plan.JOBS]
    for name in options.jobs:
        if name not in names:
            raise UsageError(f"unknown job {name!r}: one of {', '.join(names)}{nearest(name, names)}")
    if (options.verb == "run") != bool(options.jobs):
        raise UsageError("`esid schedule` lists the jobs, `esid schedule run NAME` runs one")
    store = parts.ready_store(chosen)
    if options.verb == "run":
        works = parts.open_works(chosen, store)
        for name in options.jobs:
            print(f"{name}: {schedule.run_now(store, name, works[name])}", flush=True)
    else:
        jobs = timetable.jobs(store, parts.schedules(chosen), parts.installation(store), chosen.entities)
        _print_json({"jobs": jobs}) if options.json else _print_lines(render.timetable(jobs))
    store.close()
    return 0


def _import(options: argparse.Namespace, chosen: Settings) -> int:
    first, last = (
        typed.day(f"--{name}", text) if text else None for name, text in (("from", options.first), ("to", options.last))
    )
    processes = typed.count("--processes", options.processes, 64) if options.processes else os.cpu_count() or 1
    folder = Folder(Path(options.dir)) if options.dir else None
    days = parts.days_to_import(options.source, first, last, folder)
    if folder is None:
        settings.check_contact(chosen, chosen.esid_archive_url, chosen.esid_feed_url)
    log.set_up("WARNING", chosen.esid_log_format)
    store = parts.ready_store(chosen)
    expected = parts.expected_killmails(chosen, options.source, days, folder)
    bar, reports = Bar(expected), list[Any]()

    def on_day(report: Any) -> None:
        reports.append(report)
        bar.clear()
        if not options.json:
            _print_lines(render.day_report(report))

    if options.source == HASHES:
        parts.ask_days(chosen, store, days, folder, on_day)
        store.close()
    else:
        # No connection may cross the fork into the processes that import.
        store.close()
        units = [Unit(options.source, day, options.again) for day in days]
        importing.run(parts.import_parts(chosen, folder), units, processes, bar.advance, on_day)
    if options.json:
        _print_json([report.as_dict() for report in sorted(reports, key=lambda report: report.day)])
    elif options.source != HASHES:
        print(render.import_summary(reports, bar.rate))
    return int(any(report.error or report.refused for report in reports))


def _heal(options: argparse.Namespace, chosen: Settings) -> int:
    settings.check_contact(chosen, chosen.esid_archive_url, chosen.esid_feed_url)
    log.set_up("WARNING", chosen.esid_log_format)
    store = parts.ready_store(chosen)
    bar = Bar(None)
    healer = parts.open_healer(chosen, store, parts.open_requests(chosen, store), Stop(), progress=bar.advance)

    def on_day(healed: Any) -> None:
        bar.clear()
        if not options.json:
            _print_lines(render.healed(healed))

    try:
        days = healer.run(typed.since(options.since).date() if options.since else None, on_day)
    except (EsiError, Held) as error:
        raise SourceUnavailable(f"the totals of killmails by day cannot be had: {error}; try again later") from None
    finally:
        healer.close()
    if options.json:
        _print_json([day.as_dict() for day in days])
    elif not days:
        print("no day lacks a killmail")
    store.close()
    return int(any(day.missing for day in days))


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
    if options.verb in {"list", "show"}:
        _print_letters(letters, options)
    else:
        act = parts.open_requests(chosen, store).retry_dead if options.verb == "retry" else _dropper(store)
        count = act(wanted)
        done = "put back into the queue" if options.verb == "retry" else "dropped"
        _print_json({"count": count}) if options.json else print(f"{count:,} {done}")
    store.close()
    return 0


def _show(options: argparse.Namespace, chosen: Settings) -> int:
    key = typed.id_of(options.id.partition(":")[0])
    store = parts.ready_store(chosen)
    rows = show.rows_of(store, BY_NAME[options.entity].tables, key)
    job = ledger.job(store, options.entity, key)
    if options.json:
        _print_json({"rows": rows, "job": job})
    elif job is None and not any(rows.values()):
        asked = f"{key}:HASH" if options.entity == "killmail" else key
        print(f"{options.entity} {key} is not known; ask for it with `esid enqueue {options.entity} {asked}`")
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


# -- asking back


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


class Bar:
    """Killmails as they come, drawn over itself; nothing where standard error is no terminal."""

    def __init__(self, expected: int | None) -> None:
        self._expected, self._done, self._started = expected, 0, clock.monotonic()

    @property
    def rate(self) -> float:
        """Killmails a second since the beginning."""
        return self._done / max(0.001, clock.monotonic() - self._started)

    def advance(self, killmails: int) -> None:
        """So many more are written."""
        self._done += killmails
        if sys.stderr.isatty():
            words = render.killmail_bar(self._done, self._expected, self.rate)
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


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
