"""RoIAlign over the whole feature pyramid as one weighted gather (Mask R-CNN, section 3; FPN, equation 1).

Letters: N images, R RoIs an image, L levels, C channels, P output side, S sample points of a bin and axis.

All levels stand one below another in a table (rows, C); every bin of every RoI is a weighted sum of the 4 S^2
rows that its sample points touch, which is what ``embedding_bag`` computes. No loop over levels or images, no
``nonzero``, and the gradient is the operator's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.boxes import area


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
) -> Tensor:
    """Pool RoIs from the pyramid level that fits their size.

    Args:
        features: L maps (N, C, H_l, W_l), best in channels-last memory (then the table costs one copy only).
        boxes: (N, R, 4) in pixels of the padded pictures; not finite ones give zeros or garbage, never a
            crash.
        strides: pixels a cell for each level.
        output_size: P, bins a side.
        sampling_ratio: S, sample points a bin and axis; must be fixed (an adaptive count depends on the
            data).
        aligned: shift by half a cell (detectron2) or not (torchvision's models).
        levels: (N, R) int64 index into ``features``; None: by size (``assign_levels``).

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
    n, r = boxes.shape[:2]
    c = features[0].shape[1]
    boxes = boxes.detach().float().nan_to_num(0.0, 0.0, 0.0).clamp(-1e6, 1e6)  # NaN would index row -2^63
    if levels is None:
        levels = assign_levels(boxes, strides)
    index, weight = _rows_and_weights(features, boxes, strides, levels, output_size, sampling_ratio, aligned)
    table = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, c) for f in features])  # (rows, C)
    pooled = F.embedding_bag(index, table, per_sample_weights=weight.to(table.dtype), mode="sum")
    return pooled.view(n, r, output_size, output_size, c).permute(0, 1, 4, 2, 3)


def _rows_and_weights(
    features: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    levels: Tensor,
    size: int,
    samples: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Table rows and bilinear weights of every bin -> (N R P P, 4 S S) int32 and float32."""
    n, r = boxes.shape[:2]
    height, width, start, stride = _level_numbers(features, strides, levels)  # (N, R) int32 each

    shift = 0.5 if aligned else 0.0
    scaled = boxes / stride[..., None] - shift
    extent = scaled[..., 2:] - scaled[..., :2]
    if not aligned:
        extent = extent.clamp(min=1.0)  # the older operator pools at least one cell
    grid = (torch.arange(size * samples, device=boxes.device) + 0.5) / (size * samples)  # (P S)

    def axis(low: Tensor, length: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """The two cells beside every sample point of an axis, and their weights -> (N, R, P, 2 S) each."""
        point = low[..., None] + grid * length[..., None]
        last = (limit[..., None] - 1).float()
        reached = (point >= -1) & (point <= last + 1)  # farther out a sample counts as zero
        point = torch.minimum(point.clamp(min=0), last)
        cell = point.floor()
        fraction = point - cell
        cells = torch.stack([cell, torch.minimum(cell + 1, last)], -1).to(torch.int32)
        weights = torch.stack([1 - fraction, fraction], -1) * reached[..., None]
        return cells.view(n, r, size, 2 * samples), weights.view(n, r, size, 2 * samples)

    ix, wx = axis(scaled[..., 0], extent[..., 0], width)
    iy, wy = axis(scaled[..., 1], extent[..., 1], height)
    image = torch.arange(n, dtype=torch.int32, device=boxes.device)[:, None]
    first_row = start + image * height * width  # (N, R)
    row = first_row[..., None, None] + iy * width[..., None, None]  # (N, R, P, 2 S)
    index = row[:, :, :, None, :, None] + ix[:, :, None, :, None, :]  # (N, R, P, P, 2 S, 2 S)
    weight = wy[:, :, :, None, :, None] * (wx / samples**2)[:, :, None, :, None, :]
    bins = n * r * size * size
    return index.reshape(bins, 4 * samples * samples), weight.reshape(bins, 4 * samples * samples)


def _level_numbers(features: Sequence[Tensor], strides: Sequence[int], levels: Tensor) -> list[Tensor]:
    """Height, width, first table row and stride of every RoI's level, each (N, R) int32.

    Chosen by comparing: a tensor made of the host's numbers would be copied to the device in every step.
    """
    rows = [f.shape[0] * f.shape[2] * f.shape[3] for f in features]
    starts = [sum(rows[:level]) for level in range(len(rows))]
    columns = ([f.shape[2] for f in features], [f.shape[3] for f in features], starts, list(strides))
    chosen = []
    for numbers in columns:
        value = torch.full_like(levels, numbers[0], dtype=torch.int32)
        for level in range(1, len(numbers)):  # over levels, not over images
            value = value.masked_fill(levels == level, numbers[level])
        chosen.append(value)
    return chosen


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
