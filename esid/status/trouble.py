"""What is not as it should be, in words for a person. Nothing to say needs proof: a scheduler that ticks, workers on every
queue that has messages, a message for each job that waits. Pure; reads the state that `status` has collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esid.clock import span
from esid.entities import BY_NAME
from esid.schedule.plan import TASKS
from esid.words import counted

#: Seconds after which a job that was published is in a queue, or in somebody's hands.
PUBLISHED_S = 60.0
#: Seconds that one unit of work takes at most while all is well.
_LONG_S = 600.0


def found(state: Mapping[str, Any], place: str, without_message: Sequence[str], *, is_moving: bool = False) -> list[str]:
    """One sentence each; [] = all is well.

    Args:
        state: see `status.collect`.
        place: where messages go and come from by the settings of whoever asks.
        without_message: entities of which a job has waited for long since it was published.
        is_moving: a daemon has just begun or ended; who is missing, and what waits for them, is no trouble yet.
    """
    workers = [one for one in state["processes"] if one["kind"] == "worker"]
    return [
        *_away(state),
        *([] if is_moving else _missing(state, workers, place)),
        *_long(workers),
        *([] if is_moving else _messages(state, workers, without_message)),
        *_schedule(state["schedule"]),
        *_given_up(state["dead_letters"]),
    ]


def _away(state: Mapping[str, Any]) -> list[str]:
    words, limits = [], state["limits"]
    if not state["queues"]["reachable"]:
        words.append(f"The queue cannot be reached: {state['queues']['error']}")
    if limits["breaker"]["state"] != "closed":
        words.append(f"ESI has been away for {span(limits['breaker']['open_s'])}; work waits, nothing is lost.")
    if limits["breaker"]["routes"]:
        words.append(f"Away at ESI: {', '.join(limits['breaker']['routes'])}; their work waits, nothing is lost.")
    if limits["paused_s"]:
        words.append(f"ESI has paused us (420) for {limits['paused_s']:.0f} s more.")
    return words


def _missing(state: Mapping[str, Any], workers: Sequence[Mapping[str, Any]], place: str) -> list[str]:
    words = []
    if not workers:
        words.append("No worker was heard of in the last 30 s: is esid run running?")
    elif others := sorted({one["queue"] for one in workers if one.get("queue", place) != place}):
        words.append(f"The workers consume another queue than these settings name: {'; '.join(others)}, and not {place}.")
    run = {name for one in state["processes"] for name in one.get("jobs", ())}
    if workers and not any(task.name in run for task in TASKS if task.asks_esi):
        words.append("No process schedules syncs: nothing is refreshed by itself (esid run without --no-scheduler).")
    return words


def _long(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    words = []
    for one in workers:
        long_s = max((work["for_s"] for work in one["doing"]), default=0.0)
        if long_s > _LONG_S:
            words.append(f"A worker ({one['name'].rpartition(':')[0]}) has been at one piece of work for {span(long_s)}.")
    return words


def _messages(state: Mapping[str, Any], workers: Sequence[Mapping[str, Any]], without_message: Sequence[str]) -> list[str]:
    words = []
    consumed = {entity for one in workers for entity in one.get("entities", ())}
    held = {name.rpartition(".")[2] for one in workers for name in one.get("held", {})}
    waiting = {name.rpartition(".")[2]: count for name, count in state["queues"]["pending"].items() if count}
    if workers:
        words += [
            f"{counted(count, 'message waits', 'messages wait')} in the {queue} queue, and no worker works on it "
            "(--actors, WORKER_TYPES)."
            for queue, count in waiting.items()
            if queue not in consumed
        ]
    if state["queues"]["reachable"] and workers:
        lost = sorted({BY_NAME[name].lane for name in without_message} - set(waiting) - held)
        words += [f"Jobs of the {queue} queue wait without a message; the sweep publishes them anew." for queue in lost]
    return words


def _schedule(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [job for job in jobs if job["last_result"] == "failed"]
    late = [job for job in jobs if job["late_s"] is not None]
    return [f"{job['name']} failed at its last run: {job['last_words']}" for job in failed] + [
        f"{job['name']} was due {span(job['late_s'])} ago, and has not begun." for job in late
    ]


def _given_up(letters: Sequence[Mapping[str, Any]]) -> list[str]:
    dead = sum(one["count"] for one in letters if one["reason"] != "not_found")
    words = f"{counted(dead, 'id was', 'ids were')} given up (esid dead list); those that ESI does not know are not counted."
    return [words] if dead else []
