"""Small plots and gauges as inline SVG. Numbers in, markup out; no text of anybody's is put into it unescaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

#: Size of a plot in its own units, and the minutes that it shows.
WIDTH, HEIGHT, MINUTES = 240, 48, 60


def plot(points: Sequence[tuple[float, float]], words: str) -> Markup:
    """A line over the last hour, the newest at the right.

    Args:
        points: (minutes ago, value), oldest first.
        words: what a person who cannot see it is told.
    """
    top = max([value for _, value in points], default=0.0) or 1.0
    spots = [
        f"{WIDTH * (1 - min(MINUTES, ago) / MINUTES):.1f},{HEIGHT - 2 - (HEIGHT - 6) * max(0.0, value) / top:.1f}"
        for ago, value in points
    ]
    line = f'<polyline points="{" ".join(spots)}"/>' if len(spots) > 1 else ""
    return Markup(  # noqa: S704
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}" '
        f'preserveAspectRatio="none"><path d="M0 {HEIGHT - 1}H{WIDTH}"/>{line}</svg>'
    )


def gauge(value: float, most: float, words: str, *, reserve: float = 0.0) -> Markup:
    """A bar that is as full as `value` is of `most`; what is in reserve is marked."""
    part = 0.0 if most <= 0 else max(0.0, min(1.0, value / most))
    kept = 0.0 if most <= 0 else max(0.0, min(1.0, reserve / most))
    level = "bad" if part <= kept else "fair" if part <= kept + 0.15 else "good"
    return Markup(  # noqa: S704
        f'<svg class="gauge" viewBox="0 0 100 10" role="img" aria-label="{escape(words)}" preserveAspectRatio="none">'
        f'<rect class="whole" width="100" height="10"/><rect class="{level}" width="{100 * part:.1f}" height="10"/>'
        f'<rect class="reserve" width="{100 * kept:.1f}" height="10"/></svg>'
    )
