"""What the status server shows: the state, collected at most every two seconds however many look, and if it is ready."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from esid import clock, host, log
from esid.errors import EsidError
from esid.esi.budget import Budget
from esid.queue.broker import Queue
from esid.status.collect import Sources, collect
from esid.store import migrate, processes
from esid.store.connection import Store

#: Seconds for which a collected state is shown again.
KEPT_S = 2.0
#: Seconds after which a worker none of whose consumers moves is stuck; as the supervisor sees it.
STUCK_S = 180.0


class View:
    """Of one status server. Safe to ask from several threads.

    Args:
        place: where messages go and come from.
        workers: worker processes that this daemon is to have.
        daemon: pid of the supervisor; None = there is none to compare with.
    """

    def __init__(
        self,
        store: Store,
        broker: Queue,
        budget: Budget,
        schedules: Mapping[str, str],
        installation: str,
        place: str,
        *,
        workers: int = 0,
        daemon: int | None = None,
    ) -> None:
        self.sources = Sources(store, broker, budget, schedules, installation, place)
        self._workers, self._daemon = workers, daemon
        self._lock = threading.Lock()
        self._state: dict[str, Any] | EsidError | None = None
        self._until = 0.0

    def state(self) -> dict[str, Any]:
        """The state, up to two seconds old. Raises EsidError where the database cannot be read."""
        with self._lock:
            if self._state is None or clock.monotonic() >= self._until:
                self._state = None
                self._state = self._collected()
                self._until = clock.monotonic() + KEPT_S
            state = self._state
        if isinstance(state, EsidError):
            raise state.with_traceback(None)
        return state

    def _collected(self) -> dict[str, Any] | EsidError:
        """A database that is slow to fail fails once for all who wait, or they would fill the places of `/healthz`."""
        try:
            return collect(self.sources)
        except EsidError as error:
            # Without what hangs on it: connections, rows.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    def unready(self) -> str:
        """Why work cannot be done now; "" = it can."""
        store, broker = self.sources.store, self.sources.broker
        try:
            migrate.check(store)
            broker.ready()
            return log.outage("database").words or self._unfit(processes.living(store)) or self._away()
        except EsidError as error:
            return str(error)

    def _away(self) -> str:
        away = self.sources.budget.away()
        return f"{', '.join(away)} away: work waits, and goes on by itself" if away else ""

    def _unfit(self, living: list[dict[str, Any]]) -> str:
        for one in living:
            if one.get("away") and self._is_ours(one):
                return f"{one['kind']}: {one['away']}"
        ours = [one for one in living if one["kind"] == "worker" and self._is_ours(one)]
        if len(ours) < self._workers:
            return f"{len(ours)} of {self._workers} workers were heard of in the last {processes.SILENT_S:.0f} s"
        stuck = [one["name"] for one in ours if one.get("moved_s", 0.0) > STUCK_S]
        return f"stuck: {', '.join(stuck)} has not looked at its queue for {STUCK_S:.0f} s" if stuck else ""

    def _is_ours(self, process: dict[str, Any]) -> bool:
        return host.is_here(process["name"]) and self._daemon in {None, process.get("daemon")}
