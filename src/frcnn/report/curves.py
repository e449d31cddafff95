"""The charts of a run's course, from the rows of its ``metrics.csv``, whatever losses and metrics it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from frcnn.report.charts import Series, line_chart

LABELS = {
    "rpn_objectness": "RPN objectness",
    "rpn_box": "RPN box",
    "roi_class": "class",
    "roi_box": "box",
    "fcos_class": "class",
    "fcos_box": "box",
    "fcos_centerness": "centerness",
}
"""Losses in words; others are shown by their names."""
ACCURACIES = (("foreground", "tp", "fg"), ("background", "tf", "bg"))
"""Label, RoIs that the second stage got right, and all of that kind."""
METRICS = (("AP", "AP50"), ("AR100", "AR300", "AR1000"))
"""What a validation measures; the first of each decides which weights are best."""
NAMES = {"AR100": "AR@100", "AR300": "AR@300", "AR1000": "AR@1000"}
COLOURS = (1, 3, 2)

Rows = Sequence[dict[str, float]]
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A titled chart, ready for the page."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Best:
    """The best validation of a run."""

    value: float
    name: str
    where: str


def training_charts(rows: Rows) -> list[Chart]:
    """Loss, validation, parts of the loss, accuracy of the second stage, learning rate; those with points."""
    by_epoch = "epoch" if any("epoch" in row for row in rows) else "step"
    names = _metrics(rows)
    loss = [
        Series("training", _curve(rows, "train_total"), 1),
        Series("validation", _curve(rows, "val_total"), 2, dashed=True, marks=True),
    ]
    found = [
        Series(NAMES.get(name, name), _curve(rows, name, by_epoch), colour, marks=True)
        for name, colour in zip(names, COLOURS, strict=False)
    ]
    parts = [Series(label, _curve(rows, name), k) for k, (name, label) in enumerate(_losses(rows), 1)]
    right = [Series(label, _ratio(rows, a, b), k) for k, (label, a, b) in enumerate(ACCURACIES, 1)]
    rate = Series("learning rate", _curve(rows, "lr"), 4, smooth=False)
    whole = (0.0, 1.0)
    title = "Validation recall" if names == METRICS[1] else "Validation AP"
    charts = [
        Chart("Loss", line_chart(loss, "step", whole_x=True)),
        Chart(title, line_chart(found, by_epoch, y_range=whole, whole_x=True)),
        Chart("Parts of the training loss", line_chart(parts, "step", whole_x=True)),
        Chart("RoIs classified rightly", line_chart(right, "step", y_range=whole, whole_x=True)),
        Chart("Learning rate", line_chart([rate], "step", whole_x=True)),
    ]
    return [chart for chart in charts if chart.svg]


def best_validation(rows: Rows) -> Best | None:
    """The best value of the metric that decides; None without a validation."""
    name = _metrics(rows)[0]
    validated = [row for row in rows if name in row]
    if not validated:
        return None
    best = max(validated, key=lambda row: row[name])
    where = f"epoch {best['epoch']:g}" if "epoch" in best else f"step {best.get('step', 0):g}"
    return Best(best[name], NAMES.get(name, name), where)


def _metrics(rows: Rows) -> tuple[str, ...]:
    present = {name for row in rows for name in row}
    return next((names for names in METRICS if names[0] in present), METRICS[0])


def _losses(rows: Rows) -> list[tuple[str, str]]:
    """Columns of the parts of the training loss, and their labels."""
    counts = {"total", *(name for _, *pair in ACCURACIES for name in pair)}
    columns = dict.fromkeys(name for row in rows for name in row if name.startswith("train_"))
    names = [column.removeprefix("train_") for column in columns]
    return [(f"train_{name}", LABELS.get(name, name)) for name in names if name not in counts]


def _curve(rows: Rows, name: str, x: str = "step") -> Curve:
    return [(row[x], row[name]) for row in rows if name in row and x in row]


def _ratio(rows: Rows, right: str, of: str) -> Curve:
    part, whole = f"train_{right}", f"train_{of}"
    shown = (row for row in rows if {"step", part} <= set(row) and row.get(whole))
    return [(row["step"], row[part] / row[whole]) for row in shown]
