"""RoIAlign over the whole feature pyramid as a weighted gather (Mask R-CNN, section 3; FPN, equation 1).

Letters: N images, R RoIs an image, L levels, C channels, P output side, S sample points of a bin and axis,
M RoIs of all images, T = 4 S^2 taps of a bin.

Every bin of every RoI is a weighted sum of the T feature rows (C,) that its sample points touch, which is
what ``embedding_bag`` computes. Three ways to it, equal in their numbers:

* ``bags`` (CPU): one bag call a level on the map itself, no copy of the features; ``roi_align_bags.py``.
* ``gather`` (elsewhere): all levels stand one below another in a table (rows, C), and one call serves all
  RoIs. No size depends on the data, so the host never waits.
* ``levels``: torchvision's operator on every level for all RoIs, of which each keeps its own level's. It
  computes L times as much, and is there to be measured and exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from frcnn.boxes import area
from frcnn.ops.roi_align_bags import roi_align_bags
from frcnn.ops.roi_taps import Grid, level_numbers, taps

Method = Literal["auto", "bags", "gather", "levels"]
ON_ACCELERATOR: Method = "gather"
"""What ``auto`` takes on other devices than the CPU. Not measured yet: ``levels`` computes L times as much,
but its gradient sorts no indices, as the gather's does there."""


def assign_levels(
    boxes: Tensor, strides: Sequence[int], canonical_size: float = 224.0, canonical_level: int = 4
) -> Tensor:
    """Pyramid level of every box, FPN equation 1 with the clamping of torchvision.

    Args:
        boxes: (..., 4).
        strides: stride of each level, powers of two.
        canonical_size: side in pixels of a box that belongs to ``canonical_level`` (log2 of its stride).
        canonical_level: see above.

    Returns:
        (...) int64 index into ``strides``.
    """
    first, last = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
    side = area(boxes).sqrt()
    level = torch.floor(
        canonical_level + torch.log2(side / canonical_size) + 1e-6
    )  # 1e-6: a side of exactly 224
    level = level.nan_to_num(nan=first, neginf=first, posinf=last).clamp(first, last) - first
    return level.long().clamp(max=len(strides) - 1)


def pyramid_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    output_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = False,
    levels: Tensor | None = None,
    method: Method = "auto",
) -> Tensor:
    """Pool RoIs from the pyramid level that fits their size.

    Args:
        features: L maps (N, C, H_l, W_l), best in channels-last memory (others are copied).
        boxes: (N, R, 4) in pixels of the padded pictures; not finite ones give zeros or garbage, never a
            crash.
        strides: pixels a cell for each level.
        output_size: P, bins a side.
        sampling_ratio: S, sample points a bin and axis; must be fixed (an adaptive count depends on the
            data).
        aligned: shift by half a cell (detectron2) or not (torchvision's models).
        levels: (N, R) int64 index into ``features``; None: by size (``assign_levels``).
        method: see the top of the file; ``auto`` is ``bags`` on the CPU and ``ON_ACCELERATOR`` elsewhere.

    Returns:
        (N, R, C, P, P) in the features' dtype; its memory order is (N, R, P, P, C).

    Raises:
        ValueError: when the number of strides is not that of the features or ``sampling_ratio`` is below 1.
    """
    if len(features) != len(strides):
        raise ValueError(
            f"{len(features)} feature maps and {len(strides)} strides: one stride for each map is needed"
        )
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio must be at least 1, got {sampling_ratio}")
    boxes = boxes.detach().float().nan_to_num(0.0, 0.0, 0.0).clamp(-1e6, 1e6)  # NaN would index row -2^63
    if levels is None:
        levels = assign_levels(boxes, strides)
    if method == "auto":
        method = "bags" if boxes.device.type == "cpu" else ON_ACCELERATOR
    grid = Grid(output_size, sampling_ratio, aligned)
    if method == "levels":
        return _every_level(features, boxes, strides, levels, grid)
    if method == "bags":
        pooled = roi_align_bags(features, boxes, levels, strides, grid)
    else:
        pooled = _gather(features, boxes, strides, levels, grid)
    return pooled.permute(0, 1, 4, 2, 3)


