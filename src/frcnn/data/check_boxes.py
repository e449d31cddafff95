"""Checks of boxes, for all boxes of a data set at once: area, borders, size after resizing, duplicates.

Letters: n pictures, m boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig, PreprocessConfig
from frcnn.data.findings import Finding, Severity, entry
from frcnn.data.sample import Bools, Dataset, Floats, Ints

SLACK_PIXELS, SLACK_SHARE = 2.0, 0.01
DUPLICATE_IOU = 0.99


@dataclass(frozen=True)
class BoxFaults:
    """What is wrong with every box, all (m,) bool.

    Attributes:
        no_area: not finite, or no width or height.
        outside: does not touch its picture.
        crossing: reaches over the border by at most 2 px or 1 % of the picture's side.
        far: reaches over it by more.
        tiny: below 1 px wide or high after resizing.
    """

    no_area: Bools
    outside: Bools
    crossing: Bools
    far: Bools
    tiny: Bools

    @property
    def unusable(self) -> Bools:
        """Boxes that ``bad_boxes`` decides about."""
        return self.no_area | self.outside


def clip_to_pictures(dataset: Dataset) -> Floats:
    """(m, 4) boxes cut at the borders of their pictures; those of unreadable pictures stay."""
    sizes = dataset.pictures.sizes[dataset.objects.owners()]
    wide, high = (np.where(side > 0, side, np.inf) for side in (sizes[:, 1], sizes[:, 0]))
    limits = np.stack([wide, high, wide, high], 1)
    return np.clip(dataset.objects.boxes, 0, limits).astype(np.float32)


def resize_scales(sizes: NDArray[np.int32], spec: PreprocessConfig) -> NDArray[np.float64]:
    """(n, 2) factors for height and width with which ``spec`` resizes pictures of ``sizes`` (n, 2)."""
    sides = np.maximum(sizes, 1).astype(np.float64)
    if spec.fixed_size is not None:
        return np.asarray(spec.fixed_size) / sides
    scale = np.minimum(spec.min_size / sides.min(1), spec.max_size / sides.max(1))
    return np.stack([scale, scale], 1)


def find_box_faults(dataset: Dataset, spec: PreprocessConfig) -> BoxFaults:
    """Look at every box; borders are not looked at where the picture's size is unknown or not the annotated
    one.
    """
    boxes, owner = dataset.objects.boxes, dataset.objects.owners()
    sizes, declared = dataset.pictures.sizes, dataset.pictures.declared
    known = (sizes.all(1) & (~declared.all(1) | (declared == sizes).all(1)))[owner]
    finite: Bools = np.asarray(np.isfinite(boxes).all(1))
    real = np.where(finite[:, None], boxes, 0)
    no_area = ~finite | (real[:, 2] <= real[:, 0]) | (real[:, 3] <= real[:, 1])
    side = sizes[owner][:, ::-1].astype(np.float64)  # (m, 2) width, height
    over = np.maximum(-real[:, :2], real[:, 2:] - side).clip(0)  # (m, 2) pixels beyond the border
    outside = ((real[:, :2] >= side) | (real[:, 2:] <= 0)).any(1)
    beyond = (over > 0).any(1) & known & ~no_area
    far = (over > np.maximum(SLACK_PIXELS, SLACK_SHARE * side)).any(1)
    outside &= beyond
    clipped = clip_to_pictures(dataset)
    seen = (clipped[:, 2:] - clipped[:, :2]) * resize_scales(sizes, spec)[owner][:, ::-1]
    tiny = finite & ~no_area & ~outside & known & (seen < 1).any(1)
    return BoxFaults(no_area, outside, beyond & ~far, beyond & far & ~outside, tiny)


def check_boxes(
    dataset: Dataset, faults: BoxFaults, data: DataConfig, spec: PreprocessConfig
) -> Iterator[Finding]:
    """D01, D02, D03 and D06."""
    bad: Severity = "warn" if data.bad_boxes == "drop" else "error"
    left_out = "correct the annotation, or leave such boxes out with --bad-boxes drop"
    if data.bad_boxes == "drop":
        left_out = "left out (--bad-boxes drop)"
    target = "x".join(map(str, spec.fixed_size)) if spec.fixed_size else str(spec.min_size)
    yield from _each(dataset, faults.no_area, "D01", bad, "has no area", left_out)
    yield from _each(dataset, faults.tiny, "D02", "warn", f"is below 1 pixel at {target} px",
                     "an ignore region in training; train at a larger size to keep it")  # fmt: skip
    yield from _each(dataset, faults.outside, "D03", bad, "lies outside", left_out)
    yield from _each(dataset, faults.far, "D03", "warn", "reaches far outside", "cut at the border")
    yield from _each(dataset, faults.crossing, "D03", "note", "reaches a little outside", "cut at the border")
    for first, second in duplicates(dataset, ~faults.unusable):
        line = dataset.objects.lines[first]
        where = f" in line {line}" if line > 0 else f" of {entry(int(line))}" if line else ""
        yield _finding(
            dataset, int(second), "D06", "warn", f"repeats the box{where}", "kept; remove one of the two"
        )


def _each(
    dataset: Dataset, mask: Bools, code: str, severity: Severity, what: str, action: str
) -> Iterator[Finding]:
    for row in np.flatnonzero(mask):
        yield _finding(dataset, int(row), code, severity, what, action)


def _finding(dataset: Dataset, row: int, code: str, severity: Severity, what: str, action: str) -> Finding:
    objects = dataset.objects
    picture = int(np.searchsorted(objects.offsets, row, "right")) - 1
    corners = ", ".join(f"{v:g}" for v in objects.boxes[row])
    name = dataset.written_name(row)
    message = f"box ({corners})" + (f' of "{name}"' if name else "") + f" {what}"
    if code == "D03":
        height, width = dataset.pictures.sizes[picture]
        message += f" of the picture, which is {width} x {height}"
    path = dataset.annotation_path(picture) or dataset.picture_path(picture)
    return Finding(code, severity, message, str(path), int(objects.lines[row]), action)


def duplicates(dataset: Dataset, usable: Bools) -> Ints:
    """(d, 2) rows of boxes of one picture and class with IoU above 0.99; the second is the later one.

    Sorted by area, such boxes are near each other: an IoU above t needs areas in a ratio above t.
    """
    objects, owner = dataset.objects, dataset.objects.owners()
    rows = np.flatnonzero(usable & ~objects.ignore)
    boxes = objects.boxes.astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rows = rows[np.lexsort((rows, area[rows], objects.labels[rows], owner[rows]))]
    found: list[Ints] = []
    at, step = np.arange(max(len(rows) - 1, 0)), 1
    while len(at):
        first, second = rows[at], rows[at + step]
        alike = (owner[first] == owner[second]) & (objects.labels[first] == objects.labels[second])
        alike &= area[first] > DUPLICATE_IOU * area[second]
        at, first, second = at[alike], first[alike], second[alike]
        low = np.maximum(boxes[first, :2], boxes[second, :2])
        shared = (np.minimum(boxes[first, 2:], boxes[second, 2:]) - low).clip(0).prod(1)
        same = shared > DUPLICATE_IOU * (area[first] + area[second] - shared)
        found.append(np.sort(np.stack([first[same], second[same]], 1), 1))
        step += 1
        at = at[at + step < len(rows)]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *found])
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
