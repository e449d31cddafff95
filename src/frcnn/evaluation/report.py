"""The outcome of an evaluation: numbers, the table by class, curves, and how they were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frcnn.evaluation.arrays import from_json
from frcnn.evaluation.coco import Backend, Metrics
from frcnn.evaluation.curves import class_curves
from frcnn.evaluation.protocols import RECALL, apply_protocol, check_protocol, default_max_dets
from frcnn.evaluation.recall import as_one_class
from frcnn.evaluation.table import ClassRow, Settings, class_rows, csv_text, format_metrics, format_table


@dataclass(frozen=True)
class Counts:
    """What happened on the way to the detections.

    Attributes:
        detections: that entered the evaluation.
        capped_images: pictures in which the detector gave as many as it may, so that more might be there.
        inexact_images: pictures in which the candidate limit before NMS may have cost a detection.
    """

    detections: int = 0
    capped_images: int = 0
    inexact_images: int = 0


@dataclass(frozen=True)
class Report:
    """What a detector reaches on a set of pictures.

    ``report["AP"]`` gives one of the protocol's numbers (None: there was nothing to measure it on).

    Attributes:
        metrics: the protocol's numbers by name.
        rows: one for every class.
        settings: protocol, limits and counts; stand on every line that is printed.
        counts: detections, and where limits were reached.
        curves: for every class, precision at IoU 0.50 for recall 0.00, 0.01, ..., 1.00, or None.
        notes: sentences that a reader must know.
    """

    metrics: Metrics
    rows: tuple[ClassRow, ...]
    settings: Settings
    counts: Counts
    curves: tuple[tuple[float, ...] | None, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float | None:
        """One number, for example ``report["AP50"]``.

        Raises:
            KeyError: for another name, listing those that exist.
        """
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r}; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return self.settings.protocol

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of labels."""
        return tuple(row.name for row in self.rows)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score threshold of every class with the best F1, as a checkpoint stores them for ``predict``."""
        return tuple(row.threshold for row in self.rows)

    def format(self, color: bool = False, width: int = 110) -> str:
        """The whole report as text, with colour codes only where asked for."""
        parts = [
            format_metrics(self.metrics, self.settings),
            format_table(self.rows, self.settings, color, width),
            "\n".join(f"note: {note}" for note in self.notes),
        ]
        return "\n\n".join(part for part in parts if part)

    def to_csv(self) -> str:
        """The table by class as comma-separated values."""
        return csv_text(self.rows, self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what was not measured is None."""
        return {
            "protocol": self.protocol,
            "metrics": dict(self.metrics),
            "settings": asdict(self.settings),
            "counts": asdict(self.counts),
            "classes": [asdict(row) for row in self.rows],
            "curves": [list(curve) if curve is not None else None for curve in self.curves],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text; what was not measured is null."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)


def measure(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    max_dets: int | None = None,
    score_floor: float = 0.0,
    protocol: str = "coco",
    backend: Backend = "hotcoco",
    counts: Counts | None = None,
) -> Report:
    """A full report of COCO results against COCO ground truth.

    Args:
        ground_truth: as ``frcnn.evaluation.run.ground_truth`` makes it.
        detections: COCO results; those below ``score_floor`` are left out.
        max_dets: detections of a picture and class that count; None: 100, for ``recall`` 1000.
        score_floor: lowest score that enters.
        protocol: ``coco``, ``voc07``, ``voc12``, ``kitti`` (40 recalls), ``kitti11``, or ``recall``, for
            which all classes are one.
        backend: of the COCO numbers.
        counts: what the detector's limits did; the number of detections is filled in.

    Raises:
        ValueError: for an unknown protocol, and for input that ``evaluate_json`` refuses.
    """
    check_protocol(protocol)
    most = default_max_dets(protocol) if max_dets is None else max_dets
    if most < 1:
        raise ValueError(f"max_dets is {most}; at least one detection must count")
    entering = [d for d in detections if d.get("score") is None or not d["score"] < score_floor]
    if protocol == RECALL:
        ground_truth, entering = as_one_class(ground_truth, entering)
    problem = from_json(ground_truth, entering).limited(most)
    curves = class_curves(problem)
    numbers = apply_protocol(protocol, problem, curves, most, backend)
    objects, ignored = int((~problem.objects.ignore).sum()), problem.objects.count_ignored()
    settings = Settings(protocol, numbers.iou, most, score_floor, len(problem.image_ids), objects, ignored)
    reached = counts or Counts()
    reached = Counts(len(problem.found), reached.capped_images, reached.inexact_images)
    rows = class_rows(problem, numbers, curves, score_floor)
    flat = sum(a.get("ignore", 0) and min(a["bbox"][2:]) <= 0 for a in ground_truth.get("annotations", ()))
    notes = numbers.notes + _notes(rows, settings, reached)
    notes += (f"{flat} boxes without area in the data are ignored; frcnn check names them",) if flat else ()
    return Report(numbers.metrics, rows, settings, reached, numbers.curves, notes)


def _notes(rows: Sequence[ClassRow], settings: Settings, counts: Counts) -> tuple[str, ...]:
    notes = []
    absent = [row.name for row in rows if not row.objects]
    if absent:
        names = ", ".join(f'"{name}"' for name in absent[:10]) + (" ..." if len(absent) > 10 else "")
        notes.append(f"no object of {names} in these pictures: not measured (n/a), left out of every mean")
    if counts.capped_images and settings.protocol != RECALL:  # there the limit is what is asked about
        notes.append(
            f"max-dets ({settings.max_dets}) reached in {counts.capped_images} images; raise --max-dets"
        )
    if counts.inexact_images:
        notes.append(
            f"the candidate limit before NMS was reached in {counts.inexact_images} images; "
            "raise roi.candidates"
        )
    return tuple(notes)
