"""The lanes: what people name in `--actors`, `sync` and `purge`, and what has a queue, a schedule and a lock of its own.

A leaf: all others compute names, settings, queues and jobs from this table. An entity says on which lane its work goes;
the entities of one family share a lane.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the table.

    Attributes:
        name: what people type, and the last part of the queue's name.
        plural: the end of the name of the setting `ESID_SCHEDULE_…`, and what a full sync is called by.
        every: the default of that setting.
        words: short names that people use.
        by_default: False = only who names it works on it.
        asked: what the schedule asks again, in the help of the setting; "" = the plural.
        due: the same in the list of jobs; "" = the plural "that are due".
        unlisted: why people cannot start a full sync of it; "" = they can.
    """

    name: str
    plural: str
    every: str
    words: tuple[str, ...] = ()
    by_default: bool = True
    asked: str = ""
    due: str = ""
    unlisted: str = ""

    @property
    def setting(self) -> str:
        """The name of the setting that says when it is asked again."""
        return f"ESID_SCHEDULE_{self.plural.upper()}"


LANES: tuple[Lane, ...] = (
    Lane("alliance", "alliances", "10m", ("alli",)),
    Lane("corporation", "corporations", "10m", ("corp",)),
    Lane(
        "character",
        "characters",
        "10m",
        ("char",),
        asked="characters' details",
        due="characters whose details are due",
    ),
    Lane(
        "killmail",
        "killmails",
        "1h",
        ("kill", "km"),
        asked="killmails that failed",
        due="killmails that failed or were purged and are due again",
        unlisted="ESI has no list of killmails: `esid import killmails` and `esid heal` bring those of whole days",
    ),
)
NAMES = tuple(lane.name for lane in LANES)