def _gather(
    features: Sequence[Tensor], boxes: Tensor, strides: Sequence[int], levels: Tensor, grid: Grid
) -> Tensor:
    """One bag call on the table of all levels -> (N, R, P, P, C)."""
    (n, r), c = levels.shape, features[0].shape[1]
    rows = [f.shape[0] * f.shape[2] * f.shape[3] for f in features]
    starts = [sum(rows[:level]) for level in range(len(rows))]
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    height, width, start, stride = level_numbers(levels.flatten(), heights, widths, starts, strides)
    image = torch.arange(n, dtype=torch.int32, device=boxes.device)[:, None].expand(n, r).flatten()
    index, weight = taps(boxes.flatten(0, 1), stride, height, width, start + image * height * width, grid)
    table = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, c) for f in features])  # (rows, C)
    pooled = F.embedding_bag(index, table, per_sample_weights=weight.to(table.dtype), mode="sum")
    return pooled.view(n, r, grid.size, grid.size, c)


def _every_level(
    features: Sequence[Tensor], boxes: Tensor, strides: Sequence[int], levels: Tensor, grid: Grid
) -> Tensor:
    """The operator of torchvision on every level -> (N, R, C, P, P).

    It takes boxes and maps of one format; in bf16 the boxes would be moved by up to 4 pixels.
    """
    n, r = levels.shape
    image = torch.arange(n, dtype=torch.float32, device=boxes.device)[:, None, None].expand(n, r, 1)
    rois = torch.cat([image, boxes], -1).view(n * r, 5)
    size, samples = grid.size, grid.samples
    pooled = features[0].new_zeros(n * r, features[0].shape[1], size, size)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        exact = torch.promote_types(feature.dtype, torch.float32)
        one = torchvision.ops.roi_align(
            feature.to(exact), rois.to(exact), size, 1.0 / stride, samples, grid.aligned
        )
        pooled = torch.where((levels == level).view(-1, 1, 1, 1), one.to(feature.dtype), pooled)
    return pooled.view(n, r, *pooled.shape[1:])


def pyramid_roi_align_reference(
    features: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    output_size: int = 7,
    sampling_ratio: int = 2,
    aligned: bool = False,
    levels: Tensor | None = None,
) -> Tensor:
    """The same as ``pyramid_roi_align`` point by point in plain Python: slow and obvious, for tests."""
    levels = assign_levels(boxes, strides) if levels is None else levels
    n, r = boxes.shape[:2]
    out = torch.zeros(n, r, features[0].shape[1], output_size, output_size)
    for i in range(n):
        for j in range(r):
            level = int(levels[i, j])
            x1, y1, x2, y2 = (float(v) / strides[level] - (0.5 if aligned else 0) for v in boxes[i, j])
            w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
            steps = output_size * sampling_ratio
            for py in range(steps):
                for px in range(steps):
                    value = _bilinear(
                        features[level][i], y1 + (py + 0.5) * h / steps, x1 + (px + 0.5) * w / steps
                    )
                    out[i, j, :, py // sampling_ratio, px // sampling_ratio] += value / sampling_ratio**2
    return out


def _bilinear(feature: Tensor, y: float, x: float) -> Tensor:
    _, h, w = feature.shape
    if not (-1 <= y <= h and -1 <= x <= w):
        return torch.zeros(feature.shape[0])
    y, x = min(max(y, 0.0), h - 1), min(max(x, 0.0), w - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    top = feature[:, y0, x0] * (1 - (x - x0)) + feature[:, y0, x1] * (x - x0)
    bottom = feature[:, y1, x0] * (1 - (x - x0)) + feature[:, y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)
