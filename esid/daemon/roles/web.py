"""The process of the status server."""

from __future__ import annotations

import os
from typing import Any

from esid.assembly import core
from esid.daemon.beats import Beats
from esid.daemon.child_loop import Life
from esid.schedule import plan
from esid.settings import Settings


def run(settings: Settings, life: Life, listener: Any) -> None:
    """Answer health until a stop, on the socket that the supervisor bound."""
    from esid.web.server import serve  # no other process is to carry what the page and the metrics are made with
    from esid.web.view import View

    store = core.open_store(settings)
    publisher = core.open_publisher(settings, store)
    budget = core.open_budget(settings, is_known=True)
    beats = Beats(store, life)
    beats.start()
    view = View(
        store, publisher.broker, budget, plan.schedules(settings), core.installation(store), core.queue_place(settings),
        workers=settings.esid_processes, daemon=os.getppid(),
    )  # fmt: skip
    with serve(listener, view):
        life.wait_for_stop(store)
    beats.end()
    publisher.broker.close()
    budget.close()
    store.close()
