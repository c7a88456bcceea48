"""The scheduler's post: on duty for the queues whose schedule is ours, on stand-by for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from esid import log
from esid.schedule.runner import Scheduler
from esid.store.leader import Leadership

_log = log.get("schedule")


class Post:
    """Looks each second what is ours, and runs exactly that.

    Args:
        start: makes a running scheduler of some queues.
        queues: what this daemon works on.
    """

    def __init__(self, lead: Leadership, start: Callable[[Sequence[str]], Scheduler], queues: Sequence[str]) -> None:
        self._lead, self._start, self._queues = lead, start, tuple(queues)
        self._ours: frozenset[str] | None = None
        self._runner: Scheduler | None = None

    @property
    def on_duty(self) -> list[str]:
        """The queues whose schedule runs here."""
        return [queue for queue in self._queues if queue in (self._ours or ())] if self._runner else []

    def look(self) -> None:
        """Begin or end duty where it has changed hands."""
        ours = self._lead.renew()
        if ours == self._ours:
            if self._runner:
                self._runner.check_clock()
            return
        if self._ours is None and not ours:
            log.event(_log, "schedule.stand_by", "another daemon owns the schedule; this one takes over when it ends")
        if self._runner:
            self._runner.stop(wait=False)
        self._ours = ours
        queues = [queue for queue in self._queues if queue in ours]
        self._runner = self._start(queues) if queues else None
        if queues:
            log.event(_log, "schedule.owned", f"this daemon schedules {', '.join(queues)}")

    def leave(self) -> None:
        """End duty in good order: what runs ends first, then another daemon takes over."""
        if self._runner:
            self._runner.stop()
        self._lead.close()
