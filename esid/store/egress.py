"""Where daemons on several hosts tell each other what they hold of a shared budget: one row each, in one table.

The content of a row is `esi.budget.exchange`'s; here it is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from zlib import crc32

from esid.store.connection import Store

#: First half of the key of PostgreSQL's advisory lock: the letters "eegr", apart from the schedule's.
_LOCK = 0x65656772
#: Seconds after which the row of a daemon that is silent is forgotten.
FORGOTTEN_S = 86_400.0


#: Milliseconds that an exchange waits for the one before it, and may stand still: less than a share holds (8 s). Of one that
#: was stopped or cut off in the middle the others have to hear nothing.
_WAIT_MS, _STILL_MS = 5000, 4000


def exchange(store: Store, egress: str, meet: Callable[[float, dict[str, Any]], tuple[str, Any]]) -> None:
    """Read every member's row and write one's own, with nobody else in between.

    Args:
        meet: given the database's clock (seconds since 1970) and the rows by member, one's own name and new row. Other rows
            that it changes are written, too.
    """

    def work() -> None:
        if store.is_sqlite:
            now = "(julianday('now') - 2440587.5) * 86400.0"
        else:
            store.rows(
                "SELECT set_config('lock_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true), "
                "pg_advisory_xact_lock(%s, %s)",
                (str(_WAIT_MS), str(_STILL_MS), _LOCK, crc32(egress.encode()) - 2**31),
            )
            now = "EXTRACT(EPOCH FROM clock_timestamp())"
        found = store.rows(
            f"SELECT now, member, state FROM (SELECT {now} AS now) AS clock LEFT JOIN egress_members ON egress = %s "
            "ORDER BY member",
            (egress,),
        )
        db_now = float(found[0][0])
        rows = {name: json.loads(text) for _, name, text in found if name is not None}
        before = dict(rows)
        member, mine = meet(db_now, rows)
        changed = {name: row for name, row in rows.items() if row is not before[name]} | {member: mine}
        store.insert(
            "egress_members",
            ("egress", "member", "state"),
            [(egress, name, json.dumps(row)) for name, row in sorted(changed.items())],
            "ON CONFLICT (egress, member) DO UPDATE SET state = excluded.state",
        )
        for name, row in rows.items():
            if name != member and db_now - float(row.get("at", 0.0)) > FORGOTTEN_S:
                store.rows("DELETE FROM egress_members WHERE egress = %s AND member = %s", (egress, name))

    store.run(work)
