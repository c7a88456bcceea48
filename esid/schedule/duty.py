"""The scheduler's post: on duty for the queues whose schedule is ours, on stand-by for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from esid import log
from esid.store.leader import Leadership

_log = log.get("schedule")


class Post:
    """Looks each second what is ours.

    Args:
        serve: called with the queues whose schedule is ours from then on.
        queues: what this daemon works on.
    """

    def __init__(self, lead: Leadership, serve: Callable[[Sequence[str]], object], queues: Sequence[str]) -> None:
        self._lead, self._serve, self._queues = lead, serve, tuple(queues)
        self._ours: frozenset[str] | None = None

    @property
    def on_duty(self) -> list[str]:
        """The queues whose schedule runs here."""
        return [queue for queue in self._queues if queue in (self._ours or ())]

    def look(self) -> None:
        """Begin or end duty where it has changed hands."""
        before, self._ours = self._ours, self._lead.renew()
        if self._ours == before:
            return
        if before is None and not self._ours:
            log.event(_log, "schedule.stand_by", "another daemon owns the schedule; this one takes over when it ends")
        self._serve(self.on_duty)
        if self._ours:
            log.event(_log, "schedule.owned", f"this daemon schedules {', '.join(self.on_duty)}")
