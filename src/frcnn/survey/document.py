"""A data check as plain values, for machines: ``docs/checks.md`` describes every key."""

from __future__ import annotations

import json
import math
from typing import Any

import frcnn
from frcnn.config import Config
from frcnn.data.checks.locate import Place, locate
from frcnn.data.findings import TITLES, CheckReport
from frcnn.data.naming import sources
from frcnn.data.sample import Dataset
from frcnn.survey.survey import Survey

VERSION = 1
"""Of the keys; it rises when one changes its meaning or goes away."""


def document(
    dataset: Dataset, report: CheckReport, found: Survey, config: Config, decoded: bool = False
) -> dict[str, Any]:
    """Everything that a check found.

    Args:
        dataset: that was checked, as it was read.
        report: of the check.
        found: the survey of the same data set.
        config: what it was checked for.
        decoded: whether every picture was decoded.
    """
    spec = config.preprocess
    plain = report.to_dict()
    places = locate(dataset, report.findings)
    return {
        "version": VERSION,
        "frcnn": frcnn.__version__,
        "source": plain["source"],
        "format": dataset.format,
        "recipe": config.recipe,
        "decoded": decoded,
        "training_size": list(spec.fixed_size) if spec.fixed_size else [spec.min_size, spec.max_size],
        "tile": spec.tile,
        "counts": {
            **plain["counts"],
            "errors": len(report.errors),
            "warnings": len(report.of("warn")),
            "notes": len(report.of("note")),
        },
        "splits": {name: len(rows) for name, rows in dataset.splits.items()},
        "classes": _classes(dataset),
        "codes": {f.code: TITLES.get(f.code, "") for f in report.findings},
        "findings": [
            {**values, **_place(dataset, place)}
            for values, place in zip(plain["findings"], places, strict=True)
        ],
        "survey": found.to_dict(),
    }


def as_text(values: dict[str, Any]) -> str:
    """JSON that every reader accepts: numbers that are not finite are null."""
    return json.dumps(values, indent=1, allow_nan=False)


def _classes(dataset: Dataset) -> list[dict[str, Any]]:
    counts = zip(
        dataset.classes,
        sources(dataset),
        dataset.class_images().tolist(),
        dataset.class_counts().tolist(),
        strict=True,
    )
    parts = {name: dataset.subset(name).class_counts().tolist() for name in dataset.splits}
    return [
        {
            "id": k,
            "name": name,
            "written": written,
            "pictures": pictures,
            "boxes": boxes,
            "by_split": {split: values[k] for split, values in parts.items()},
        }
        for k, (name, written, pictures, boxes) in enumerate(counts)
    ]


def _place(dataset: Dataset, place: Place) -> dict[str, Any]:
    """The picture, its splits, the boxes in question and the class of the first."""
    boxes = [
        [round(v, 3) if math.isfinite(v) else None for v in dataset.objects.boxes[row].tolist()]
        for row in place.rows
    ]
    return {
        "picture": dataset.pictures.paths[place.picture] if place.picture >= 0 else "",
        "splits": list(place.splits),
        "boxes": boxes,
        "class": dataset.written_name(place.rows[0]) if place.rows else "",
    }
