"""Checks of boxes that are there twice: equal ones, and nearly equal ones.

Letters: m boxes, d pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.data.checks.boxes import box_finding
from frcnn.data.findings import Finding, entry
from frcnn.data.sample import Bools, Dataset, Ints

SAME_IOU, NEAR_IOU = 0.99, 0.9
"""Above the first a box is a duplicate, above the second nearly one."""


class Pairs(NamedTuple):
    """Boxes of one picture and class that nearly cover each other.

    Attributes:
        rows: (d, 2) int64, the second is the later one.
        iou: (d,) float64.
    """

    rows: Ints
    iou: NDArray[np.float64]


def check_repeats(dataset: Dataset, usable: Bools, dedupe: bool = False) -> Iterator[Finding]:
    """D06 and D21, once for every box that has an earlier one: the one it is most like.

    Args:
        dataset: that is checked.
        usable: (m,) bool, boxes that are looked at; ignored ones are not.
        dedupe: whether ``duplicates`` are left out.
    """
    left_out = duplicates(dataset, usable) if dedupe else np.zeros(len(usable), bool)
    pairs = repeated_boxes(dataset, usable)
    order = np.lexsort((pairs.rows[:, 0], -pairs.iou, pairs.rows[:, 1]))
    later, first = np.unique(pairs.rows[order, 1], return_index=True)
    for row, at in zip(later.tolist(), order[first].tolist(), strict=True):
        earlier, iou = int(pairs.rows[at, 0]), float(pairs.iou[at])
        line = int(dataset.objects.lines[earlier])
        where = f" in line {line}" if line > 0 else f" of {entry(line)}" if line else ""
        if iou > SAME_IOU:
            code, what = "D06", f"repeats the box{where}"
        else:
            code, what = "D21", f"nearly repeats the box{where} (IoU {iou:.2f})"
        action = "kept; remove one of the two"
        if left_out[row]:
            action = "left out (--dedupe)"
        elif code == "D06":
            action += ", or leave such boxes out with --dedupe"
        yield box_finding(dataset, (row, earlier), code, "warn", what, action)


def duplicates(dataset: Dataset, usable: Bools) -> Bools:
    """(m,) bool: boxes that repeat an earlier one which stays; ignored boxes take no part."""
    pairs = repeated_boxes(dataset, usable)
    same = pairs.rows[pairs.iou > SAME_IOU]
    found = np.zeros(len(usable), bool)
    for earlier, row in same[np.lexsort((same[:, 0], same[:, 1]))].tolist():
        found[row] |= not found[earlier]
    return found


def repeated_boxes(dataset: Dataset, usable: Bools) -> Pairs:
    """All pairs with an IoU above ``NEAR_IOU``; of equal boxes the first stands for the others.

    Sorted by their left side such boxes are near each other: an IoU above t needs left sides that differ by
    less than 1 - t of the first one's width.
    """
    objects, owner = dataset.objects, dataset.objects.owners()
    rows = np.flatnonzero(usable & ~objects.ignore)
    same, rows = _equal_boxes(dataset, rows)
    boxes = objects.boxes.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # unusable boxes are not looked at
        side = boxes[:, 2:] - boxes[:, :2]
        area, reach = side.prod(1), boxes[:, 0] + side[:, 0] * (1 - NEAR_IOU)
    rows = rows[np.lexsort((rows, boxes[rows, 0], objects.labels[rows], owner[rows]))]
    found, values = [same], [np.ones(len(same))]
    at, step = np.arange(max(len(rows) - 1, 0)), 1
    while len(at):
        first, second = rows[at], rows[at + step]
        near = (owner[first] == owner[second]) & (objects.labels[first] == objects.labels[second])
        near &= boxes[second, 0] <= reach[first]
        at, first, second = at[near], first[near], second[near]
        low = np.maximum(boxes[first, :2], boxes[second, :2])
        shared = (np.minimum(boxes[first, 2:], boxes[second, 2:]) - low).clip(0).prod(1)
        iou = shared / (area[first] + area[second] - shared)
        alike = iou > NEAR_IOU
        found.append(np.sort(np.stack([first[alike], second[alike]], 1), 1))
        values.append(iou[alike])
        step += 1
        at = at[at + step < len(rows)]
    return Pairs(np.concatenate(found), np.concatenate(values))


def _equal_boxes(dataset: Dataset, rows: Ints) -> tuple[Ints, Ints]:
    """(d, 2) equal boxes among ``rows``, each with the first that it equals; and the rows without them."""
    objects = dataset.objects
    key = np.zeros(len(rows), [("owner", np.int64), ("label", np.int32), ("box", np.float32, 4)])
    key["owner"], key["label"] = objects.owners()[rows], objects.labels[rows]
    key["box"] = objects.boxes[rows] + 0  # -0 is 0
    plain = key.view([("bytes", "V", key.dtype.itemsize)])["bytes"].reshape(-1)
    first, inverse = np.unique(plain, return_index=True, return_inverse=True)[1:]
    earlier = first[inverse]
    again = earlier != np.arange(len(rows))
    return np.stack([rows[earlier[again]], rows[again]], 1), rows[~again]
