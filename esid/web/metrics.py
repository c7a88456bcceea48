"""/metrics for Prometheus: computed at each scrape from what all processes share, at most 2 s ago.

Counts stand in the table `counters` and in the budget's file, never in this process; what is shown is the same whichever
process answers. Names: docs/metrics.md, held against this module by a test.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from esid import clock
from esid.errors import EsidError
from esid.queue.middleware.doing import BOUNDS_S
from esid.status.collect import STATES
from esid.store import counters
from esid.web.view import View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def page(view: View) -> bytes:
    """The text of one scrape. What cannot be read is left out, and `esid_up` is 0."""
    registry = CollectorRegistry()
    registry.register(_Everything(view))
    return generate_latest(registry)


class _Everything(Collector):
    """All metrics of one moment."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        try:
            state, totals = self._view.state(), counters.values(self._view.sources.store)
        except EsidError:
            yield _gauge("esid_up", "Whether the database can be read (1) or not (0).", 0.0)
            return
        yield _gauge("esid_up", "Whether the database can be read (1) or not (0).", 1.0)
        yield _labelled("esid_build_info", "The version that answers; always 1.", ["version"], [((state["version"],), 1.0)])
        yield from _limits(state["limits"])
        yield from _work(state)
        yield from _counts(totals)
        yield from _upkeep(state)


