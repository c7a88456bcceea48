"""`esid migrate`."""

from __future__ import annotations

import argparse

from esid.assembly import core
from esid.settings import Settings
from esid.store import grants
from esid.store import migrate as migrations

#: Seconds that one statement may take: an index of a ledger of millions takes minutes.
_STATEMENT_S = 86_400


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid migrate`: its exit code."""
    core.wait_for_file(chosen)
    store = core.open_store(chosen, statement_s=_STATEMENT_S, is_there=False)
    if options.grant_read:
        grants.check(store)
    applied = migrations.migrate(store)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    if options.grant_read:
        tables = grants.let_read(store, options.grant_read)
        print(f"{options.grant_read} may read the {tables} tables of {store.where}, and those of later releases")
    store.close()
    return 0
