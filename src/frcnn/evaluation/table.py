"""The table by class, as text, JSON rows and CSV; every line says how it was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from rich.box import Box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frcnn.evaluation.arrays import Problem
from frcnn.evaluation.coco import Metrics
from frcnn.evaluation.curves import ClassCurve, best_f1, fill_thresholds
from frcnn.evaluation.kitti import DIFFICULTIES
from frcnn.evaluation.protocols import COCO, VOC07, VOC12, Numbers

NOT_MEASURED = "n/a"
PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
"""One line of hyphens under the head: readable in every terminal, log and mail."""


@dataclass(frozen=True)
class Settings:
    """How numbers were measured; stands on every line of a report.

    Attributes:
        protocol: name of the protocol.
        iou: IoU thresholds, as text.
        max_dets: detections of a picture and class that count.
        score_floor: lowest score that entered.
        images: pictures.
        objects: objects asked for.
        ignored: objects and regions that are neither asked for nor wrong to find.
    """

    protocol: str
    iou: str
    max_dets: int
    score_floor: float
    images: int
    objects: int
    ignored: int

    def line(self, iou: str | None = None) -> str:
        """In words: protocol, IoU, limits and counts."""
        return (
            f"{self.protocol}, IoU {iou or self.iou}, max-dets {self.max_dets}, "
            f"score >= {self.score_floor:g}, {self.images:,} images, "
            f"{self.objects:,} gt, {self.ignored:,} ignored"
        )


@dataclass(frozen=True)
class ClassRow:
    """Numbers of one class; None where nothing could be measured.

    Attributes:
        name: class name.
        objects: objects asked for.
        ignored: ignored objects of the class.
        detections: detections above the floor that count (not those on ignored objects).
        ap: AP of the protocol; for KITTI's that of the moderate difficulty.
        ap50: AP at IoU 0.50, where the protocol has one.
        precision: at the threshold with the best F1, as are ``recall`` and ``f1``.
        threshold: that score; for a class without objects the fallback that ``predict`` uses.
        precision_all: of all detections above the score floor: shows low false positives, which AP does not.
        recall_all: the same for recall: the most that any threshold can reach.
        extra: further numbers of the protocol by name: KITTI's AP at each difficulty.
    """

    name: str
    objects: int
    ignored: int
    detections: int
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    threshold: float
    precision_all: float | None
    recall_all: float | None
    extra: Metrics = field(default_factory=dict)


def class_rows(
    problem: Problem, numbers: Numbers, curves: Sequence[ClassCurve], floor: float = 0.0
) -> tuple[ClassRow, ...]:
    """One row for every class; ``problem`` is limited to the detections that count, as ``numbers`` and
    ``curves`` (at IoU 0.50) were.
    """
    best = [best_f1(curve, floor) for curve in curves]
    thresholds = fill_thresholds(best)
    ignored = np.bincount(problem.objects.category[problem.objects.ignore], minlength=len(problem.names))
    rows = []
    for k, (curve, at) in enumerate(zip(curves, best, strict=True)):
        found = len(curve.scores) > 0
        rows.append(
            ClassRow(
                name=problem.names[k],
                objects=curve.objects,
                ignored=int(ignored[k]),
                detections=curve.detections,
                ap=numbers.ap[k],
                ap50=numbers.ap50[k],
                precision=at.precision if at else None,
                recall=at.recall if at else (0.0 if curve.objects else None),
                f1=at.f1 if at else (0.0 if curve.objects else None),
                threshold=thresholds[k],
                precision_all=float(curve.precision[-1]) if found else None,
                recall_all=(float(curve.recall[-1]) if found else 0.0) if curve.objects else None,
                extra=dict(numbers.extra[k]),
            )
        )
    return tuple(rows)


WHICH_OBJECTS = {
    f"{kind}{letter}": f"{size} objects, "
    for kind in ("AP", "AR")
    for letter, size in (("s", "small"), ("m", "medium"), ("l", "large"))
} | {
    f"AP_{level.name}": f"height >= {level.height:g}, occlusion <= {level.occluded}, "
    f"truncation <= {level.truncated:g}, "
    for level in DIFFICULTIES
}
"""Numbers that are not of all objects."""
AP_COLUMNS = {COCO: ("AP", "AP50"), VOC07: ("AP",), VOC12: ("AP",)}
"""Of the table by class, before the protocol's further numbers."""
FURTHER_WIDTH = 8
"""Characters by which each of these widens the table, so that class names stay in one line."""


def number(value: float | None, digits: int = 3) -> str:
    """A share with three digits, or n/a."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def format_metrics(metrics: dict[str, float | None], settings: Settings) -> str:
    """The protocol's numbers, one a line, each with how it was measured."""
    lines = []
    width = max([6, *map(len, metrics)])
    for name, value in metrics.items():
        kind, _, limit = name.partition("@")  # R50@100
        if name.startswith("AR") and name[2:].isdigit():
            limit = name[2:]
        iou = {"AP50": "0.50", "AP75": "0.75", "R50": "0.50"}.get(kind, settings.iou)
        text = replace(settings, max_dets=int(limit or settings.max_dets)).line(iou)
        lines.append(f"{name:<{width}} {number(value):>6}   {WHICH_OBJECTS.get(name, '')}{text}")
    return "\n".join(lines)


def format_table(rows: Sequence[ClassRow], settings: Settings, color: bool = False, width: int = 110) -> str:
    """The table by class as text; colour codes only where ``color`` is set (a terminal)."""
    table = Table(box=PLAIN, pad_edge=False, header_style="bold" if color else "")
    table.add_column("class", overflow="fold")
    aps = AP_COLUMNS.get(settings.protocol, ())
    further = _further(rows)
    ends = ("P", "R", "F1", "score >=", "detections", "P all", "R all")
    for head in ("gt", "ignored", *aps, *further, *ends):
        table.add_column(head, justify="right", no_wrap=True)
    for r in rows:
        shares = (*(r.ap, r.ap50)[: len(aps)], *(r.extra[name] for name in further))
        shares += (r.precision, r.recall, r.f1, r.threshold)
        last = (f"{r.detections:,}", number(r.precision_all), number(r.recall_all))
        table.add_row(escape(r.name), f"{r.objects:,}", f"{r.ignored:,}", *(number(v) for v in shares), *last)
    out = io.StringIO()
    width += FURTHER_WIDTH * len(further)
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, highlight=False)
    console.print(table)
    floor = f"{settings.score_floor:g}"
    legend = f"P, R, F1: IoU 0.50, at the score with the best F1; P all, R all: every score >= {floor}"
    console.print(legend, markup=False, soft_wrap=True)
    console.print(settings.line(), markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def json_rows(rows: Sequence[ClassRow], settings: Settings) -> list[dict[str, Any]]:
    """Plain values, one dictionary a class, each with how it was measured."""
    return [asdict(row) | {"settings": asdict(settings)} for row in rows]


def csv_text(rows: Sequence[ClassRow], settings: Settings) -> str:
    """Comma-separated values with a head line; what was not measured is n/a."""
    how = {f"{key}_total" if key in ("objects", "ignored") else key: v for key, v in asdict(settings).items()}
    out = io.StringIO()
    names = [key for key in ClassRow.__dataclass_fields__ if key != "extra"] + [*_further(rows), *how]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = asdict(row)
        values |= values.pop("extra")
        values = {key: NOT_MEASURED if value is None else value for key, value in values.items()}
        writer.writerow(values | how)
    return out.getvalue()


def _further(rows: Sequence[ClassRow]) -> tuple[str, ...]:
    """Names of the protocol's further numbers."""
    return tuple(rows[0].extra) if rows else ()
