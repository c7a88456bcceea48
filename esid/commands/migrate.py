"""`esid migrate`."""

from __future__ import annotations

import argparse

from esid.daemon import parts
from esid.settings import Settings
from esid.store import migrate as migrations


def migrate(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid migrate`: its exit code."""
    store = parts.open_store(chosen)
    applied = migrations.migrate(store)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    store.close()
    return 0
