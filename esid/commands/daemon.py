"""`esid run`."""

from __future__ import annotations

import argparse
import dataclasses

from esid import log, settings
from esid.daemon.supervisor import Supervisor
from esid.errors import UsageError
from esid.settings import Settings


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid run`: its exit code."""
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
