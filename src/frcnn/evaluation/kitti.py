"""KITTI's protocol for boxes in the picture: AP of every class at three difficulties, over 40 or 11 recalls.

As the benchmark's devkit counts, for each class and difficulty apart:

* Asked for are the objects of the class that are high enough, not too much occluded and not too much
  truncated. Those outside the difficulty, those flagged ``ignore`` and objects of the neighbour class (Van
  for Car, Person_sitting for Pedestrian) may be found, which is neither right nor wrong.
* Detections below the least height are ignored, too. Only detections of the class itself take part.
* A first pass gives every object the free detection with the highest score. From the scores of those that are
  right come the score thresholds, one for each of 41 recalls 0, 1/40, ..., 1.
* At each threshold the detections that score at least as much are assigned anew: every object, in the order
  of the annotations, takes the free detection that it overlaps most. What remains is wrong, unless it lies in
  a DontCare area (a region, ``iscrowd``) by more than the class's IoU, as a share of its own area.
* Precision is made to fall with recall. AP is its mean over the recalls 1/40 to 1 (R40) or 0, 1/10, ..., 1
  (R11). An overlap must be above the class's IoU: 0.7 for cars, 0.5 for all others.

One departure: the devkit writes the n-th threshold to the n-th recall. A class with 40 objects or fewer has
fewer thresholds than recalls, so that there a perfect detector would not reach 1.0 (with one object, none of
the 40 points). For such a class we read each recall at the best threshold that reaches it.

Letters: G objects, D detections, both of all pictures; K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np

from frcnn.evaluation.arrays import Bools, Floats, Ints, Problem, from_json, near_pairs
from frcnn.evaluation.voc import in_regions

Points = Literal[40, 11]
STEPS = 40
"""Intervals between the recalls at which precision is read."""
CAR_IOU, OTHER_IOU = 0.7, 0.5
NEIGHBOURS = {"car": "van", "pedestrian": "person_sitting"}
"""Lower-case class -> the class that counts neither as it nor against it."""
DIGITS = 3
"""Heights and truncations are compared with limits to so many decimals: labels have two, and 0.30 that went
through 32 bits is more than 0.30."""


@dataclass(frozen=True)
class Difficulty:
    """Which objects are asked for.

    Attributes:
        name: ``easy``, ``moderate`` or ``hard``.
        height: least height of objects and detections, pixels.
        occluded: largest occlusion level.
        truncated: largest share outside the picture.
    """

    name: str
    height: float
    occluded: int
    truncated: float


DIFFICULTIES = (
    Difficulty("easy", 40, 0, 0.15),
    Difficulty("moderate", 25, 1, 0.30),
    Difficulty("hard", 25, 2, 0.50),
)


@dataclass(frozen=True)
class KittiResult:
    """What KITTI's protocol says of a set of detections.

    Attributes:
        mean: difficulty -> mean AP of the classes with an object of it; None where none has.
        names: (K,) class names.
        ap: difficulty -> (K,) AP of every class, None without objects of that difficulty.
        objects: difficulty -> (K,) objects asked for.
    """

    mean: dict[str, float | None]
    names: tuple[str, ...]
    ap: dict[str, tuple[float | None, ...]]
    objects: dict[str, tuple[int, ...]]


def evaluate(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], points: Points = 40
) -> KittiResult:
    """KITTI's average precision of detections against ground truth; neither is changed.

    Args:
        ground_truth: COCO dictionary with ``images``, ``annotations``, ``categories``; boxes are x, y, width,
            height in pixels. Annotations may have ``truncated`` (0 to 1), ``occluded`` (0 to 3), ``ignore``,
            and ``iscrowd`` for a DontCare area, which stands there once for each class.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score``; all of them count.
        points: recalls that AP is the mean of: 40 (as the benchmark since 2019) or 11 (before).

    Raises:
        ValueError: for other points, for ids that the ground truth does not have, and for boxes or scores
            that are not numbers.
    """
    return evaluate_problem(from_json(ground_truth, detections), points)


def evaluate_problem(problem: Problem, points: Points = 40) -> KittiResult:
    """The same from checked arrays."""
    if points not in (40, 11):
        raise ValueError(f"points is {points}; KITTI reads precision at 40 recalls or at 11")
    classes = [_Class.of(problem, k) for k in range(len(problem.names))]
    ap: dict[str, tuple[float | None, ...]] = {}
    objects: dict[str, tuple[int, ...]] = {}
    for level in DIFFICULTIES:
        pairs = [one.measure(level, points) for one in classes]
        ap[level.name] = tuple(value for value, _ in pairs)
        objects[level.name] = tuple(count for _, count in pairs)
    mean = {name: _mean(values) for name, values in ap.items()}
    return KittiResult(mean, problem.names, ap, objects)


def class_iou(name: str) -> float:
    """The overlap that a detection of this class must exceed."""
    return CAR_IOU if name.lower() == "car" else OTHER_IOU


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


@dataclass(frozen=True)
class _Class:
    """One class: g objects of it and its neighbour, d detections, and which overlap.

    Attributes:
        own: (g,) bool, of the class and not flagged as ignored.
        heights, occluded, truncated: (g,).
        scores, found_heights: (d,).
        in_region: (d,) bool.
        candidates: object, detections and overlaps for every object that has any, in the objects' order.
    """

    own: Bools
    heights: Floats
    occluded: Ints
    truncated: Floats
    scores: Floats
    found_heights: Floats
    in_region: Bools
    candidates: tuple[tuple[int, tuple[tuple[int, float], ...]], ...]

    @classmethod
    def of(cls, problem: Problem, category: int) -> _Class:
        """The part of a problem that concerns one class."""
        name = problem.names[category].lower()
        neighbours = [k for k, other in enumerate(problem.names) if other.lower() == NEIGHBOURS.get(name)]
        everything = problem.objects
        mine = everything.category == category
        near = np.isin(everything.category, neighbours) & ~everything.crowd
        objects = everything.take(mine & ~everything.crowd | near)
        own = (objects.category == category) & ~objects.ignore
        objects = replace(objects, category=np.full(len(objects), category, np.int64))
        found = problem.found.take(problem.found.category == category)
        regions = replace(problem, objects=everything.take(mine & everything.crowd), found=found)
        iou = class_iou(name)
        of, to, overlap = near_pairs(objects, found, len(problem.names), iou)
        above = overlap > iou
        rows = sorted(zip(to[above].tolist(), of[above].tolist(), overlap[above].tolist(), strict=True))
        candidates = tuple(
            (g, tuple((d, share) for _, d, share in group)) for g, group in groupby(rows, lambda row: row[0])
        )
        return cls(
            own,
            objects.boxes[:, 3].round(DIGITS),
            objects.occluded,
            objects.truncated.round(DIGITS),
            found.scores,
            found.boxes[:, 3].round(DIGITS),
            in_regions(regions, iou),
            candidates,
        )

    def measure(self, level: Difficulty, points: Points) -> tuple[float | None, int]:
        """AP at one difficulty, None without objects, and the number of objects asked for."""
        asked = self.own & (self.heights >= level.height)
        asked &= (self.occluded <= level.occluded) & (self.truncated <= level.truncated)
        total = int(asked.sum())
        if not total:
            return None, 0
        low = self.found_heights < level.height
        scores = sorted(self._scores_of_found(asked, low), reverse=True)
        chosen = thresholds(scores, total)
        precision = np.array([self._precision_at(scores[i], asked, low) for i in chosen])
        curve = recall_steps(precision, chosen, total)
        return float(curve[1:].mean() if points == 40 else curve[::4].mean()), total

    def _scores_of_found(self, asked: Bools, low: Bools) -> list[float]:
        """The first pass: score of the detection of every object asked for that has one."""
        taken: set[int] = set()
        scores = []
        for g, pairs in self.candidates:
            free = [d for d, _ in pairs if d not in taken]
            if not free:
                continue
            best = max(free, key=lambda d: self.scores[d])
            taken.add(best)
            if asked[g] and not low[best]:
                scores.append(float(self.scores[best]))
        return scores

    def _precision_at(self, threshold: float, asked: Bools, low: Bools) -> float:
        """The second pass: precision of the detections that score ``threshold`` or more; 0 without any."""
        enough = self.scores >= threshold
        unassigned = enough & ~low & ~self.in_region
        taken: set[int] = set()
        right = 0
        for g, pairs in self.candidates:
            free = [(d, share) for d, share in pairs if enough[d] and d not in taken]
            high = [pair for pair in free if not low[pair[0]]]
            if not free:
                continue
            # a detection below the least height is taken only where there is no other one
            best = max(high, key=lambda pair: pair[1])[0] if high else free[0][0]
            taken.add(best)
            unassigned[best] = False
            right += int(asked[g] and not low[best])
        wrong = int(unassigned.sum())
        return right / (right + wrong) if right + wrong else 0.0


def thresholds(scores: Sequence[float], total: int) -> list[int]:
    """Which of the falling ``scores`` of found objects come nearest to the recalls 0, 1/40, 2/40, ...

    Score i stands for the recall (i + 1) / total. The last one is always taken.
    """
    chosen: list[int] = []
    wanted = 0.0
    for i in range(len(scores)):
        # in doubles and by adding up, as in the devkit: of two scores equally near, rounding chooses
        here, after = (i + 1) / total, (i + 2) / total
        if i + 1 == len(scores) or after - wanted >= wanted - here:
            chosen.append(i)
            wanted += 1 / STEPS
    return chosen[: STEPS + 1]


def recall_steps(precision: Floats, chosen: Sequence[int], total: int) -> Floats:
    """(41,) best precision at recalls of at least 0, 1/40, ..., 1.

    Args:
        precision: (n,) at each threshold, n at most 41.
        chosen: n score positions of ``thresholds``; position i stands for the recall (i + 1) / total.
        total: objects asked for.
    """
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], np.zeros(STEPS + 1))
    if total > STEPS:
        return best[: STEPS + 1]
    reached = STEPS * (np.asarray(chosen, np.int64) + 1)
    return best[np.searchsorted(reached, np.arange(STEPS + 1) * total)]
