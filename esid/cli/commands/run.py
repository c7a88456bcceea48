"""`esid run`."""

from __future__ import annotations

import argparse
import dataclasses

from esid import host, log, settings
from esid.daemon.roles import worker
from esid.daemon.supervisor import Supervisor
from esid.errors import NotPermitted, UsageError
from esid.settings import Settings
from esid.words import counted

#: Open files of a worker process, those of each of its threads (a SQLite connection is three, and there is one to ESI), and
#: those of clients of the status server.
_FILES, _FILES_OF_A_THREAD, _FILES_OF_CLIENTS = 20, 4, 150


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid run`: its exit code."""
    chosen = _override(options, chosen)
    settings.check_contact(chosen)
    _allow_open_files(chosen)
    log.set_up(chosen.esid_log_level, chosen.esid_log_format, journal=settings.is_journal())
    return Supervisor(chosen, with_scheduler=not options.no_scheduler, with_feed=not options.no_feed).run()


def _allow_open_files(chosen: Settings) -> None:
    """Each process may open what the greediest of them does.

    Raises:
        NotPermitted: the system allows fewer files.
    """
    least = _FILES + _FILES_OF_A_THREAD * worker.threads(chosen)
    if not host.allow_open_files(least, least + _FILES_OF_CLIENTS):
        raise NotPermitted(
            f"esid needs {least} open files for {counted(chosen.esid_threads, 'thread')}, and the system allows fewer; "
            "allow more of them (ulimit -n, LimitNOFILE= of the unit), or set ESID_THREADS lower"
        )


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
