"""`esid config`."""

from __future__ import annotations

import argparse

from esid import settings
from esid.cli import render
from esid.cli.printing import columns, print_json, print_lines
from esid.settings import Settings


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid config`: its exit code."""
    name = settings.FILE_SETTING
    rows = [(name, chosen.env_file, "read" if chosen.env_file else "no file", "path")]
    rows += [(one.name, chosen.shown(one), chosen.origins[one.name], one.unit) for one in settings.TABLE]
    if options.json:
        print_json({name: {"value": value, "origin": origin} for name, value, origin, _ in rows})
    else:
        print_lines(render.in_force(rows, columns()))
    return 0
