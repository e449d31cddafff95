"""Rooms 5 and 8 of FCOS: points instead of anchors, and which of them stand for which object (Tian et al.
2019, section 3).

Letters: N images, L levels, A points, G padded objects, g objects of a chunk.

A point stands at the centre of each cell, rows first. It is told how far it is to the four sides of its
object (l, t, r, b), in strides, and how central it lies there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from frcnn.boxes import area
from frcnn.config import FcosConfig
from frcnn.model.anchors import Grids
from frcnn.model.matching import CHUNK
from frcnn.structures import Matches, Targets

INFINITY = float("inf")
TINY = torch.finfo(torch.float32).tiny


class Points(Grids):
    """Points of a padded picture size: (A, 2) as (x, y), pixels.

    Attributes:
        config: the size range of each level.
    """

    def __init__(self, config: FcosConfig, strides: Sequence[int]) -> None:
        """Build for the levels with ``strides``.

        Raises:
            ValueError: when the configuration has size ranges for another number of levels.
        """
        if len(config.size_ranges) != len(strides):
            names = [f"stride {s}" for s in strides]
            raise ValueError(
                f"fcos.size_ranges for {len(config.size_ranges)} levels, the features have {len(strides)}: "
                f"{names}"
            )
        super().__init__(strides, per_cell=1)
        self.config = config

    def _place(self, height: int, width: int) -> Tensor:
        levels = []
        for stride, (rows, columns) in zip(self.strides, self.grids(height, width), strict=True):
            y = (torch.arange(rows, dtype=torch.float32) + 0.5) * stride
            x = (torch.arange(columns, dtype=torch.float32) + 0.5) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")  # rows first
            levels.append(torch.stack([x, y], -1).view(-1, 2))
        return torch.cat(levels)


def per_point(values: Sequence[float], level_sizes: Sequence[int], device: torch.device) -> Tensor:
    """A number of each level -> (A,) float32 on ``device``, made there: nothing is copied to it."""
    parts = [
        torch.full((size,), float(value), device=device)
        for value, size in zip(values, level_sizes, strict=True)
    ]
    return torch.cat(parts)


def within(points: Tensor, sizes: Tensor) -> Tensor:
    """(N, A) bool: which points (A, 2) lie in pictures of true sizes (N, 2) and not in their padding."""
    height, width = sizes[:, :1], sizes[:, 1:]
    return (points[:, 0] < width) & (points[:, 1] < height)


@torch.no_grad()
def match_points(
    points: Tensor,
    sizes: Tensor,
    targets: Targets,
    config: FcosConfig,
    strides: Sequence[int],
    level_sizes: Sequence[int],
    chunk: int = CHUNK,
) -> Matches:
    """Labels of the points: 1 object, 0 background, -1 neither.

    Positive: strictly inside an object (and near its centre, ``centre_radius``) with the largest distance to
    its sides in the size range of the point's level; of several objects the smallest in area wins, of equal
    ones the first. Neither: in an ignored box or region and not positive, or in the padding, where nothing is
    looked for either (the paper's code trains those points as background).

    The objects are streamed over as ``frcnn.model.matching`` does: memory is N x A x g.

    Args:
        points: (A, 2).
        sizes: (N, 2) true picture sizes.
        targets: (N, G) objects.
        config: size ranges and radius.
        strides: of each level.
        level_sizes: points of each level.
        chunk: objects looked at together.
    """
    gt, real = targets.boxes.float(), targets.real
    areas = area(gt)[..., None]  # (N, G, 1)
    n, a, device = len(gt), len(points), points.device
    x, y = points.float().unbind(-1)  # (A,)
    low = per_point([low for low, _ in config.size_ranges], level_sizes, device)
    high = per_point([INFINITY if h is None else h for _, h in config.size_ranges], level_sizes, device)
    reach = per_point([config.centre_radius * stride for stride in strides], level_sizes, device)
    smallest = torch.full((n, a), INFINITY, device=device)
    index = torch.zeros(n, a, dtype=torch.long, device=device)
    seen = within(points, sizes)
    skipped = torch.zeros_like(seen)
    for start in range(0, gt.shape[1] if a else 0, chunk):  # over chunks of objects, not over images
        part = slice(start, start + chunk)
        x1, y1, x2, y2 = gt[:, part, None].unbind(-1)  # (N, g, 1) each
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y  # (N, g, A) each
        inside = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom)) > 0
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        skipped |= (inside & targets.ignore[:, part, None]).any(1)
        stands = inside & real[:, part, None] & (farthest >= low) & (farthest <= high)
        if config.centre_radius:  # |x - centre| is half of |left - right|
            off_centre = torch.maximum((left - right).abs(), (top - bottom).abs()) / 2
            stands = stands & (off_centre < reach)
        least, where = torch.where(stands, areas[:, part], INFINITY).min(1)  # the first of equals
        index = torch.where(least < smallest, where + start, index)  # < keeps the earlier object on ties
        smallest = torch.minimum(smallest, least)
    labels = torch.where(skipped, -1, 0).masked_fill(smallest < INFINITY, 1)
    labels = labels.masked_fill(~seen, -1)
    return Matches(labels, index)


@torch.no_grad()
def point_targets(
    points: Tensor, strides: Tensor, matches: Matches, targets: Targets
) -> tuple[Tensor, Tensor, Tensor]:
    """What every point learns.

    Args:
        points: (A, 2).
        strides: (A,).
        matches: (N, A).
        targets: (N, G) objects.

    Returns:
        Labels (N, A) int64, -1 where not positive; distances (N, A, 4) in strides and centerness (N, A),
        float32, 0 where not positive.
    """
    positive = matches.labels == 1
    # one more object, which nothing points to: a batch may have no column of objects at all
    labels = torch.cat([targets.labels, targets.labels.new_full((len(targets.labels), 1), -1)], 1)
    boxes = torch.cat([targets.boxes.float(), targets.boxes.new_zeros(len(labels), 1, 4).float()], 1)
    mine = boxes.gather(1, matches.index[..., None].expand(-1, -1, 4))  # (N, A, 4)
    distances = torch.where(positive[..., None], encode_distances(points, mine, strides), 0.0)
    return torch.where(positive, labels.gather(1, matches.index), -1), distances, centerness(distances)


def encode_distances(points: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """Distances (..., A, 4) in strides from points (..., A, 2) to the sides of boxes (..., A, 4), left, top,
    right, bottom; float32, below 0 for a side that the point is beyond.
    """
    points, boxes = points.float(), boxes.float()
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1) / strides[..., None]


def decode_distances(points: Tensor, distances: Tensor, strides: Tensor) -> Tensor:
    """Boxes (..., A, 4) float32: the inverse of ``encode_distances``. Distances below 0 count as 0, so that a
    point never lies outside its box.
    """
    points, pixels = points.float(), distances.float().clamp(min=0) * strides[..., None]
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], -1)


def centerness(distances: Tensor) -> Tensor:
    """How central a point lies in its box (equation 3): distances (..., 4) >= 0 -> (...) in [0, 1]; 1 in the
    middle, 0 on a side.
    """
    left, top, right, bottom = distances.float().unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=TINY)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom).clamp(min=TINY)
    return (across * down).sqrt()