def _limits(limits: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge(
        "esid_esi_error_limit_remaining", "Errors left in ESI's window, the reserve included.", limits["error_remain"]
    )
    yield _gauge("esid_esi_error_limit_reserve", "Errors that are never used.", limits["error_reserve"])
    yield _gauge("esid_esi_paused_seconds", "Seconds for which ESI's 420 still holds everything back.", limits["paused_s"])
    yield _gauge("esid_esi_requests_in_flight", "Requests on their way.", limits["in_flight"])
    yield _gauge("esid_esi_requests_waiting", "Requests that wait for the budget.", limits["waiting"])
    yield _gauge(
        "esid_esi_away_seconds", "Seconds for which the breaker has held ESI to be away.", limits["breaker"]["open_s"]
    )
    yield _counter("esid_esi_requests", "Requests sent by this host.", limits["requests"])
    yield _counter("esid_esi_errors", "Answers of 4xx and 5xx, and requests without an answer.", limits["errors"])
    yield _counter("esid_esi_not_modified", "Answers of 304.", limits["not_modified"])
    for name, key, words in (
        ("esid_esi_bucket_tokens_available", "available", "Tokens of a rate group that may be spent, less the reserve."),
        ("esid_esi_bucket_tokens_limit", "limit", "Tokens of a rate group in its window."),
        ("esid_esi_bucket_closed_seconds", "closed_s", "Seconds for which a 429 still closes a rate group."),
        ("esid_esi_bucket_requests_waiting", "waiting", "Requests that wait for tokens of a rate group."),
    ):
        yield _labelled(name, words, ["group"], [((one["group"],), one[key]) for one in limits["buckets"]])


def _work(state: dict[str, Any]) -> Iterator[Metric]:
    queues = state["queues"]
    depths = [((name,), count) for name, count in queues["pending"].items()]
    yield _gauge("esid_queue_up", "Whether the queue can be reached (1) or not (0).", float(queues["reachable"]))
    yield _labelled("esid_queue_messages", "Messages that wait.", ["queue"], depths)
    ages = [((entity,), seconds) for entity, seconds in state["oldest_open_s"].items()]
    yield _labelled(
        "esid_oldest_open_job_seconds", "Seconds since the longest untouched open job was touched.", ["entity"], ages
    )
    jobs = [((entity, one), by[one]) for entity, by in state["ledger"].items() for one in STATES]
    yield _labelled("esid_ledger_jobs", "Rows of the ledger.", ["entity", "status"], jobs)
    fresh = state["freshness"]
    yield _labelled(
        "esid_answers", "Ids with an answer.", ["entity"], [((name,), one["known"]) for name, one in fresh.items()]
    )
    yield _labelled(
        "esid_fresh_ratio", "Share of the answers that are not due.", ["entity"],
        [((name,), one["share"]) for name, one in fresh.items() if one["share"] is not None],
    )  # fmt: skip
    yield _labelled(
        "esid_oldest_answer_seconds", "Seconds since the oldest answer was looked at.", ["entity"],
        [((name,), one["oldest_s"]) for name, one in fresh.items() if one["oldest_s"] is not None],
    )  # fmt: skip
    dead = [((one["entity"] or "", one["reason"]), one["count"]) for one in state["dead_letters"]]
    yield _labelled("esid_dead_letters", "Dead letters that wait for a person.", ["entity", "reason"], dead)
    forgotten = CounterMetricFamily(
        "esid_dead_letters_forgotten", "Dead letters that were forgotten at the cap.", labels=["entity", "reason"]
    )
    for one in state["dead_letters_forgotten"]:
        forgotten.add_metric([one["entity"] or "", one["reason"]], one["count"])
    yield forgotten
    unknown = [((one["entity"], one["field"]), one["count"]) for one in state["unknown_fields"]]
    yield _labelled(
        "esid_unknown_fields",
        "Fields of ESI that this release does not know, as often as seen.",
        ["entity", "field"],
        unknown,
    )


def _counts(totals: dict[str, float]) -> Iterator[Metric]:
    ids = CounterMetricFamily(
        "esid_ids", "Ids of messages that were worked on, by what became of them.", labels=["entity", "result"]
    )
    durations: dict[str, dict[str, float]] = {}
    for name, value in totals.items():
        kind, _, rest = name.partition(":")
        entity, _, what = rest.rpartition(":")
        if kind == "ids":
            ids.add_metric([entity, what], value)
        elif kind == "duration":
            durations.setdefault(entity, {})[what] = value
    yield ids
    histogram = HistogramMetricFamily("esid_message_duration_seconds", "Seconds that a message took.", labels=["entity"])
    for entity, found in durations.items():
        count, buckets = 0.0, []
        for bound in (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"):
            count += found.get(bound, 0.0)
            buckets.append((bound if bound == "+Inf" else str(float(bound)), count))
        histogram.add_metric([entity], buckets, found.get("sum", 0.0))
    yield histogram


def _upkeep(state: dict[str, Any]) -> Iterator[Metric]:
    living: dict[str, int] = {}
    for one in state["processes"]:
        living[one["kind"]] = living.get(one["kind"], 0) + 1
    yield _labelled(
        "esid_processes", "Processes heard of in the last 30 s.", ["kind"], [((k,), v) for k, v in living.items()]
    )
    restarts = CounterMetricFamily("esid_restarts", "Child processes that died and were replaced.", labels=["kind"])
    for kind, count in state["restarts"].items():
        restarts.add_metric([kind], count)
    yield restarts
    found = CounterMetricFamily("esid_audit_found", "What must not be in the database, found and mended.", labels=["what"])
    for what, count in state["audit"].items():
        found.add_metric([what], count)
    yield found
    moved = [((one["name"],), one["moved_s"]) for one in state["feeds"] if one["moved_s"] is not None]
    yield _labelled("esid_feed_silent_seconds", "Seconds since the live feed moved.", ["feed"], moved)
    missing = sum(one["missing"] or 0 for one in state["killmail_days"])
    yield _gauge(
        "esid_killmails_missing", "Killmails of the last days that zKillboard has and this database has not.", missing
    )
    now = clock.now()
    last, failed = [], []
    for job in state["schedule"]:
        if job["last_run"]:
            last.append(((job["name"],), (now - _time(job["last_run"])).total_seconds()))
            failed.append(((job["name"],), float(job["last_result"] == "failed")))
    yield _labelled("esid_schedule_last_run_age_seconds", "Seconds since a job of the schedule ran.", ["job"], last)
    yield _labelled("esid_schedule_last_run_failed", "Whether the last run of a job failed (1) or not (0).", ["job"], failed)


def _time(text: str) -> Any:
    return dt.datetime.fromisoformat(text)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value=value)


def _labelled(name: str, words: str, labels: list[str], rows: Any) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for values, value in rows:
        family.add_metric([str(one) for one in values], value)
    return family
