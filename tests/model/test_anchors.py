"""Room 5: layout, torchvision's anchors, the cache."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from frcnn.config import AnchorConfig
from frcnn.model.anchors import CACHE_SIZE, Anchors, cell_anchors, grid_anchors
from frcnn.recipes import r50_fpn

STRIDES = [4, 8, 16, 32, 64]


def test_no_cells_give_no_anchors() -> None:
    config = AnchorConfig()
    cell = cell_anchors((32,), config, 4)
    for grid in ((0, 0), (0, 3), (3, 0)):
        assert grid_anchors(cell, grid, (4, 4)).shape == (0, 4)
    assert grid_anchors(cell[:0], (2, 3), (4, 4)).shape == (0, 4)


def test_rows_come_first_on_a_grid_that_is_not_square() -> None:
    config = AnchorConfig(sizes=((16, 32),), ratios=(1.0, 2.0))
    boxes = Anchors(config, [8])(16, 40).view(2, 5, 4, 4)  # rows, columns, ratios x sizes
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    for row in range(2):
        for column in range(5):
            expected = torch.tensor([8.0 * column + 4, 8.0 * row + 4]).expand(4, 2)
            torch.testing.assert_close(centres[row, column], expected)


def test_ratios_are_height_over_width_and_keep_the_area() -> None:
    config = AnchorConfig(ratios=(0.5, 1.0, 2.0))
    cell = cell_anchors((32, 64), config, 16)
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(-1)
    torch.testing.assert_close(height / width, torch.tensor([0.5, 0.5, 1, 1, 2, 2]))
    torch.testing.assert_close(width * height, torch.tensor([32.0, 64] * 3) ** 2)


@pytest.mark.parametrize("centre", [0.0, 0.25, 0.5])
def test_centre_is_a_share_of_the_stride(centre: float) -> None:
    cell = cell_anchors((32,), AnchorConfig(centre=centre), 16)
    assert ((cell[:, :2] + cell[:, 2:]) / 2).eq(16 * centre).all()


@pytest.mark.parametrize("size", [(800, 1088), (800, 1344), (64, 96), (320, 448), (32, 32)])
def test_equals_torchvision_also_where_the_stride_comes_from_the_padding(size: tuple[int, int]) -> None:
    config = r50_fpn().anchors
    ours = Anchors(config, STRIDES)
    maps = [torch.empty(1, 1, *grid) for grid in ours.grids(*size)]
    generator = AnchorGenerator(config.sizes, (config.ratios,) * 5)
    theirs = generator(ImageList(torch.empty(1, 3, *size), [size]), maps)[0]
    assert ours(*size).equal(theirs)
    assert sum(ours.level_sizes(*size)) == len(theirs)


def test_the_last_level_of_800_x_1088_has_strides_61_and_64() -> None:
    config = r50_fpn().anchors
    anchors = Anchors(config, STRIDES)
    assert anchors.grids(800, 1088)[-1] == (13, 17)
    last = anchors(800, 1088)[-13 * 17 * 3 :].view(13, 17, 3, 4)
    assert (last[1, 0] - last[0, 0]).tolist() == [[0, 61, 0, 61]] * 3
    assert (last[0, 1] - last[0, 0]).tolist() == [[64, 0, 64, 0]] * 3


def test_declared_strides_do_not_depend_on_the_padding() -> None:
    anchors = Anchors(AnchorConfig(), STRIDES)
    last = anchors(800, 1088)[-13 * 17 * 3 :].view(13, 17, 3, 4)
    assert (last[1, 0] - last[0, 0]).flatten().tolist() == pytest.approx([0, 64] * 6, abs=1e-4)


def test_the_cache_returns_the_same_tensor_and_stays_small() -> None:
    anchors = Anchors(AnchorConfig(), STRIDES)
    first = anchors(32, 32)
    assert anchors(32, 32) is first
    for i in range(2, CACHE_SIZE + 1):
        anchors(32, 32 * i)
        assert anchors(32, 32) is first, "the least recently used goes, not the first"
    assert len(anchors._cache) == CACHE_SIZE == 16
    for i in range(100):
        anchors(64, 32 + 32 * i)
    assert len(anchors._cache) == CACHE_SIZE
    again = anchors(32, 32)
    assert again is not first and again.equal(first)


def test_wrong_number_of_levels_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"sizes for 5 levels, the features have 2: \['stride 8', 'stride 16'\]"
    ):
        Anchors(AnchorConfig(), [8, 16])
