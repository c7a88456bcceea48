"""Isolates messages that kill their worker: what is in hand is noted, what a dead worker held is booked and split.

Deaths are counted apart from failures: the unit of work books what went wrong, this what never came back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import dramatiq

from esid import log
from esid.clock import Stop
from esid.entities import ENTITIES
from esid.errors import DatabaseUnavailable, EsidError
from esid.queue.hands import Hands
from esid.queue.incoming import QUARANTINE
from esid.store import recoveries
from esid.store.connection import Store

_PLACES = {entity.name: place for place, entity in enumerate(ENTITIES)}
_log = log.get("work")


class Recoveries(dramatiq.Middleware):
    """Keeps `Hands` true, and holds ids back whose message was delivered before and may have killed its worker."""

    def __init__(self, store: Store, hands: Hands, stop: Stop) -> None:
        self._store, self._hands, self._stop = store, hands, stop
        self._quarantine = threading.Lock()
        self._mine = threading.local()

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        """Note what is begun."""
        ids = _ids(message)
        if not ids:
            return
        if message.redelivered:
            try:
                recoveries.isolate(self._store, message.actor_name, ids)
            except EsidError:
                # The unit of work meets the same database and says what is wrong with it.
                return
        quarantined = bool(message.options.get(QUARANTINE)) and self._enter()
        self._hands.take(_PLACES[message.actor_name], ids, quarantined=quarantined)

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """It came back, whatever came of it."""
        self._hands.drop()
        if getattr(self._mine, "quarantined", False):
            self._mine.quarantined = False
            self._quarantine.release()

    def _enter(self) -> bool:
        """Wait until no other thread works on a message in quarantine; False at a stop."""
        while not self._quarantine.acquire(timeout=0.5):
            if self._stop.is_set():
                return False
        self._mine.quarantined = True
        return True


def settle(store: Store, hands: Hands, wait: Callable[[], bool]) -> None:
    """Book what the worker before this one had in hand when it died.

    Args:
        wait: called while the database is away; True = a stop was asked for, the next start does it.
    """
    left = hands.held()
    is_known = any(quarantined for *_, quarantined in left)
    while True:
        try:
            for place, ids, quarantined in left:
                # Who was in quarantine did it; the others only stood by.
                _book(store, ENTITIES[place].name, ids, quarantined, counted=quarantined or not is_known)
            break
        except DatabaseUnavailable as error:
            log.outage("database").down(error)
            if wait():
                return
    hands.clear()


def _book(store: Store, entity: str, ids: list[int], quarantined: bool, *, counted: bool) -> None:
    if not counted:
        recoveries.isolate(store, entity, ids)
        return
    booked = recoveries.book(store, entity, ids, quarantined=quarantined)
    if booked.waits:
        words = "a worker died with these ids in hand; they are asked again, each alone"
        log.event(_log, "work.recovered", words, level=logging.WARNING, entity=entity, ids=len(booked.waits))
    for key in booked.dead:
        words = "worker after worker died with this id in hand; it is given up"
        log.event(_log, "work.dead", words, level=logging.ERROR, entity=entity, id=key, reason="killed_worker")


def _ids(message: Any) -> list[int]:
    """The ids of a message that looks like one of ours; [] otherwise."""
    ids = message.args[0] if message.args else None
    if message.actor_name not in _PLACES or not isinstance(ids, list):
        return []
    return ids if all(type(key) is int and 0 < key < 2**63 for key in ids) else []
