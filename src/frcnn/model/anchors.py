"""Room 5: anchor boxes, rows first (Faster R-CNN, section 3.1.1).

Letters: L levels, A anchors, B anchors of a cell (ratios x sizes, ratio-major), H, W padded picture.

The network's output is read rows first, so anchors are laid out rows first too; columns-first anchors agree
on square pictures in their counts only, and train every cell with the target of the transposed one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from frcnn.config import AnchorConfig

CACHE_SIZE = 16


def cell_anchors(sizes: Sequence[float], config: AnchorConfig, stride: int) -> Tensor:
    """The anchors of the cell at the origin -> (B, 4) float32.

    Args:
        sizes: square roots of the areas, pixels.
        config: ratios (height / width), rounding and centre.
        stride: pixels a cell; decides where the centre is.
    """
    ratios = torch.tensor(config.ratios, dtype=torch.float32)[:, None]
    size = torch.tensor(sizes, dtype=torch.float32)[None, :]
    if config.rounding == "pyfrcnn":
        # the base box of one cell is rounded first and then scaled; its far edge belongs to the box (hence -
        # 1)
        base_width = torch.round(torch.sqrt(stride * stride / ratios))
        base_height = torch.round(base_width * ratios)
        width, height = (base * size / stride for base in (base_width, base_height))
        half = torch.stack([width, height], -1).view(-1, 2) / 2 - 0.5
        centre = torch.tensor([(stride - 1) / 2, (stride - 1) / 2])
    else:
        root = torch.sqrt(ratios)
        half = torch.stack([size / root, size * root], -1).view(-1, 2) / 2  # (B, 2)
        centre = torch.full((2,), config.centre * stride)
    anchors = torch.cat([centre - half, centre + half], -1)
    return anchors.round() if config.rounding == "torchvision" else anchors


def grid_anchors(cell: Tensor, grid: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Cell anchors (B, 4) laid on a grid of (rows, columns) with strides (y, x) -> (rows * columns * B,
    4).
    """
    y = torch.arange(grid[0], dtype=torch.float32, device=cell.device) * stride[0]
    x = torch.arange(grid[1], dtype=torch.float32, device=cell.device) * stride[1]
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")  # rows first
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], -1).view(-1, 1, 4)
    return (shifts + cell).view(-1, 4)


class Grids(ABC):
    """What stands on the cells of every level, by padded picture size; a small cache (least recently used out
    first) keeps it.

    Attributes:
        strides: pixels a cell of each level.
        per_cell: how many stand on a cell.
    """

    def __init__(self, strides: Sequence[int], per_cell: int) -> None:
        """Build for the levels with ``strides``."""
        self.strides = list(strides)
        self.per_cell = per_cell
        self._cache: OrderedDict[tuple[int, int, str], Tensor] = OrderedDict()

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """(rows, columns) of each level for a padded picture."""
        return [(-(-height // s), -(-width // s)) for s in self.strides]

    def level_sizes(self, height: int, width: int) -> tuple[int, ...]:
        """A of each level for a padded picture."""
        return tuple(rows * columns * self.per_cell for rows, columns in self.grids(height, width))

    def __call__(self, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
        """All of a padded picture -> (A, ...) float32, level after level, rows first."""
        key = (height, width, str(device))
        placed = self._cache.pop(key, None)  # in one go: other threads may look at the same time
        if placed is None:
            placed = self._place(height, width).to(device)
        self._cache[key] = placed  # as the latest
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return placed

    @abstractmethod
    def _place(self, height: int, width: int) -> Tensor:
        """What the cache does not have, on the host."""


class Anchors(Grids):
    """Anchors of a padded picture size: (A, 4).

    Attributes:
        config: sizes, ratios, rounding, centre.
    """

    def __init__(self, config: AnchorConfig, strides: Sequence[int]) -> None:
        """Build for the levels with ``strides``.

        Raises:
            ValueError: when the configuration has sizes for another number of levels.
        """
        if len(config.sizes) != len(strides):
            names = [f"stride {s}" for s in strides]
            raise ValueError(
                f"anchor sizes for {len(config.sizes)} levels, the features have {len(strides)}: {names}"
            )
        super().__init__(strides, per_cell=len(config.ratios) * len(config.sizes[0]))
        self.config = config

    def _place(self, height: int, width: int) -> Tensor:
        levels = []
        for sizes, stride, grid in zip(
            self.config.sizes, self.strides, self.grids(height, width), strict=True
        ):
            step = (stride, stride)
            if self.config.stride == "from_padding":
                # torchvision divides the padded size by the grid: P6 of 800 x 1088 gets (61, 64)
                step = (height // grid[0], width // grid[1])
            levels.append(grid_anchors(cell_anchors(sizes, self.config, stride), grid, step))
        return torch.cat(levels)
