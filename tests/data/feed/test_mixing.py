"""Crops and mixtures: objects survive, repeat, and are where the pixels are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frcnn.config import DataConfig
from frcnn.data.feed.mixing import composes, mixes, varied_view
from frcnn.data.feed.transforms import sample_generator
from frcnn.data.feed.views import View, finished, paint, plain_view
from frcnn.data.sample import Sample

SIZES = [(60, 80), (80, 60), (64, 64), (50, 100)]
OFF = DataConfig(augment="none")
PARTS = {
    "mosaic": DataConfig(augment="none", mosaic=1),
    "copy_paste": DataConfig(augment="none", copy_paste=1),
    "large_scale_jitter": DataConfig(augment="none", large_scale_jitter=(0.5, 2.0)),
    "zoom_out": DataConfig(augment="none", zoom_out=1),
    "iou_crop": DataConfig(augment="none", iou_crop=1),
    "all": DataConfig(
        augment="none", mosaic=1, copy_paste=1, large_scale_jitter=(0.5, 2.0), zoom_out=1, iou_crop=1
    ),
}


def sample(index: int, boxes: int = 2) -> Sample:
    """Box 0 at the upper left, box 1 in the middle; the label tells the picture."""
    height, width = SIZES[index]
    corners = [[4, 5, 24, 25], [width // 2, height // 2, width // 2 + 16, height // 2 + 12]][:boxes]
    labels = np.full(boxes, index, np.int64)
    flat = np.array(corners, np.float32).reshape(-1, 4)
    return Sample(Path(f"{index}"), index + 1, SIZES[index], flat, labels, np.zeros(boxes, bool))


def picture(index: int) -> Image.Image:
    """Gray, the boxes in the colour of the picture."""
    pixels = np.full((*SIZES[index], 3), 100, np.uint8)
    for x1, y1, x2, y2 in sample(index).boxes.astype(int):
        pixels[y1:y2, x1:x2] = 180 + 20 * index
    return Image.fromarray(pixels)


def view_of(config: DataConfig, epoch: int, index: int = 0, boxes: int = 2, mix: bool = True) -> View:
    def other(i: int) -> Sample:
        return sample(i)

    plain = plain_view(index, sample(index, boxes))
    return varied_view(plain, config, 4, other, partial(sample_generator, 0, epoch, index), mix)


def test_nothing_configured_is_the_same_object() -> None:
    assert not composes(OFF)
    plain = plain_view(0, sample(0))
    assert varied_view(plain, OFF, 4, sample, partial(sample_generator, 0)) is plain
    assert composes(PARTS["zoom_out"])
    assert [name for name, config in PARTS.items() if mixes(config)] == ["mosaic", "copy_paste", "all"]


@pytest.mark.parametrize("part", PARTS)
def test_a_picture_without_boxes_passes(part: str) -> None:
    for epoch in range(5):
        view = view_of(PARTS[part], epoch, boxes=0)
        result, _ = finished(view, 0.3)
        assert view.size == SIZES[0]
        assert len(result.boxes) == len(result.labels)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_keeps_size_boxes_and_pixels_together(part: str) -> None:
    changed, shown = 0, 0
    for epoch in range(30):
        for index in range(4):
            view = view_of(PARTS[part], epoch, index)
            again = view_of(PARTS[part], epoch, index)
            assert np.array_equal(view.sample.boxes, again.sample.boxes), "everything repeats"
            assert view.size == SIZES[index]
            result, _ = finished(view, 0.3)
            height, width = view.size
            boxes = result.boxes
            assert (boxes >= 0).all() and (boxes[:, 2:] <= [width, height]).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (~result.ignore).any(), "the last object never goes"
            changed += not np.array_equal(boxes, sample(index).boxes)
            pixels = np.asarray(
                paint(view, (height * 4, width * 4), lambda i, _: picture(i), (0, 0, 0), lambda p: p)
            )
            for box, label in zip(boxes[:1] * 4, result.labels[:1], strict=True):  # the first is never hidden
                x, y = ((box[:2] + box[2:]) / 2).astype(int)
                if part not in ("copy_paste", "all") and (box[2:] - box[:2]).min() > 8:
                    assert abs(int(pixels[y, x, 0]) - (180 + 20 * label)) <= 2
                    shown += 1
    assert changed > 60
    assert shown > 60 or part in ("copy_paste", "all")


def test_a_mosaic_shows_four_pictures_and_every_pixel() -> None:
    view = view_of(PARTS["mosaic"], 0)
    assert len(view.patches) == 4
    covered = sum(np.prod(p.place[2:] - p.place[:2]) for p in view.patches)
    assert covered == pytest.approx(60 * 80)
    for patch in view.patches:
        sides, window = patch.place[2:] - patch.place[:2], patch.window[2:] - patch.window[:2]
        assert sides[0] / window[0] == pytest.approx(sides[1] / window[1]), "nothing is stretched"
        assert (patch.window >= -1e-9).all() and (patch.window[3], patch.window[2]) <= patch.source
    assert view_of(PARTS["mosaic"], 0, mix=False).patches[0].index == 0
    assert len(view_of(PARTS["mosaic"], 0, mix=False).patches) == 1


def test_pasted_objects_hide_little_and_come_with_labels() -> None:
    pasted = 0
    for epoch in range(60):
        view = view_of(PARTS["copy_paste"], epoch)
        result = view.sample
        assert result.boxes[:2].tolist() == sample(0).boxes.tolist(), "the picture's own stay"
        for box, label, patch in zip(result.boxes[2:], result.labels[2:], view.patches[1:], strict=True):
            pasted += 1
            assert label == patch.index
            low, high = np.maximum(result.boxes[:2, :2], box[:2]), np.minimum(result.boxes[:2, 2:], box[2:])
            own = (result.boxes[:2, 2:] - result.boxes[:2, :2]).prod(1)
            assert ((high - low).clip(0).prod(1) <= 0.3 * own + 1e-3).all()
    assert pasted > 30


def test_a_crop_leaves_an_object_by_a_share() -> None:
    sides = []
    for epoch in range(60):
        view = view_of(PARTS["iou_crop"], epoch)
        window = view.patches[0].window
        share = (window[2:] - window[:2]) / (80, 60)
        assert (share >= 0.3 - 1e-6).all() and (share <= 1 + 1e-6).all()
        assert 3 / 4 - 1e-6 <= share[0] / share[1] <= 4 / 3 + 1e-6
        assert view.objects(0.3).any()
        sides.append(share[0])
    assert min(sides) < 0.6


def test_large_scale_jitter_stays_in_its_limits() -> None:
    factors = []
    for epoch in range(200):
        view = view_of(PARTS["large_scale_jitter"], epoch)
        factors.append(float((view.whole[0, 2] - view.whole[0, 0]) / 20))
    assert 0.5 <= min(factors) < 0.6
    assert 1.8 < max(factors) <= 2.0 + 1e-6


def test_an_unreadable_header_is_no_partner() -> None:
    def unknown(index: int) -> Sample:
        bad = sample(index)
        return Sample(bad.path, bad.image_id, (0, 0), bad.boxes[:0], bad.labels[:0], bad.ignore[:0])

    plain = plain_view(0, sample(0))
    for epoch in range(5):
        view = varied_view(plain, PARTS["all"], 4, unknown, partial(sample_generator, 0, epoch, 0))
        assert {patch.index for patch in view.patches} == {0}
