"""The page at `/`: one look tells whether all is well. Rendered here, whole; the script only fetches it again."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Any

import jinja2

from esid.clock import span
from esid.errors import EsidError
from esid.store import samples
from esid.web import history, plots
from esid.web.view import View

#: Rates and values that are plotted, with what they are called.
PLOTS = {
    "done a second": "ids done a second",
    "requests a second": "requests a second",
    "failed a second": "ids failed a second",
    "open": "open jobs",
    "error_remain": "error limit left",
}


def render(view: View) -> tuple[HTTPStatus, str]:
    """The status and the whole page. While the database is away the page says that, and nothing else."""
    try:
        state, problem = view.state(), view.unready()
        taken = samples.last(view.sources.store, 3600.0)
    except EsidError as error:
        text = _template().render(state=None, verdicts=[], problem=str(error))
        return HTTPStatus.SERVICE_UNAVAILABLE, text
    series = history.series(taken)
    queues = {name: points for name, points in series.items() if name.startswith("queue ")}
    text = _template().render(
        state=state,
        problem=problem,
        verdicts=verdicts(state),
        plots=[(words, series.get(name, [])) for name, words in PLOTS.items()],
        queues=[(name.removeprefix("queue "), points) for name, points in sorted(queues.items())],
    )
    return HTTPStatus.OK, text


def verdicts(state: dict[str, Any]) -> list[str]:
    """What a person should know that is not as it should be, in words; [] = all is well."""
    found, limits = [], state["limits"]
    if not state["queues"]["reachable"]:
        found.append(f"The queue cannot be reached: {state['queues']['error']}")
    if limits["breaker"]["state"] != "closed":
        found.append(f"ESI is away since {span(limits['breaker']['open_s'])}; work waits, nothing is lost.")
    if limits["paused_s"]:
        found.append(f"ESI has paused us (420) for {limits['paused_s']:.0f} s more.")
    if not any(one["kind"] == "worker" for one in state["processes"]):
        found.append("No worker was heard of in the last 30 s: is esid run running?")
    found += [
        f"{job['name']} failed at its last run: {job['last_words']}"
        for job in state["schedule"]
        if job["last_result"] == "failed"
    ]
    dead = sum(one["count"] for one in state["dead_letters"] if one["reason"] != "not_found")
    if dead:
        found.append(f"{dead:,} ids were given up (esid dead list); those that ESI does not know are not counted.")
    return found


@lru_cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("esid.web", "static"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(plot=plots.plot, gauge=plots.gauge)
    environment.filters.update(span=span, number=lambda value: f"{value:,}", minute=_minute)
    return environment.get_template("page.html")


def _minute(text: str | None) -> str:
    return text[:16].replace("T", " ") if text else "–"
