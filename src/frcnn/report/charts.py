"""Line charts as SVG text; colours are variables of the page, so that they follow its light or dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 560.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 38.0
MANY = 80
"""Curves with more points than this are drawn faint, with a running mean on top."""


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: for the legend.
        points: (x, y), x rising; what is not finite has been left out.
        color: number of one of the page's colours, from 1.
        dashed: a broken line.
        marks: a dot on every point.
        smooth: where there are many points, they are faint and their running mean is drawn.
    """

    name: str
    points: Points
    color: int
    dashed: bool = False
    marks: bool = False
    smooth: bool = True


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_range: tuple[float, float] | None = None,
    whole_x: bool = False,
) -> Markup:
    """A chart with axes and a legend; empty where no series has a point.

    Args:
        series: curves; those without points are left out.
        x_label: under the axis.
        y_range: limits of the y axis; None: from 0 to a little above the largest value.
        whole_x: ticks of the x axis only at whole numbers (epochs, steps).
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return Markup("")
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    low_x, high_x = min(xs), max(xs)
    if low_x == high_x:
        low_x, high_x = low_x - 0.5, high_x + 0.5
    low_y, high_y = y_range or (min(0.0, min(ys)), max(ys) or 1.0)
    y_ticks = ticks(low_y, high_y, 5)
    if y_range is None:
        low_y, high_y = min(low_y, y_ticks[0]), max(high_y, y_ticks[-1])
    frame = _Frame(low_x, high_x, low_y, high_y)
    parts = [_grid(frame, y_ticks), _x_axis(frame, x_label, whole_x)]
    parts += [_curve(frame, s) for s in drawn]
    label = escape(f"{', '.join(s.name for s in drawn)} by {x_label}")
    picture = (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
    return Markup(_legend(drawn) + picture)


def precision_recall(curve: Sequence[float], color: int = 1) -> Markup:
    """A small square chart of precision (101 values) by recall 0..1, with the area under it filled."""
    last = max((i for i, p in enumerate(curve) if p > 0), default=-1)
    size, pad = 160.0, 6.0
    inner = size - 2 * pad
    places = [(pad + inner * i / 100, pad + inner * (1 - curve[i])) for i in range(last + 1)]
    grid = "".join(
        f'<path class="grid" d="M{pad:g} {at:.1f}h{inner:g}M{at:.1f} {pad:g}v{inner:g}"/>'
        for at in (pad + inner * share for share in (0, 0.25, 0.5, 0.75, 1))
    )
    line = area = ""
    if places:
        route = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        foot = pad + inner
        line = f'<path class="line c{color}" d="M{route}V{foot:g}"/>'
        area = f'<path class="area c{color}" d="M{route}V{foot:g}H{pad:g}Z"/>'
    return Markup(
        f'<svg viewBox="0 0 {size:g} {size:g}" role="img" aria-label="precision by recall">'
        f"{grid}{area}{line}</svg>"
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers from ``low`` or below it to ``high`` or above it."""
    span = high - low if high > low else 1.0
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A short number: 0.25, 1e-05, 12k."""
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:g}k"
    if 0 < size < 1e-3:
        return f"{value:.0e}"
    return f"{value:.4g}"


def running_mean(points: Points, window: int) -> list[tuple[float, float]]:
    """Each y as the mean of the last ``window`` ones."""
    out: list[tuple[float, float]] = []
    total = 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        out.append((x, total / min(i + 1, window)))
    return out


@dataclass(frozen=True)
class _Frame:
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.low_x) / (self.high_x - self.low_x)

    def y(self, value: float) -> float:
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _grid(frame: _Frame, y_ticks: Sequence[float]) -> str:
    parts = []
    for value in y_ticks:
        if not frame.low_y - 1e-12 <= value <= frame.high_y * (1 + 1e-9) + 1e-12:
            continue
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>')
        parts.append(f'<text x="{LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{tick_text(value)}</text>')
    return "".join(parts)


def _x_axis(frame: _Frame, label: str, whole: bool) -> str:
    foot = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT:g} {foot:g}H{WIDTH - RIGHT:g}"/>']
    for value in ticks(frame.low_x, frame.high_x, 7):
        if not frame.low_x <= value <= frame.high_x or (whole and value != round(value)):
            continue
        x = frame.x(value)
        parts.append(f'<text x="{x:.1f}" y="{foot + 16:g}" text-anchor="middle">{tick_text(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:g}" y="{HEIGHT - 5:g}" text-anchor="middle">{escape(label)}</text>'
    )
    return "".join(parts)


def _curve(frame: _Frame, series: Series) -> str:
    color = f"c{series.color}" + (" dashed" if series.dashed else "")
    points = series.points
    parts: list[str] = []
    if series.smooth and len(points) > MANY:
        parts.append(f'<path class="line faint {color}" d="{_route(frame, points)}"/>')
        points = running_mean(points, max(len(points) // 40, 2))
    if len(points) > 1:
        parts.append(f'<path class="line {color}" d="{_route(frame, points)}"/>')
    if series.marks or len(points) == 1:
        for x, y in points:
            hint = f"<title>{escape(series.name)} {y:.4g}</title>"
            parts.append(
                f'<circle class="dot {color}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
                f"{hint}</circle>"
            )
    return "".join(parts)


def _route(frame: _Frame, points: Points) -> str:
    return "M" + "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)


def _legend(series: Sequence[Series]) -> str:
    items = (
        f'<span><i class="key c{s.color}{" dashed" if s.dashed else ""}"></i>{escape(s.name)}</span>'
        for s in series
    )
    return f'<div class="legend">{"".join(items)}</div>'
