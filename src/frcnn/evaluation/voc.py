"""Pascal VOC's protocol: average precision at one IoU, with 11 points (2007) or as an area (2010 to 2012).

As the devkit counts: detections of a class come best score first, equal scores in the order in which they
were given. Each is compared with the object of its picture and class that it overlaps most (the first one of
several), whether that was found before or not.

* That overlap is at least ``iou`` and the object is real: the first detection of it is right, every further
  one is wrong.
* It is at least ``iou`` and the object is ``difficult`` (an annotation with ``ignore``): the detection is
  dropped, and the object is not asked for.
* It is less: the detection is wrong.

The devkit does not know regions (``iscrowd``). Here a detection that is not right and lies in a region by
more than half of its own area is dropped, and any number of them may.

The devkit's boxes include their last pixel, so it measures a width as xmax - xmin + 1. Ours are half-open:
the width is x2 - x1. Reading a VOC file subtracts 1 from xmin and ymin only, so that both widths, and with
them every IoU, are the same. (A box with xmax = xmin is one pixel wide to the devkit; the reader takes it for
one without area, which is ignored.)

Letters: G objects, D detections, both of all pictures; K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frcnn.evaluation.arrays import Bools, Floats, Ints, Problem, from_json, least_overlap, near_pairs

VocProtocol = Literal["voc07", "voc12"]
IN_REGION = 0.5
"""A detection lies in a region by more than this share of its own area."""


@dataclass(frozen=True)
class VocResult:
    """What VOC's protocol says of a set of detections.

    Attributes:
        mean: mean AP of the classes that have an object; None where none has.
        names: (K,) class names.
        ap: (K,) AP of every class, None without objects.
    """

    mean: float | None
    names: tuple[str, ...]
    ap: tuple[float | None, ...]


def evaluate(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    protocol: VocProtocol = "voc07",
    iou: float = 0.5,
) -> VocResult:
    """VOC's average precision of detections against ground truth; neither is changed.

    Args:
        ground_truth: COCO dictionary with ``images``, ``annotations``, ``categories``; boxes are x, y, width,
            height in half-open pixels from 0. ``ignore`` marks difficult objects, ``iscrowd`` regions.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score``; all of them count.
        protocol: ``voc07``: mean of the best precision at recalls of at least 0.0, 0.1, ..., 1.0; ``voc12``:
            area under the curve of the best precision at each recall or above.
        iou: overlap, above 0, from which an object is found.

    Returns:
        AP of every class, and their mean over the classes with objects.

    Raises:
        ValueError: for another protocol or an IoU outside (0, 1], for ids that the ground truth does not
            have, and for boxes or scores that are not numbers.
    """
    return evaluate_problem(from_json(ground_truth, detections), protocol, iou)


def evaluate_problem(problem: Problem, protocol: VocProtocol = "voc07", iou: float = 0.5) -> VocResult:
    """The same from checked arrays."""
    if protocol not in ("voc07", "voc12"):
        raise ValueError(f"unknown protocol {protocol!r}; choose voc07 or voc12")
    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}; it must be above 0 and at most 1")
    order = np.argsort(-problem.found.scores, kind="stable")
    right, dropped = judge(problem, order, iou)
    asked = problem.objects.category[~problem.objects.ignore]
    rule = eleven_points if protocol == "voc07" else area_under
    ap: list[float | None] = []
    for k, objects in enumerate(np.bincount(asked, minlength=len(problem.names)).tolist()):
        mine = order[(problem.found.category[order] == k) & ~dropped[order]]
        ap.append(rule(right[mine], objects) if objects else None)
    measured = [value for value in ap if value is not None]
    return VocResult(float(np.mean(measured)) if measured else None, problem.names, tuple(ap))


def judge(problem: Problem, order: Ints, iou: float) -> tuple[Bools, Bools]:
    """(D,) right and (D,) dropped detections; those that are neither are wrong.

    Args:
        problem: ground truth and detections.
        order: (D,) the detections as they come, best score first.
        iou: overlap from which an object is found.
    """
    objects, found, classes = problem.objects, problem.found, len(problem.names)
    single = np.flatnonzero(~objects.crowd)
    of, to, overlap = near_pairs(objects.take(single), found, classes, least_overlap(iou))
    first = np.lexsort((to, -overlap, of))  # of each detection the best object, the first of equals
    detections, place = np.unique(of[first], return_index=True)
    best = np.full(len(found), -1, np.int64)
    best[detections] = single[to[first[place]]]

    hits = order[best[order] >= 0]
    _, place = np.unique(best[hits], return_index=True)  # the first detection of every object
    right = np.zeros(len(found), bool)
    right[hits[place]] = True
    on_difficult = np.append(objects.ignore, False)[best]  # -1 is the one appended
    right &= ~on_difficult
    return right, on_difficult | (~right & in_regions(problem, IN_REGION))


def in_regions(problem: Problem, share: float) -> Bools:
    """(D,) bool: detections that lie in a region of their class by more than ``share`` of their own area."""
    inside = np.zeros(len(problem.found), bool)
    regions = problem.objects.take(problem.objects.crowd)
    of, _, overlap = near_pairs(regions, problem.found, len(problem.names), share)
    inside[of[overlap > share]] = True
    return inside


def eleven_points(right: Bools, objects: int) -> float:
    """VOC 2007's AP of detections (n,) in their order, right or wrong, where ``objects`` were asked for."""
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    # recall >= t / 10 in whole numbers: 3 of 10 objects do reach the recall 0.3
    best = [precision[10 * found >= t * objects].max(initial=0.0) for t in range(11)]
    return float(np.mean(best))


def area_under(right: Bools, objects: int) -> float:
    """VOC 2010's AP of detections (n,) in their order, right or wrong, where ``objects`` were asked for."""
    precision: Floats = np.cumsum(right) / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[right].sum() / objects)  # recall grows by 1 / objects at every right detection
