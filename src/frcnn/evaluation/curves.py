"""Which detections are right at one IoU threshold, and what that gives for every score threshold.

Letters: G objects, D detections, both of all pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from frcnn.evaluation.arrays import (
    Bools,
    Floats,
    Ints,
    Problem,
    least_overlap,
    near_pairs,
)

FALLBACK_THRESHOLD = 0.5
"""Score threshold where no class of the data has an object that was found."""


@dataclass(frozen=True)
class Matched:
    """What became of every detection.

    Attributes:
        object: (D,) number of the object it found, -1 for none; also for ignored ones.
        left_out: (D,) bool: it lies on something ignored and counts neither as right nor as wrong.
    """

    object: Ints
    left_out: Bools

    @property
    def right(self) -> Bools:
        """(D,) bool: true positives."""
        return (self.object >= 0) & ~self.left_out


@dataclass(frozen=True)
class ClassCurve:
    """Precision and recall of one class at every score where something changes, best score first.

    Attributes:
        scores: (n,) distinct scores, falling.
        precision: (n,) of the detections with at least that score.
        recall: (n,); NaN where the class has no object.
        objects: objects asked for.
        detections: detections that count.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    objects: int
    detections: int

    @property
    def f1(self) -> Floats:
        """(n,) harmonic mean of precision and recall; 0 where both are."""
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)


@dataclass(frozen=True)
class BestF1:
    """The score threshold with the best F1, and what it gives."""

    threshold: float
    precision: float
    recall: float
    f1: float


def match(problem: Problem, iou: float = 0.5) -> Matched:
    """Assign detections to objects of their picture and class, best score first, each object once.

    A detection takes the free object with the largest IoU if that is at least ``iou``; failing that, it may
    lie on something ignored, which any number of detections may. Equal scores keep their order.
    """
    objects, found = problem.objects, problem.found
    of, to, overlap = near_pairs(objects, found, len(problem.names), least_overlap(iou))
    rank = problem.ranks()

    # detections of one rank belong to different pictures or classes, so they can choose at the same time
    best_first = np.lexsort((-to, -overlap, objects.ignore[to], of, rank[of]))
    of, to = of[best_first], to[best_first]
    turns = np.flatnonzero(np.r_[True, np.diff(rank[of]) > 0, True]) if len(of) else np.zeros(1, np.int64)
    taken = np.zeros(len(objects), bool)
    chosen = np.full(len(found), -1, np.int64)
    for start, stop in pairwise(turns.tolist()):
        free = start + np.flatnonzero(~taken[to[start:stop]])
        detections, first = np.unique(of[free], return_index=True)
        picks = to[free[first]]
        chosen[detections] = picks
        taken[picks] = ~objects.ignore[picks]
    on_ignored = np.append(objects.ignore, False)[chosen]  # -1 is the one appended
    return Matched(chosen, on_ignored)


def class_curves(problem: Problem, iou: float = 0.5) -> tuple[ClassCurve, ...]:
    """The precision and recall curve of every class at one IoU threshold."""
    matched = match(problem, iou)
    return tuple(_curve(problem, matched, k) for k in range(len(problem.names)))


def _curve(problem: Problem, matched: Matched, category: int) -> ClassCurve:
    mine = np.flatnonzero((problem.found.category == category) & ~matched.left_out)
    mine = mine[np.argsort(-problem.found.scores[mine], kind="stable")]
    scores = problem.found.scores[mine]
    objects = int(((problem.objects.category == category) & ~problem.objects.ignore).sum())
    last = np.flatnonzero(np.diff(scores, append=-np.inf) < 0)  # equal scores stand or fall together
    right = np.cumsum(matched.right[mine])[last]
    recall = right / objects if objects else np.full(len(last), np.nan)
    return ClassCurve(scores[last], right / (last + 1), recall, objects, len(mine))


RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads a curve."""


def sample_curve(curve: ClassCurve) -> Floats | None:
    """(101,) best precision at recalls of at least 0.00, 0.01, ..., 1.00; None without objects."""
    if not curve.objects:
        return None
    best = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0)
    return best[np.searchsorted(curve.recall, RECALLS)]


def best_f1(curve: ClassCurve, floor: float = 0.0) -> BestF1 | None:
    """The threshold with the best F1 (the highest such), or None where nothing was asked for or found.

    The threshold lies halfway between the last score that counts and the next lower one (or ``floor``), so
    that rounding a stored score or threshold changes nothing.
    """
    if not curve.objects or not len(curve.scores) or not curve.f1.max() > 0:
        return None
    place = int(np.argmax(curve.f1))
    last = place + 1 == len(curve.scores)
    after = min(floor, curve.scores[place]) if last else curve.scores[place + 1]
    threshold = float(curve.scores[place] + after) / 2
    at = (float(values[place]) for values in (curve.precision, curve.recall, curve.f1))
    return BestF1(threshold, *at)


def best_f1_thresholds(problem: Problem, floor: float = 0.0, max_dets: int = 100) -> tuple[float, ...]:
    """(K,) score threshold of every class with the best F1 at IoU 0.50, as ``predict`` uses them by default.

    A class without an object in the data, or of which nothing was found, gets the median of the other
    classes' thresholds; where there is no other, 0.5.
    """
    return fill_thresholds([best_f1(curve, floor) for curve in class_curves(problem.limited(max_dets))])


def fill_thresholds(best: list[BestF1 | None]) -> tuple[float, ...]:
    """The thresholds, with the fallback of ``best_f1_thresholds`` where there is None."""
    known = [b.threshold for b in best if b is not None]
    fallback = float(np.median(known)) if known else FALLBACK_THRESHOLD
    return tuple(fallback if b is None else b.threshold for b in best)
