"""Checks of boxes, for all boxes of a data set at once: area, borders, size after resizing, wrong corners.

Letters: n pictures, m boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig, PreprocessConfig
from frcnn.data.findings import Finding, Severity
from frcnn.data.sample import Bools, Dataset, Floats

SLACK_PIXELS, SLACK_SHARE = 2.0, 0.01
FIT_AS_CORNERS = 0.99
"""Share of the boxes of a COCO file that must fit as x1, y1, x2, y2 before any is taken for such a box."""


@dataclass(frozen=True)
class BoxFaults:
    """What is wrong with every box, all (m,) bool.

    Attributes:
        no_area: not finite, or no width or height.
        outside: does not touch its picture.
        crossing: reaches over the border by at most 2 px or 1 % of the picture's side.
        far: reaches over it by more.
        tiny: below 1 px wide or high after resizing.
        corners: of a COCO file, and inside its picture only if read as x1, y1, x2, y2; none of the others.
    """

    no_area: Bools
    outside: Bools
    crossing: Bools
    far: Bools
    tiny: Bools
    corners: Bools

    @property
    def unusable(self) -> Bools:
        """Boxes that ``bad_boxes`` decides about."""
        return self.no_area | self.outside

    @property
    def wrong(self) -> Bools:
        """Boxes that say nothing about an object's size."""
        return self.unusable | self.corners


def clip_to_pictures(dataset: Dataset) -> Floats:
    """(m, 4) boxes cut at the borders of their pictures; those of unreadable pictures stay."""
    sizes = dataset.pictures.sizes[dataset.objects.owners()]
    wide, high = (np.where(side > 0, side, np.inf) for side in (sizes[:, 1], sizes[:, 0]))
    limits = np.stack([wide, high, wide, high], 1)
    return np.clip(dataset.objects.boxes, 0, limits).astype(np.float32)


def resize_scales(sizes: NDArray[np.int32], spec: PreprocessConfig) -> NDArray[np.float64]:
    """(n, 2) factors for height and width with which ``spec`` resizes pictures of ``sizes`` (n, 2), or their
    tiles.
    """
    sides = np.maximum(sizes, 1).astype(np.float64)
    if spec.tile:
        sides = np.minimum(sides, spec.tile)
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
    corners = _corners(dataset, known, over)
    beyond &= ~corners
    no_area &= ~corners
    far = (over > np.maximum(SLACK_PIXELS, SLACK_SHARE * side)).any(1)
    outside &= beyond
    clipped = clip_to_pictures(dataset)
    seen = (clipped[:, 2:] - clipped[:, :2]) * resize_scales(sizes, spec)[owner][:, ::-1]
    tiny = finite & ~no_area & ~outside & ~corners & known & (seen < 1).any(1)
    return BoxFaults(no_area, outside, beyond & ~far, beyond & far & ~outside, tiny, corners)


def _corners(dataset: Dataset, known: Bools, over: NDArray[np.float64]) -> Bools:
    """(m,) bool: boxes of COCO files whose x, y, width, height reach outside (``over``, (m, 2) pixels) and
    would fit as x1, y1, x2, y2, as nearly all others of the same file would.
    """
    objects, pictures = dataset.objects, dataset.pictures
    found = np.zeros(len(objects.boxes), bool)
    coco = np.flatnonzero(objects.lines < 0)
    if not len(coco):
        return found
    owner = objects.owners()[coco]
    boxes = objects.boxes[coco].astype(np.float64)
    low, high = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]  # as written: x, y and width, height
    side = pictures.sizes[owner][:, ::-1].astype(np.float64)
    slack = np.maximum(SLACK_PIXELS, SLACK_SHARE * side)
    with np.errstate(invalid="ignore"):  # inf - inf is not a number, and does not fit
        fits = ((low >= 0) & (high > low) & (high <= side + slack)).all(1)
    files = np.unique(np.asarray(list(pictures.annotations)), return_inverse=True)[1][owner]
    looked_at = known[coco]
    total = np.bincount(files[looked_at], minlength=files.max() + 1)
    fitting = np.bincount(files[looked_at & fits], minlength=files.max() + 1)
    whole = fitting >= FIT_AS_CORNERS * np.maximum(total, 1)
    found[coco] = looked_at & fits & (over[coco] > slack).any(1) & whole[files]
    return found


def check_boxes(
    dataset: Dataset, faults: BoxFaults, data: DataConfig, spec: PreprocessConfig
) -> Iterator[Finding]:
    """D01, D02, D03 and D05."""
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
    yield from _each(dataset, faults.corners, "D05", "error", "fits only as x1, y1, x2, y2",
                     "COCO boxes are x, y, width, height: take x1, y1 off the last two numbers")  # fmt: skip


def _each(
    dataset: Dataset, mask: Bools, code: str, severity: Severity, what: str, action: str
) -> Iterator[Finding]:
    for row in np.flatnonzero(mask):
        yield box_finding(dataset, (int(row),), code, severity, what, action)


def box_finding(
    dataset: Dataset, rows: tuple[int, ...], code: str, severity: Severity, what: str, action: str
) -> Finding:
    """A finding about the first of ``rows``, named by its corners and class; the others are shown beside
    it.
    """
    objects, row = dataset.objects, rows[0]
    picture = int(np.searchsorted(objects.offsets, row, "right")) - 1
    shown = objects.boxes[row]
    if code == "D05":  # as written
        shown = np.concatenate([shown[:2], shown[2:] - shown[:2]])
    corners = ", ".join(f"{v:g}" for v in shown)
    name = dataset.written_name(row)
    message = f"box ({corners})" + (f' of "{name}"' if name else "") + f" {what}"
    if code in ("D03", "D05"):
        height, width = dataset.pictures.sizes[picture]
        message += f" {'of' if code == 'D03' else 'in'} the picture, which is {width} x {height}"
    path = dataset.annotation_path(picture) or dataset.picture_path(picture)
    return Finding(code, severity, message, str(path), int(objects.lines[row]), action, rows=rows)
