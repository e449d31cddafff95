"""Average recall of proposals: which share of the objects the best 100, 300, 1000 boxes of a picture cover.

Classes play no part: the objects of all classes are one kind, and so are the proposals. As COCO does,
proposals of a picture are taken by descending score (equal scores in the order in which they were given), and
each takes the free object that it overlaps most, if that is by the IoU threshold or more; every object is
found once at most. Average recall is the mean of the recalls at the ten thresholds 0.50, 0.55, ..., 0.95.

Recall by size asks for the objects of that size only, by the annotation's ``area`` where it has one, else the
box's: small is below 32 x 32, medium below 96 x 96. Objects of the other sizes then take no proposal.

Ignored objects and regions are not asked for, and a proposal upon them costs nothing, because recall charges
for no proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from frcnn.evaluation.arrays import Bools, Problem, from_json, near_pairs
from frcnn.evaluation.curves import match

LIMITS = (100, 300, 1000)
"""Proposals of a picture that count."""
THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
SMALL, MEDIUM = 32.0**2, 96.0**2
"""Areas from which an object is medium, and large."""
OBJECT = "object"
"""Name of the only class."""
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class RecallResult:
    """What proposals cover.

    Attributes:
        metrics: ``AR100``, ... for every limit; ``ARs``, ``ARm``, ``ARl`` by size at the largest limit;
            ``R50@100``, ... recall at IoU 0.50 for every limit. None without an object to ask for.
        limits: proposals of a picture that count, rising.
        objects: objects asked for.
    """

    metrics: Metrics
    limits: tuple[int, ...]
    objects: int


def evaluate(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    limits: Sequence[int] = LIMITS,
) -> RecallResult:
    """Average recall of proposals against ground truth; neither is changed.

    Args:
        ground_truth: COCO dictionary with ``images``, ``annotations``, ``categories``; boxes are x, y, width,
            height in half-open pixels from 0.
        detections: COCO results: ``image_id``, ``bbox``, ``score``; a ``category_id`` is not looked at.
        limits: proposals of a picture that count.

    Raises:
        ValueError: for limits below 1 or none, for pictures that the ground truth does not have, and for
            boxes or scores that are not numbers.
    """
    return evaluate_problem(from_json(*as_one_class(ground_truth, detections)), limits)


def as_one_class(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same with the one class "object"; a region that stood for every class appears once."""
    annotations: list[dict[str, Any]] = []
    seen: set[tuple[Any, ...]] = set()
    for annotation in ground_truth.get("annotations", ()):
        if annotation.get("iscrowd"):
            region = (annotation.get("image_id"), *annotation.get("bbox", ()))
            if region in seen:
                continue
            seen.add(region)
        annotations.append({**annotation, "category_id": 0})
    categories = [{"id": 0, "name": OBJECT}]
    one = {**ground_truth, "annotations": annotations, "categories": categories}
    return one, [{**detection, "category_id": 0} for detection in detections]


def evaluate_problem(problem: Problem, limits: Sequence[int] = LIMITS) -> RecallResult:
    """The same from checked arrays of one class."""
    if not limits or min(limits) < 1:
        raise ValueError(f"limits are {tuple(limits)}; at least one limit of 1 or more is needed")
    rising = tuple(sorted(set(limits)))
    asked = replace(problem, objects=problem.objects.take(~problem.objects.ignore))
    area = asked.objects.area
    every = _recalls(asked, np.ones(len(area), bool), rising)
    metrics: Metrics = {f"AR{most}": _mean(values) for most, values in zip(rising, every, strict=True)}
    sizes = {"s": area < SMALL, "m": (area >= SMALL) & (area < MEDIUM), "l": area >= MEDIUM}
    for letter, those in sizes.items():
        metrics[f"AR{letter}"] = _mean(_recalls(asked, those, rising[-1:])[0])
    metrics |= {f"R50@{most}": values[0] for most, values in zip(rising, every, strict=True)}
    return RecallResult(metrics, rising, len(area))


def _recalls(problem: Problem, which: Bools, limits: Sequence[int]) -> list[list[float | None]]:
    """For every limit the recall of the objects ``which`` (G,) at each threshold."""
    objects = problem.objects.take(which)
    if not len(objects):
        return [[None] * len(THRESHOLDS) for _ in limits]
    rank = problem.ranks()
    near, _, _ = near_pairs(objects, problem.found, len(problem.names), THRESHOLDS[0] - 1e-6)
    touching = np.unique(near)  # the others, nearly all, decide nothing
    part = replace(problem, objects=objects, found=problem.found.take(touching))
    recalls: list[list[float | None]] = [[] for _ in limits]
    for threshold in THRESHOLDS:
        # who is matched depends on better proposals only: a limit cuts off the rest
        hits = rank[touching[match(part, threshold).right]]
        for values, most in zip(recalls, limits, strict=True):
            values.append(float((hits < most).sum() / len(objects)))
    return recalls


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return round(float(np.mean(measured)), 12) if measured else None
