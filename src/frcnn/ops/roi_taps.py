"""Where the bins of RoIAlign read: feature rows and bilinear weights, shared by its implementations.

Letters: M RoIs, L levels, P output side, S sample points of a bin and axis, T = 4 S^2 taps of a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """The sample points of a RoI.

    Attributes:
        size: P, bins a side.
        samples: S, sample points a bin and axis.
        aligned: shift by half a cell (detectron2) or not (torchvision's models).
    """

    size: int
    samples: int
    aligned: bool


def level_numbers(levels: Tensor, *columns: Sequence[int]) -> list[Tensor]:
    """For every column of L host numbers, each RoI's own: (M,) int32 for levels (M,).

    Chosen by comparing: a tensor made of the host's numbers would be copied to the device in every step.
    """
    chosen = []
    for numbers in columns:
        value = torch.full_like(levels, numbers[0], dtype=torch.int32)
        for level in range(1, len(numbers)):  # over levels, not over images
            value = value.masked_fill(levels == level, numbers[level])
        chosen.append(value)
    return chosen


def taps(
    boxes: Tensor, stride: Tensor, height: Tensor, width: Tensor, first_row: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Rows and weights of every bin.

    Args:
        boxes: (M, 4), finite, pixels.
        stride: (M,) pixels a cell of each RoI's level.
        height: (M,) int32, rows of cells of that level.
        width: (M,) int32, cells of a row.
        first_row: (M,) int32, where the level of the RoI's image begins in the table.
        grid: the sample points.

    Returns:
        (M P P, T) int32 rows and float32 weights.
    """
    m, size, samples = boxes.shape[0], grid.size, grid.samples
    scaled = boxes / stride[:, None] - (0.5 if grid.aligned else 0.0)
    extent = scaled[:, 2:] - scaled[:, :2]
    if not grid.aligned:
        extent = extent.clamp(min=1.0)  # the older operator pools at least one cell
    steps = (torch.arange(size * samples, device=boxes.device) + 0.5) / (size * samples)  # (P S)

    def axis(low: Tensor, length: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """The two cells beside every sample point of an axis, and their weights -> (M, P, 2 S) each."""
        point = low[:, None] + steps * length[:, None]
        last = (limit[:, None] - 1).float()
        reached = (point >= -1) & (point <= last + 1)  # farther out a sample counts as zero
        point = torch.minimum(point.clamp(min=0), last)
        cell = point.floor()
        fraction = point - cell
        cells = torch.stack([cell, torch.minimum(cell + 1, last)], -1).to(torch.int32)
        weights = torch.stack([1 - fraction, fraction], -1) * reached[..., None]
        return cells.view(m, size, 2 * samples), weights.view(m, size, 2 * samples)

    ix, wx = axis(scaled[:, 0], extent[:, 0], width)
    iy, wy = axis(scaled[:, 1], extent[:, 1], height)
    row = first_row[:, None, None] + iy * width[:, None, None]  # (M, P, 2 S)
    index = row[:, :, None, :, None] + ix[:, None, :, None, :]  # (M, P, P, 2 S, 2 S)
    weight = wy[:, :, None, :, None] * (wx / samples**2)[:, None, :, None, :]
    bins, count = m * size * size, 4 * samples * samples
    return index.reshape(bins, count), weight.reshape(bins, count)
