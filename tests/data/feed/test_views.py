"""What a view shows: boxes follow the pixels, what is cut is ignored, flags travel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from frcnn.data.feed.views import View, clip_patch, finished, joined, looked_at, paint, plain_view, take
from frcnn.data.sample import Sample

HEIGHT, WIDTH = 60, 80
GROUND = (9, 8, 7)


def sample(boxes: list[list[float]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> Sample:
    count = len(boxes)
    return Sample(
        Path("x"),
        1,
        size,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count, dtype=np.int64),
        np.zeros(count, bool),
        np.linspace(0, 0.5, count, dtype=np.float32),
        (np.arange(count) % 4).astype(np.int8),
        np.arange(count) % 2 == 1,
    )


def picture_of(boxes: list[list[float]]) -> Image.Image:
    """Black, with the boxes (of whole pixels) in white."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x1, y1, x2, y2 in np.array(boxes, int).reshape(-1, 4):
        pixels[y1:y2, x1:x2] = 255
    return Image.fromarray(pixels)


def painted(view: View, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(paint(view, size, lambda *_: image, GROUND, lambda piece: piece))


def test_a_picture_without_boxes() -> None:
    view = plain_view(3, sample([]))
    assert view.visible().shape == (0,)
    assert not view.objects(0.3).any()
    seen = looked_at(view, np.array([10.0, 10, 50, 40]))
    result, given = finished(seen, 0.3)
    assert result.boxes.shape == (0, 4)
    assert given is None
    assert joined(result, []).boxes.shape == (0, 4)


def test_a_plain_view_is_the_picture() -> None:
    boxes = [[10, 10, 30, 40], [-5, 20, 20, 90]]
    view = plain_view(0, sample(boxes))
    image = picture_of([[10, 10, 30, 40]])
    assert np.array_equal(painted(view, image, (HEIGHT, WIDTH)), np.asarray(image))
    result, _ = finished(view, 0.3)
    assert result.boxes.tolist() == [[10, 10, 30, 40], [0, 20, 20, 60]]
    assert not result.ignore.any(), "what lies beyond the border in the file was never cut here"
    assert result.truncated.tolist() == [0, 0.5]


@given(
    st.integers(0, 50),
    st.integers(0, 40),
    st.integers(10, 30),
    st.integers(10, 20),
    st.integers(0, 40),
    st.integers(0, 30),
)
def test_boxes_and_pixels_of_a_crop_equal_torchvisions(
    left: int, top: int, wide: int, high: int, x: int, y: int
) -> None:
    """The window is stretched to the view's size, as torchvision's crop and resize do in two steps."""
    box = [float(x), float(y), float(x + 30), float(y + 25)]
    view = looked_at(plain_view(0, sample([box])), np.array([left, top, left + wide, top + high], float))
    corners = tv_tensors.BoundingBoxes(torch.tensor([box]), format="XYXY", canvas_size=(HEIGHT, WIDTH))
    cropped = v2.clamp_bounding_boxes(v2.crop(corners, top, left, high, wide))
    expected = v2.resize(cropped, [HEIGHT, WIDTH]).as_subclass(torch.Tensor).numpy()[0]
    inside = max(0, min(x + 30, left + wide) - max(x, left)) * max(0, min(y + 25, top + high) - max(y, top))
    if inside:
        np.testing.assert_allclose(view.sample.boxes[0], expected, atol=1e-3)
    assert view.visible()[0] == pytest.approx(inside / 750, abs=1e-4)


def test_pixels_follow_a_window_that_reaches_beyond() -> None:
    boxes = [[20.0, 10, 40, 30]]
    window = np.array([-20.0, -15, 100, 75])  # 1.5 times the sides
    view = looked_at(plain_view(0, sample(boxes)), window)
    pixels = painted(view, picture_of(boxes), (120, 160))
    ratio = 160 / 120
    expected = (np.array([20, 10, 40, 30]) - window[[0, 1, 0, 1]]) * ratio
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, expected, atol=1.5)
    np.testing.assert_allclose(view.sample.boxes[0] * 2, expected, atol=1e-3)
    assert tuple(pixels[2, 2]) == tuple(pixels[-3, -3]) == GROUND
    assert (pixels[90:94, 100:104] == 0).all(), "the picture is black where it is"


@pytest.mark.parametrize(
    ("left", "ignored", "count"), [(0, [False], 1), (26, [False], 1), (28, [True], 1), (50, [], 0)]
)
def test_what_is_cut_below_a_share_is_ignored(left: int, ignored: list[bool], count: int) -> None:
    one = sample([[20, 20, 30, 40]])
    view = looked_at(plain_view(0, one), np.array([left, 0.0, left + 30, 60]))
    result, _ = finished(view, 0.3)
    assert result.ignore.tolist() == ignored
    assert len(result.boxes) == count
    assert not one.ignore.any(), "the input stays as it was"
    if left == 26:
        assert result.truncated[0] == pytest.approx(0.6), "0.4 of the box is left"


def test_flags_and_proposals_travel() -> None:
    boxes = [[2.0, 2, 6, 6], [30, 30, 50, 50], [60, 40, 78, 58]]
    given = np.array([[0, 0, 5, 5], [25, 25, 60, 60]], np.float32)
    view = looked_at(plain_view(0, sample(boxes), given), np.array([20.0, 15, 80, 60]))
    result, proposals = finished(view, 0.3)
    assert result.labels.tolist() == [1, 2]
    assert result.occluded.tolist() == [1, 2]
    assert result.crowd.tolist() == [True, False]
    assert result.truncated.tolist() == [0.25, 0.5]
    assert proposals is not None
    np.testing.assert_allclose(proposals, [[5 * 80 / 60, 10 * 60 / 45, 40 * 80 / 60, 60]], rtol=1e-5)


def test_rows_of_a_sample() -> None:
    three = sample([[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]])
    assert take(three, np.array([2, 0])).labels.tolist() == [2, 0]
    assert take(three, np.array([True, False, False])).truncated.tolist() == [0]
    both = joined(three, [take(three, np.array([1]))])
    assert both.labels.tolist() == [0, 1, 2, 1]
    assert both.crowd.tolist() == [False, True, False, True]


def test_a_patch_outside_is_nothing() -> None:
    patch = plain_view(0, sample([])).patches[0]
    assert clip_patch(patch, np.array([80.0, 0, 90, 60])) is None
    part = clip_patch(replace(patch, soft=np.full(4, 3.0)), np.array([40.0, 0, 90, 60]))
    assert part is not None
    assert part.window.tolist() == part.place.tolist() == [40, 0, 80, 60]
    assert part.soft.tolist() == [0, 3, 3, 3], "no fading where it was cut"
