"""`esid schedule`: what runs when, and one task of it now."""

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
    names = [task.name for task in plan.TASKS]
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
        tasks = timetable.tasks(store, plan.schedules(chosen), core.installation(store), living)
        print_json({"jobs": tasks}) if options.json else print_lines(render.timetable(tasks, columns()))
        if not options.json and not any(task["runs_in"] for task in tasks if plan.BY_NAME[task["name"]].asks_esi):
            print("no process schedules syncs: nothing is refreshed by itself; start `esid run`, without --no-scheduler")
    store.close()
    return 0
