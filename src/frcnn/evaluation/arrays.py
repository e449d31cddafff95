"""Ground truth and detections of an evaluation as flat arrays, checked once; everything else counts on them.

Letters: G objects of all pictures, D detections of all pictures. Pictures and classes are numbered 0, 1,
... in the order of their sorted ids, because the order decides between detections with equal scores, and
pycocotools sorts too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SHOWN = 5
"""Findings of one kind that an error message lists."""
BLOCK = 1 << 15
"""Detections whose pairs with objects are in memory at a time."""


@dataclass(frozen=True)
class Objects:
    """The ground truth.

    Attributes:
        image: (G,) picture number.
        category: (G,) class number.
        boxes: (G, 4) x, y, width, height, pixels.
        area: (G,) decides between small, medium and large; the box's own where the annotation states none.
        crowd: (G,) bool: a region; a detection is inside by the share of *its* area, any number of them.
        ignore: (G,) bool: neither asked for nor wrong to find; matched by IoU. Crowds are ignored too.
        truncated: (G,) share outside the picture, 0 to 1; zeros where not given.
        occluded: (G,) 0 fully visible, 1 partly, 2 largely hidden, 3 not known; zeros where not given.
    """

    image: Ints
    category: Ints
    boxes: Floats
    area: Floats
    crowd: Bools
    ignore: Bools
    truncated: Floats = field(default_factory=lambda: np.zeros(0))
    occluded: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        for name in ("truncated", "occluded"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(len(self.image), getattr(self, name).dtype))

    def __len__(self) -> int:
        """Number of objects, ignored ones included."""
        return len(self.image)

    def take(self, which: Ints | Bools | slice) -> Objects:
        """The chosen objects."""
        return Objects(*(getattr(self, column.name)[which] for column in fields(self)))

    def count_ignored(self) -> int:
        """Ignored objects and regions; a region that stands for every class counts once."""
        regions = np.c_[self.image, self.boxes][self.crowd]
        return int((self.ignore & ~self.crowd).sum()) + len(np.unique(regions, axis=0))


@dataclass(frozen=True)
class Found:
    """The detections, in the order they were given.

    Attributes:
        image: (D,) picture number.
        category: (D,) class number.
        boxes: (D, 4) x, y, width, height, pixels.
        scores: (D,).
    """

    image: Ints
    category: Ints
    boxes: Floats
    scores: Floats

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.image)

    def take(self, which: Ints | Bools | slice) -> Found:
        """The chosen detections."""
        return Found(self.image[which], self.category[which], self.boxes[which], self.scores[which])


@dataclass(frozen=True)
class Problem:
    """Everything an evaluation needs.

    Attributes:
        image_ids: ids of the pictures, sorted; a picture's number is its place here.
        category_ids: ids of the classes, sorted; a class's number is its place here.
        names: names of the classes in the same order.
        objects: the ground truth.
        found: the detections.
    """

    image_ids: tuple[Any, ...]
    category_ids: tuple[Any, ...]
    names: tuple[str, ...]
    objects: Objects
    found: Found

    def limited(self, max_dets: int) -> Problem:
        """Keep the ``max_dets`` best detections of every picture and class, as COCO does."""
        return replace(self, found=self.found.take(self.ranks() < max_dets))

    def ranks(self) -> Ints:
        """(D,) place of every detection among those of its picture and class, best score first from 0."""
        group = self.found.image * max(len(self.names), 1) + self.found.category
        order = np.lexsort((-self.found.scores, group))
        ranks = np.empty(len(order), np.int64)
        ranks[order] = rank_in_group(group[order])
        return ranks


def rank_in_group(group: Ints) -> Ints:
    """Place of every element in its run of equal values: (5, 5, 7, 7, 7) gives (0, 1, 0, 1, 2)."""
    if not len(group):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    lengths = np.diff(np.r_[starts, len(group)])
    return np.arange(len(group)) - np.repeat(starts, lengths)


def pair_overlaps(objects: Objects, found: Found, of: Ints, to: Ints) -> Floats:
    """(n,) overlap of detections ``of`` with objects ``to``: IoU, for crowds intersection over detection."""
    a, b = found.boxes[of], objects.boxes[to]
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    area_a, area_b = a[:, 2:].prod(axis=1), b[:, 2:].prod(axis=1)
    whole = np.where(objects.crowd[to], area_a, area_a + area_b - both)
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)


def same_place_pairs(objects: Objects, found: Found, classes: int) -> tuple[Ints, Ints]:
    """All pairs of a detection and an object of the same picture and class: (n,) detections, (n,) objects."""
    key_gt = objects.image * max(classes, 1) + objects.category
    key_dt = found.image * max(classes, 1) + found.category
    order = np.argsort(key_gt, kind="stable")
    left = np.searchsorted(key_gt[order], key_dt, "left")
    count = np.searchsorted(key_gt[order], key_dt, "right") - left
    of = np.repeat(np.arange(len(found)), count)
    place = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    return of, order[np.repeat(left, count) + place]


def near_pairs(objects: Objects, found: Found, classes: int, least: float) -> tuple[Ints, Ints, Floats]:
    """Pairs of one picture and class that overlap by ``least`` or more: (n,) detections, in their order,
    (n,) objects, (n,) overlaps. Needs memory for the pairs of ``BLOCK`` detections at a time.
    """
    parts: list[tuple[Ints, Ints, Floats]] = []
    for start in range(0, max(len(found), 1), BLOCK):
        block = found.take(slice(start, start + BLOCK))
        of, to = same_place_pairs(objects, block, classes)
        overlap = pair_overlaps(objects, block, of, to)
        near = overlap >= least
        parts.append((of[near] + start, to[near], overlap[near]))
    of, to, overlap = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return of, to, overlap


def least_overlap(iou: float) -> float:
    """The overlap that counts as ``iou``: an IoU of 1.0 is reached although divisions round."""
    return min(iou, 1 - 1e-10)


def from_json(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Problem:
    """Check COCO ground truth and COCO results and turn them into arrays. The input is not changed.

    Annotation ids play no part (an id 0 is harmless). A missing ``area`` is the box's, a missing ``iscrowd``,
    ``ignore``, ``truncated`` or ``occluded`` is 0.

    Raises:
        ValueError: when a section is missing, an id is unknown or used twice, a box or a score is not finite.
    """
    for section in ("images", "categories"):
        if section not in ground_truth:
            raise ValueError(
                f"ground truth has no {section!r}; a COCO file needs images, annotations, categories"
            )
    image_ids = _ids(ground_truth["images"], "image")
    category_ids = _ids(ground_truth["categories"], "category")
    names = {c["id"]: str(c.get("name", c["id"])) for c in ground_truth["categories"]}
    image_index = {key: i for i, key in enumerate(image_ids)}
    category_index = {key: i for i, key in enumerate(category_ids)}

    annotations = list(ground_truth.get("annotations", ()))
    image, category, boxes = _columns(annotations, image_index, category_index, "annotation")
    area = [a["area"] if a.get("area") is not None else a["bbox"][2] * a["bbox"][3] for a in annotations]
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    ignore = crowd | np.array([bool(a.get("ignore", 0)) for a in annotations], bool)
    truncated = np.array([a.get("truncated") or 0 for a in annotations], np.float64)
    occluded = np.array([a.get("occluded") or 0 for a in annotations], np.int64)
    objects = Objects(image, category, boxes, np.array(area, np.float64), crowd, ignore, truncated, occluded)

    image, category, boxes = _columns(detections, image_index, category_index, "detection")
    missing = [i for i, d in enumerate(detections) if d.get("score") is None]
    if missing:
        raise ValueError(f"detection {missing[0]} has no 'score'; every detection needs one")
    scores = np.array([d["score"] for d in detections], np.float64)
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"detection {bad} has the score {scores[bad]}; scores must be finite numbers")
    found = Found(image, category, boxes, scores)
    return Problem(image_ids, category_ids, tuple(names[c] for c in category_ids), objects, found)


def _ids(rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[Any, ...]:
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids):
        twice = sorted({str(i) for i in ids if ids.count(i) > 1})
        raise ValueError(
            f"{kind} ids used more than once in the ground truth: {_some(twice)}; each needs its own"
        )
    try:
        return tuple(sorted(ids))
    except TypeError:  # numbers and texts mixed: no order to keep
        return tuple(sorted(ids, key=str))


def _columns(
    rows: Sequence[Mapping[str, Any]], images: Mapping[Any, int], categories: Mapping[Any, int], kind: str
) -> tuple[Ints, Ints, Floats]:
    for key, known, what in (("image_id", images, "images"), ("category_id", categories, "categories")):
        unknown = sorted({str(row.get(key)) for row in rows if row.get(key) not in known})
        if unknown:
            raise ValueError(
                f"{kind}s name {what} that the ground truth does not have: {key} {_some(unknown)} (known: "
                f"{_some([str(k) for k in known]) or 'none'}); evaluate against the data they were made from"
            )
    wrong = [i for i, row in enumerate(rows) if len(row.get("bbox", ())) != 4]
    if wrong:
        raise ValueError(
            f"{kind} {wrong[0]} has no bbox of four numbers x, y, width, height: {rows[wrong[0]]!r}"
        )
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        raise ValueError(
            f"{kind} {bad[0]} has the bbox {boxes[bad[0]].tolist()}; it needs finite numbers, sides >= 0"
        )
    image = np.array([images[row["image_id"]] for row in rows], np.int64)
    return image, np.array([categories[row["category_id"]] for row in rows], np.int64), boxes


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more
