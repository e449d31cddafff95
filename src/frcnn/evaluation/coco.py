"""COCO's protocol: average precision over ten IoU thresholds, by hotcoco or, to compare, by pycocotools.

What both libraries leave to the caller is done here, the same way for both:

* annotation ids are renumbered from 1 (an object with id 0 would never count as found);
* unknown picture and class ids are errors;
* ``ignore`` counts. Both libraries overwrite it with ``iscrowd``. Here an ignored object is given an area
  outside every range, which makes it one that is not asked for, matched by plain IoU; and it appears once for
  every detection that overlaps it by half or more, so that a second detection of it is not charged either;
* a mean over nothing is None, not -1.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frcnn.evaluation.arrays import Floats, Ints, Problem, from_json, pair_overlaps, same_place_pairs

Backend = Literal["hotcoco", "pycocotools"]
Metrics = dict[str, float | None]

OUTSIDE_EVERY_RANGE = -1.0
"""An area no range holds: the libraries ignore the object in all of them."""
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class CocoResult:
    """What COCO's protocol says of a set of detections.

    Attributes:
        metrics: the twelve numbers by name, None where nothing could be measured.
        names: class names.
        ap: AP (IoU 0.50:0.95) of every class, None without objects.
        ap50: AP at IoU 0.50 of every class, None without objects.
        curves: (K, 101) precision at IoU 0.50 for recall 0.00, 0.01, ..., 1.00; NaN without objects.
    """

    metrics: Metrics
    names: tuple[str, ...]
    ap: tuple[float | None, ...]
    ap50: tuple[float | None, ...]
    curves: Floats


def evaluate_json(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    max_dets: int = 100,
    backend: Backend = "hotcoco",
) -> Metrics:
    """The twelve COCO numbers of detections against ground truth; neither is changed.

    Args:
        ground_truth: COCO dictionary with ``images``, ``annotations``, ``categories``. ``area``, ``iscrowd``,
            ``ignore`` and annotation ids may be missing.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score``.
        max_dets: detections of a picture and class that count.
        backend: ``hotcoco``, or ``pycocotools`` where it is installed.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl. With another ``max_dets`` the name
        AR100 follows it. A value without any ground truth to measure it on is None.

    Raises:
        ValueError: for ids that the ground truth does not have, and boxes or scores that are not numbers.
    """
    return evaluate_problem(from_json(ground_truth, detections), max_dets, backend).metrics


def evaluate_problem(problem: Problem, max_dets: int = 100, backend: Backend = "hotcoco") -> CocoResult:
    """The same from checked arrays, with the numbers of every class."""
    if max_dets < 1:
        raise ValueError(f"max_dets is {max_dets}; at least one detection must count")
    limits = sorted({min(1, max_dets), min(10, max_dets), max_dets})
    classes = len(problem.names)
    if problem.image_ids and classes:
        precision, recall = _run(problem, limits, backend)
    else:
        precision = np.full((10, 101, classes, len(AREAS), len(limits)), -1.0)
        recall = np.full((10, classes, len(AREAS), len(limits)), -1.0)
    best = precision[:, :, :, 0, -1]  # (T, 101, K): all sizes, most detections
    metrics: Metrics = {"AP": _mean(best), "AP50": _mean(best[0]), "AP75": _mean(best[5])}
    for place, letter in ((1, "s"), (2, "m"), (3, "l")):
        metrics["AP" + letter] = _mean(precision[:, :, :, place, -1])
    for limit in (1, 10, max_dets):
        metrics[f"AR{limit}"] = _mean(recall[:, :, 0, limits.index(min(limit, max_dets))])
    for place, letter in ((1, "s"), (2, "m"), (3, "l")):
        metrics["AR" + letter] = _mean(recall[:, :, place, -1])
    return CocoResult(
        metrics,
        problem.names,
        tuple(_mean(best[:, :, k]) for k in range(classes)),
        tuple(_mean(best[0, :, k]) for k in range(classes)),
        np.where(best[0].T < 0, np.nan, best[0].T),
    )


def _mean(values: Floats) -> float | None:
    measured = values[values > -1]
    # the libraries add an epsilon to divisors: rounded, so that a perfect score is 1.0
    return round(float(measured.mean()), 12) if measured.size else None


def _run(problem: Problem, limits: list[int], backend: Backend) -> tuple[Floats, Floats]:
    """Precision (T, 101, K, areas, limits) and recall (T, K, areas, limits) by the library asked for."""
    truth = _dataset(problem, _asked(problem))
    results = _dataset(problem, None)
    if backend == "hotcoco":
        return _hotcoco(truth, results, limits)
    if backend == "pycocotools":
        return _pycocotools(truth, results, limits)
    raise ValueError(f"unknown backend {backend!r}; choose hotcoco or pycocotools")


def _asked(problem: Problem) -> Ints:
    """(n,) object of every annotation handed to the library: ignored objects once per detection upon them."""
    objects = problem.objects
    copies = np.ones(len(objects), np.int64)
    if (objects.ignore & ~objects.crowd).any():
        of, to = same_place_pairs(objects, problem.found, len(problem.names))
        near = (objects.ignore & ~objects.crowd)[to]
        of, to = of[near], to[near]
        touching = pair_overlaps(objects, problem.found, of, to) > 0.5 - 1e-6  # a copy too many does no harm
        copies = np.maximum(copies, np.bincount(to[touching], minlength=len(objects)))
    return np.repeat(np.arange(len(objects)), copies)


def _dataset(problem: Problem, asked: Ints | None) -> dict[str, Any]:
    """A COCO dictionary of the objects ``asked``, or of the detections; every id counts from 1."""
    images = [{"id": i + 1, "width": 1, "height": 1} for i in range(len(problem.image_ids))]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(problem.names)]
    if asked is None:
        side = problem.found
        boxes = side.boxes
        area, crowd, scores = boxes[:, 2] * boxes[:, 3], np.zeros(len(side), bool), side.scores
        image, category = side.image, side.category
    else:
        objects = problem.objects
        left_out = (objects.ignore & ~objects.crowd)[asked]
        area = np.where(left_out, OUTSIDE_EVERY_RANGE, objects.area[asked])
        boxes, crowd, scores = objects.boxes[asked], objects.crowd[asked], np.ones(len(asked))
        image, category = objects.image[asked], objects.category[asked]
    columns = (image + 1, category + 1, boxes, area, crowd.astype(int), scores)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    annotations = [
        {
            "id": n,
            "image_id": i,
            "category_id": c,
            "bbox": b,
            "area": a,
            "iscrowd": w,
            "score": s,
        }
        for n, (i, c, b, a, w, s) in enumerate(rows, 1)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def _hotcoco(truth: dict[str, Any], results: dict[str, Any], limits: list[int]) -> tuple[Floats, Floats]:
    import hotcoco

    run = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO(results), "bbox")
    run.params.max_dets = limits
    run.evaluate()
    run.accumulate()
    assert run.eval is not None
    return run.eval["precision"], run.eval["recall"]


def _pycocotools(truth: dict[str, Any], results: dict[str, Any], limits: list[int]) -> tuple[Floats, Floats]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ValueError("pycocotools is not installed; pip install pycocotools, or use hotcoco") from None
    sides: list[Any] = []
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print
        for dataset in (truth, results):
            side: Any = COCO()
            side.dataset = dataset
            side.createIndex()
            sides.append(side)
        run: Any = COCOeval(sides[0], sides[1], "bbox")
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"]
