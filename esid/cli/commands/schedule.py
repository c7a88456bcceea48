"""`esid schedule`: what runs when, and one job of it now."""

from __future__ import annotations

import argparse

from esid.assembly import core, killmails
from esid.cli import render
from esid.cli.printing import columns, print_json, print_lines
from esid.errors import UsageError
from esid.feeds.archives import SOURCES
from esid.schedule import plan
from esid.schedule.runner import run_now
from esid.settings import Settings, nearest
from esid.status import timetable
from esid.store import processes


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid schedule`: its exit code."""
    names = [job.name for job in plan.JOBS]
    for name in options.jobs:
        if name not in names:
            raise UsageError(f"unknown job {name!r}: one of {', '.join(names)}{nearest(name, names)}")
    if (options.verb == "run") != bool(options.jobs):
        raise UsageError("`esid schedule` lists the jobs, `esid schedule run NAME` runs one")
    if "heal" in options.jobs:
        killmails.check_sources(chosen, *SOURCES)
    store = core.ready_store(chosen)
    if options.verb == "run":
        works = killmails.open_works(chosen, store)
        did = {}
        for name in options.jobs:
            did[name] = run_now(store, name, works[name])
            if not options.json:
                print(f"{name}: {did[name]}", flush=True)
        if options.json:
            print_json({"did": did})
    else:
        living = processes.living(store)
        jobs = timetable.jobs(store, plan.schedules(chosen), core.installation(store), living)
        print_json({"jobs": jobs}) if options.json else print_lines(render.timetable(jobs, columns()))
        if not options.json and not any(job["runs_in"] for job in jobs if plan.BY_NAME[job["name"]].asks_esi):
            print("no process schedules syncs: nothing is refreshed by itself; start `esid run`, without --no-scheduler")
    store.close()
    return 0
