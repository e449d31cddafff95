"""A survey as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from frcnn.survey.coverage import LOW_IOU, Coverage, Share
from frcnn.survey.fit import FEW_OBJECTS
from frcnn.survey.sizes import Histogram
from frcnn.survey.survey import Survey

BAR = 40


def survey_lines(found: Survey) -> list[str]:
    """All of it: sizes, aspects, coverage, fitted anchors, advice."""
    if not found.objects:
        return ["no usable object to measure"]
    lines = [f"short sides at training size, pixels ({found.objects} objects):"]
    lines += bars(found.sides)
    aspects = found.aspects
    lines.append(
        f"width / height: median {aspects.middle:.2f}, 90 % between {aspects.low:.2f} and {aspects.high:.2f}"
    )
    if found.covered is None:
        lines.append("anchors: this detector has points instead")
    else:
        lines += coverage_lines(found.covered)
    if found.fitted is not None and found.covered is not None and found.covered_then is not None:
        lines += _fitted_lines(found, found.covered, found.covered_then)
    return [*lines, f"advice: {found.advice.text}"]


def bars(counts: Histogram) -> list[str]:
    """A line with a bar for every step between the first and the last that is not empty."""
    totals = counts.counts.sum(1).tolist()
    used = [i for i, n in enumerate(totals) if n]
    if not used:
        return []
    rows = []
    for i in range(used[0], used[-1] + 1):
        last = i + 1 == len(counts.edges)
        name = f"{counts.edges[i]:g} or more" if last else f"{counts.edges[i]:g} to {counts.edges[i + 1]:g}"
        bar = "#" * max(round(BAR * totals[i] / max(totals)), 1 if totals[i] else 0)
        rows.append(f"  {name:>11}  {totals[i]:>7}  {bar}".rstrip())
    return rows


def coverage_text(total: Share) -> str:
    """In words, as training announces it."""
    return f"best anchor IoU: median {total.median:.2f}; {total.low:.0%} of {total.objects} boxes < {LOW_IOU}"


def coverage_lines(covered: Coverage) -> list[str]:
    """The total, then a line for every size and class."""
    rows = [("", "objects", "median", f"< {LOW_IOU}")]
    for group in (covered.by_size, covered.by_class):
        rows += [(s.name, str(s.objects), *_numbers(s)) for s in group]
    return [coverage_text(covered.total), *_table(rows)]


def _fitted_lines(found: Survey, before: Coverage, after: Coverage) -> list[str]:
    if not found.setting:
        return ["anchors fitted to the data: none found that cover the objects better"]
    few = ["  so few objects say little about others"] if found.objects < FEW_OBJECTS else []
    rows = [("", "objects", "median", f"< {LOW_IOU}", "fitted", f"< {LOW_IOU}")]
    pairs = [(before.total, after.total), *zip(before.by_size, after.by_size, strict=True)]
    pairs += zip(before.by_class, after.by_class, strict=True)
    rows += [(a.name, str(a.objects), *_numbers(a), *_numbers(b)) for a, b in pairs]
    return [
        "anchors fitted to the data, before and after:",
        *_table(rows),
        f"  train with: {found.setting}",
        *few,
    ]


def _numbers(share: Share) -> tuple[str, str]:
    return (f"{share.median:.2f}", f"{share.low:.1%}") if share.objects else ("n/a", "n/a")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
