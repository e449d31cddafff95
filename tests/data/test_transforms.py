"""Each transform on point sets and boxes; nothing is mutated, everything repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from frcnn.config import DataConfig
from frcnn.data.transforms import (
    Variation,
    draw_variation,
    flip_boxes,
    flip_image,
    photometric,
    resize_boxes,
    sample_generator,
    scale_jitter,
    vary_image,
)

WIDTH, HEIGHT = 64, 48
NONE = np.zeros((0, 4), np.float32)


@st.composite
def box_sets(draw: st.DrawFn) -> np.ndarray:
    """Boxes on a grid of 1/8 px inside the picture, so that float32 arithmetic is exact."""
    raw = draw(
        arrays(np.int32, st.tuples(st.integers(0, 6), st.just(4)), elements=st.integers(0, 8 * HEIGHT))
    )
    low, high = np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])
    return (np.concatenate([low, high], 1) / 8).astype(np.float32)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def test_no_boxes_pass_every_transform() -> None:
    assert flip_boxes(NONE, 10).shape == (0, 4)
    boxes, ignore = resize_boxes(NONE, np.zeros(0, bool), (10, 10), (5, 5))
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32
    assert ignore.shape == (0,)


@given(box_sets())
def test_flip_twice_is_identity_and_keeps_the_input(boxes: np.ndarray) -> None:
    before = boxes.copy()
    once = flip_boxes(boxes, WIDTH)
    assert np.array_equal(flip_boxes(once, WIDTH), boxes)
    assert np.array_equal(boxes, before)
    assert (once[:, 2] >= once[:, 0]).all()
    assert np.array_equal(once[:, 2] - once[:, 0], boxes[:, 2] - boxes[:, 0])


def test_flip_image_twice_is_identity() -> None:
    image = picture()
    assert flip_image(flip_image(image)).tobytes() == image.tobytes()


@given(st.sets(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), min_size=1, max_size=8))
def test_a_flipped_box_holds_the_flipped_points(points: set[tuple[int, int]]) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y in points:
        pixels[y, x] = 255
    xs, ys = zip(*points, strict=True)
    tight = np.array([[min(xs), min(ys), max(xs) + 1, max(ys) + 1]], np.float32)
    flipped = np.asarray(flip_image(Image.fromarray(pixels)))[..., 0]
    rows, columns = np.nonzero(flipped)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert flip_boxes(tight, WIDTH)[0].tolist() == expected


@given(box_sets(), st.integers(1, 200), st.integers(1, 200), st.integers(0, 63))
def test_resize_carries_points_and_ignore_flags(
    boxes: np.ndarray, height: int, width: int, bits: int
) -> None:
    ignore = np.array([bits >> i & 1 for i in range(len(boxes))], bool)
    before, flags = boxes.copy(), ignore.copy()
    resized, now = resize_boxes(boxes, ignore, (HEIGHT, WIDTH), (height, width))
    assert np.array_equal(boxes, before)
    assert np.array_equal(ignore, flags)
    np.testing.assert_allclose(resized[:, [0, 2]], boxes[:, [0, 2]] * (width / WIDTH), rtol=1e-6)
    np.testing.assert_allclose(resized[:, [1, 3]], boxes[:, [1, 3]] * (height / HEIGHT), rtol=1e-6)
    assert now[ignore].all(), "an ignored box stays ignored"
    sides = (resized[:, 2:] - resized[:, :2]).min(1, initial=np.inf)
    assert np.array_equal(now, ignore | (sides < 1))


@given(box_sets())
def test_flip_commutes_with_resize(boxes: np.ndarray) -> None:
    ignore = np.zeros(len(boxes), bool)
    a = flip_boxes(resize_boxes(boxes, ignore, (HEIGHT, WIDTH), (HEIGHT * 2, WIDTH * 2))[0], WIDTH * 2)
    b = resize_boxes(flip_boxes(boxes, WIDTH), ignore, (HEIGHT, WIDTH), (HEIGHT * 2, WIDTH * 2))[0]
    assert np.array_equal(a, b)


def test_generators_repeat_and_differ() -> None:
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0), (-1, 0, 0)]
    draws = [sample_generator(*place).random(4).tolist() for place in places]
    assert draws == [sample_generator(*place).random(4).tolist() for place in places]
    assert len({tuple(d) for d in draws}) == len(places)


def test_no_augmentation_is_none_at_all() -> None:
    config = DataConfig(flip=0)
    image = picture()
    for index in range(20):
        variation = draw_variation(config, sample_generator(0, 0, index))
        assert variation == Variation()
        assert vary_image(image, variation) is image
    assert scale_jitter((1.0, 1.0), sample_generator(0)) == 1.0


def test_draws_stay_in_range_and_do_not_depend_on_each_other() -> None:
    full = DataConfig(flip=0.5, brightness=0.2, contrast=0.3, saturation=0.4)
    variations = [draw_variation(full, sample_generator(1, 0, i)) for i in range(300)]
    for name in ("brightness", "contrast", "saturation"):
        values = np.array([getattr(v, name) for v in variations]) - 1
        limit = getattr(full, name)
        assert np.abs(values).max() <= limit
        assert values.min() < -0.9 * limit
        assert values.max() > 0.9 * limit
    flips = [v.flip for v in variations]
    assert 0.4 < np.mean(flips) < 0.6
    only_flip = [draw_variation(DataConfig(), sample_generator(1, 0, i)).flip for i in range(300)]
    assert only_flip == flips
    factors = [scale_jitter((0.8, 1.25), sample_generator(2, i)) for i in range(200)]
    assert 0.8 <= min(factors) < 0.83
    assert 1.22 < max(factors) <= 1.25


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1.0, 1.0, 1.0), [[100, 50, 0], [200, 250, 240]]),
        ((0.5, 1.0, 1.0), [[50, 25, 0], [100, 125, 120]]),
        ((2.0, 1.0, 1.0), [[200, 100, 0], [255, 255, 255]]),
        ((1.0, 0.0, 1.0), [[146, 146, 146], [146, 146, 146]]),
        ((1.0, 1.0, 0.0), [[59, 59, 59], [234, 234, 234]]),
    ],
)
def test_photometric_values(factors: tuple[float, float, float], expected: list[list[int]]) -> None:
    image = Image.fromarray(np.array([[[100, 50, 0], [200, 250, 240]]], np.uint8))
    before = np.array(image)
    result = np.asarray(photometric(image, *factors))[0].astype(int)
    assert np.abs(result - np.array(expected)).max() <= 1
    assert np.array_equal(np.array(image), before)


def test_vary_image_never_changes_the_input() -> None:
    image = picture()
    before = np.array(image)
    result = vary_image(image, Variation(True, 1.2, 0.8, 1.3))
    assert result.size == image.size
    assert np.array_equal(np.array(image), before)
    assert not np.array_equal(np.asarray(result), before)
