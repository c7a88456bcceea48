"""The command line: from what was typed to an exit code. What may be typed stands in `parser`.

Exit codes
----------
0    done
1    `esid enqueue --wait` or `esid sync --wait`: some ids failed (see `esid dead list`); `esid show`: nothing is known
     of the id; `esid import`, `esid heal`: some days or killmails could not be had, the others are there
2    what was typed cannot be meant (no command at all prints the help); a question was answered with no
65   the database's schema is older or newer (also made so under a daemon or an import that runs), or the file is damaged,
     or was deleted, moved or replaced under a daemon
66   there is no database where the settings say; `esid run`, `migrate` and `import` set one up, no other command
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
from pathlib import Path

from esid import __version__, log, settings
from esid.cli.parser import Grammar
from esid.errors import EsidError, UsageError

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
    """What was typed; an unknown option is an error of the command that it was typed for.

    Raises:
        UsageError: it cannot be meant.
    """
    grammar = Grammar()
    options = argparse.Namespace()
    _, unknown = grammar.parser.parse_known_args(sys.argv[1:] if arguments is None else arguments, options)
    if unknown:
        (grammar.parser if options.name is None else options.parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.name is None:
        # Whoever forgot to name one is helped, and a script is not told that all is well.
        grammar.parser.print_help(sys.stderr)
        raise SystemExit(UsageError.exit_code)
    if options.json_first and not hasattr(options, "json"):
        raise UsageError(f"`esid {options.name}` prints no JSON: it has no --json (see `esid {options.name} --help`)")
    if options.name == "help":
        grammar.commands.get(options.topic, grammar.parser).print_help()
        raise SystemExit(0)
    options.json = options.json_first or getattr(options, "json", False)
    return options


def _run(options: argparse.Namespace) -> int:
    if options.name == "version":
        print(f"esid {__version__}")
        return 0
    chosen = settings.read(env_file=Path(options.env_file) if getattr(options, "env_file", None) else None)
    log.hide(*chosen.secrets)
    for warning in chosen.warnings:
        print(f"esid: warning: {warning}", file=sys.stderr)
    return _command(options.name)(options, chosen)


def _command(name: str) -> _Command:
    """What runs a command. Only the module that it needs is imported: one of people is to answer at once."""
    # What is imported stays; looking for garbage in it takes an eighth of the time.
    gc.disable()
    module = import_module(f"esid.cli.commands.{'import_' if name == 'import' else name}")
    gc.freeze()
    gc.enable()
    found: _Command = module.run
    return found
