"""`esid schedule`: what runs when, and one job of it now."""

from __future__ import annotations

import argparse

from esid import plan, render
from esid.commands.terminal import print_json, print_lines
from esid.daemon import parts, sources
from esid.errors import UsageError
from esid.feeds.archives import SOURCES
from esid.schedule import run_now
from esid.settings import Settings, nearest
from esid.web import timetable


def schedule(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid schedule`: its exit code."""
    names = [job.name for job in plan.JOBS]
    for name in options.jobs:
        if name not in names:
            raise UsageError(f"unknown job {name!r}: one of {', '.join(names)}{nearest(name, names)}")
    if (options.verb == "run") != bool(options.jobs):
        raise UsageError("`esid schedule` lists the jobs, `esid schedule run NAME` runs one")
    if "heal" in options.jobs:
        sources.check_sources(chosen, *SOURCES)
    store = parts.ready_store(chosen)
    if options.verb == "run":
        works = sources.open_works(chosen, store)
        for name in options.jobs:
            print(f"{name}: {run_now(store, name, works[name])}", flush=True)
    else:
        jobs = timetable.jobs(store, plan.schedules(chosen), parts.installation(store), chosen.entities)
        print_json({"jobs": jobs}) if options.json else print_lines(render.timetable(jobs))
    store.close()
    return 0
