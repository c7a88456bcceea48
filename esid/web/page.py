"""The page at `/`: one look tells whether all is well. Rendered here, whole; the script only fetches it again."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

import jinja2

from esid.clock import span
from esid.errors import EsidError
from esid.status import history
from esid.store import samples
from esid.web import plots
from esid.web.view import View
from esid.words import called

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
        verdicts=state["trouble"],
        plots=[(words, series.get(name, [])) for name, words in PLOTS.items()],
        queues=[(name.removeprefix("queue "), points) for name, points in sorted(queues.items())],
    )
    return HTTPStatus.OK, text


@lru_cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("esid.web", "static"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(plot=plots.plot, gauge=plots.gauge)
    environment.filters.update(called=called, span=span, number=lambda value: f"{value:,}", minute=_minute)
    return environment.get_template("page.html")


def _minute(text: str | None) -> str:
    return text[:16].replace("T", " ") if text else "–"
