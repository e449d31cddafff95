"""Bar charts as SVG text; colours are variables of the page, so that they follow its light or dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from frcnn.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, tick_text, ticks

COLOURS = 6
FEW_MORE = "others"


def bar_chart(
    edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    label: str,
    mark: float | None = None,
    open_end: bool = True,
    outline: tuple[str, Sequence[int]] | None = None,
) -> Markup:
    """Stacked bars, one for each step between the first and the last that is not empty; empty without any.

    Args:
        edges: lower edges of the steps; where the last one is not open, its upper edge too.
        counts: for each step the number of every series.
        names: of the series; more than six become "others".
        label: under the axis.
        mark: a value of the axis at which a line is drawn.
        open_end: whether the last step has no upper edge.
        outline: another series, drawn as a line over the bars: its name, and a number for each step.
    """
    rows, names = _fewer(counts, names)
    totals = [sum(row) for row in rows]
    line = outline[1] if outline else [0] * len(rows)
    totals = [max(pair) for pair in zip(totals, line, strict=True)]
    used = [i for i, total in enumerate(totals) if total]
    if not used:
        return Markup("")
    first, last = max(used[0] - 1, 0), min(used[-1] + 1, len(rows) - 1)
    top = ticks(0, max(totals), 4)
    step = (WIDTH - LEFT - RIGHT) / (last - first + 1)
    foot, high = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    parts = _grid(top, foot, high)
    for i in range(first, last + 1):
        name = _step_name(edges, i, open_end and i == len(rows) - 1)
        left = LEFT + (i - first + 0.06) * step
        parts += _bar(rows[i], names, name, (left, foot, step * 0.88, high / top[-1]))
    shown = edges[first : last + 2]
    parts += [_edge(edge, LEFT + i * step, foot) for i, edge in enumerate(shown)]
    if outline:
        heights = [foot - high * value / top[-1] for value in line[first : last + 1]]
        steps = "".join(f"V{y:.1f}H{LEFT + (i + 1) * step:.1f}" for i, y in enumerate(heights))
        parts.append(f'<path class="line c2" d="M{LEFT:g} {foot:g}{steps}V{foot:g}"/>')
        names = [*names, outline[0]]
    parts += _mark(mark, shown, step, foot)
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:g}" y="{HEIGHT - 5:g}" text-anchor="middle">{escape(label)}</text>'
    )
    head = f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{_legend(names)}{head}{''.join(parts)}</svg>")


def _fewer(counts: Sequence[Sequence[int]], names: Sequence[str]) -> tuple[list[list[int]], list[str]]:
    """At most six series: the largest ones in their order, the rest together."""
    if len(names) <= COLOURS:
        return [list(row) for row in counts], list(names)
    sums = [sum(row[k] for row in counts) for k in range(len(names))]
    kept = sorted(sorted(range(len(names)), key=lambda k: (-sums[k], k))[: COLOURS - 1])
    rows = [[*(row[k] for k in kept), sum(row) - sum(row[k] for k in kept)] for row in counts]
    return rows, [*(names[k] for k in kept), FEW_MORE]


def _step_name(edges: Sequence[float], i: int, is_open: bool) -> str:
    return f"{edges[i]:g} or more" if is_open else f"{edges[i]:g} to {edges[i + 1]:g}"


def _edge(value: float, x: float, foot: float) -> str:
    return f'<text x="{x:.1f}" y="{foot + 16:g}" text-anchor="middle">{value:g}</text>'


def _grid(top: Sequence[float], foot: float, high: float) -> list[str]:
    parts = []
    for value in top:
        y = foot - high * value / top[-1]
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>')
        parts.append(f'<text x="{LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{tick_text(value)}</text>')
    return parts


def _bar(
    row: Sequence[int], names: Sequence[str], step: str, place: tuple[float, float, float, float]
) -> list[str]:
    """The parts of one bar; ``place``: left, foot, width, pixels a count."""
    left, foot, width, unit = place
    parts = []
    for k, count in enumerate(row):
        if count:
            tall = count * unit
            foot -= tall
            who = f"{escape(names[k])}, " if len(names) > 1 else ""
            parts.append(
                f'<rect class="bar-part c{k % COLOURS + 1}" x="{left:.1f}" y="{foot:.1f}" '
                f'width="{width:.1f}" height="{tall:.1f}"><title>{who}{step}: {count:,}</title></rect>'
            )
    return parts


def _mark(mark: float | None, edges: Sequence[float], step: float, foot: float) -> list[str]:
    """A vertical line at a value between the edges; "" where it is outside."""
    for i, (low, high) in enumerate(pairwise(edges)):
        if mark is not None and low <= mark < high:
            x = LEFT + (i + (mark - low) / (high - low)) * step
            return [f'<path class="mark-line" d="M{x:.1f} {TOP:g}V{foot:g}"/>']
    return []


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = (
        f'<span><i class="key block c{k % COLOURS + 1}"></i>{escape(n)}</span>' for k, n in enumerate(names)
    )
    return f'<div class="legend">{"".join(items)}</div>'
