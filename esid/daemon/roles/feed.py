"""The process that follows the live feed of killmails."""

from __future__ import annotations

import threading

from esid.assembly import core, killmails
from esid.daemon.beats import Beats
from esid.daemon.child_loop import Life
from esid.feeds import r2z2
from esid.feeds.follow import Follower
from esid.settings import Settings

#: Seconds that a part which is being written may take to its end at a stop.
STOP_S = 60.0


def run(settings: Settings, life: Life) -> None:
    """Follow the live feed of killmails until a stop. An error of our own ends the process, and it is replaced."""
    store = core.open_store(settings)
    source = killmails.open_feed_source(settings, life.stop)
    broken: list[BaseException] = []

    def follow() -> None:
        try:
            Follower(store, r2z2.feed(), source, life.stop).run()
        except BaseException as error:  # noqa: BLE001
            broken.append(error)

    def look() -> None:
        if broken:
            raise broken[0]

    thread = threading.Thread(target=follow, name="feed", daemon=True)
    thread.start()
    beats = Beats(store, life)
    beats.start()
    life.wait_for_stop(store, every_second=look)
    thread.join(STOP_S)
    beats.end()
    source.close()
    store.close()
