"""The machine that runs the tests is slow at times."""

from __future__ import annotations

#: Seconds that a run with sick ids may take longer than one without, beside the tenth that is promised: this machine's mood.
MOOD_S = 3.0
