"""A week of the daemon in trouble: the real code on a clock, a wire and a world that the simulation moves."""

from __future__ import annotations

from tests.fault.week.run import Week

__all__ = ["Week"]
