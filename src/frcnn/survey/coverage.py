"""How well anchors cover objects: the best IoU that each object can have with one.

Letters: m objects, B anchors of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from frcnn import boxes as geometry
from frcnn.config import AnchorConfig
from frcnn.data.sample import Bools, Floats, Ints
from frcnn.model.anchors import cell_anchors

LOW_IOU = 0.5
"""An object whose best anchor overlaps it less is hard to find."""
GROUP_EDGES = (0, 16, 32, 64, 128, 256)
"""Of the square root of the area in pixels at training size; the last group is open."""
IOU_STEPS = 20
CHUNK = 65_536


@dataclass(frozen=True)
class Share:
    """The objects of one size or class.

    Attributes:
        name: which.
        objects: how many.
        median: of their best IoU; 0 without objects.
        low: share of those below 0.5.
    """

    name: str
    objects: int
    median: float
    low: float


@dataclass(frozen=True)
class Coverage:
    """The best anchor IoU of all objects.

    Attributes:
        total: of all.
        by_size: for the groups of ``GROUP_EDGES`` that have objects.
        by_class: for every class.
        histogram: objects by best IoU, in 20 steps from 0 to 1.
        mean: of the best IoU.
    """

    total: Share
    by_size: tuple[Share, ...]
    by_class: tuple[Share, ...]
    histogram: tuple[int, ...]
    mean: float


def best_anchor_iou(sizes: Floats, anchors: AnchorConfig, strides: Sequence[int]) -> Floats:
    """(m,) best IoU of objects of the given (height, width) with any anchor.

    An object may lie anywhere, so its centre is half a stride off the nearest anchor in the worst case and on
    it in the best; a quarter of a stride per axis is the mean, and that is taken.
    """
    best = [np.zeros(0, np.float32)]
    levels = [
        (cell_anchors(level, anchors, stride), stride)
        for level, stride in zip(anchors.sizes, strides, strict=True)
    ]
    for start in range(0, len(sizes), CHUNK):
        objects = torch.as_tensor(sizes[start : start + CHUNK])
        half, part = objects.flip(1) / 2, torch.zeros(len(objects))  # (m, 2): x, y
        for cells, stride in levels:  # (B, 4)
            centre = (cells[:1, :2] + cells[:1, 2:]) / 2 + stride / 4
            placed = torch.cat([centre - half, centre + half], 1)  # (m, 4)
            part = torch.maximum(part, geometry.iou(placed, cells).amax(1))
        best.append(part.numpy())
    return np.concatenate(best)


def coverage(best: Floats, sizes: Floats, labels: Ints, classes: Sequence[str]) -> Coverage:
    """Sum up best IoU (m,) of objects of the given (height, width) (m, 2) and class (m,)."""
    side = np.sqrt(sizes.prod(1))
    groups = []
    for low, high in zip(GROUP_EDGES, (*GROUP_EDGES[1:], np.inf), strict=True):
        inside: Bools = np.asarray((side >= low) & (side < high))
        name = f"{low} to {high:g} px" if np.isfinite(high) else f"{low} px or more"
        if inside.any():
            groups.append(_share(name, best[inside]))
    by_class = tuple(_share(name, best[labels == k]) for k, name in enumerate(classes))
    counts = np.histogram(np.clip(best, 0, 1), IOU_STEPS, (0.0, 1.0))[0]
    mean = float(best.mean()) if len(best) else 0.0
    return Coverage(_share("all", best), tuple(groups), by_class, tuple(counts.tolist()), mean)


def _share(name: str, best: Floats) -> Share:
    if not len(best):
        return Share(name, 0, 0.0, 0.0)
    return Share(name, len(best), float(np.median(best)), float((best < LOW_IOU).mean()))
