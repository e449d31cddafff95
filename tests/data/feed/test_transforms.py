"""Each transform on point sets and boxes; nothing is mutated, everything repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from frcnn.config import Config, DataConfig, PreprocessConfig
from frcnn.data.feed.transforms import (
    Variation,
    draw_variation,
    flip_boxes,
    flip_image,
    largest_scale,
    orient_boxes,
    orient_image,
    photometric,
    recolour,
    resize_boxes,
    sample_generator,
    scale_jitter,
    turned_chance,
    vary_image,
    vary_light,
)
from frcnn.model.preprocess import resize_image

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
    assert orient_boxes(NONE, (10, 20), True, 3).shape == (0, 4)
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


def test_colours_are_varied_at_the_size_that_is_needed() -> None:
    image = picture()
    light = {"brightness": 1.3, "contrast": 0.8, "saturation": 1.2}
    preset, recipe = Variation(**light, hue=0.1), Variation(**light)
    small = image.resize((16, 12), Image.Resampling.BILINEAR)
    assert vary_image(image, preset, (12, 16)).tobytes() == vary_light(small, preset).tobytes()
    assert vary_image(image, replace(preset, turns=1), (16, 12)).size == (12, 16)
    assert vary_image(image, preset).size == vary_image(image, preset, (96, 128)).size == image.size
    assert vary_image(image, recipe, (12, 16)).tobytes() == vary_image(image, recipe).tobytes()
    assert vary_image(image, recipe, (11, 16)).size == (16, 11), "more than 16 times as many pixels"
    assert vary_image(image, Variation(), (12, 16)) is image
    spec = PreprocessConfig(fixed_size=(6, 8))
    for variation in (Variation(), Variation(hue=0.0)):
        resized = resize_image(vary_image(image, variation, (6, 8)), spec, (6, 8))
        assert torch.equal(resized, resize_image(image, spec, (6, 8))), "in two steps as in one"


def as_v2(boxes: np.ndarray) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes.copy()), format="XYXY", canvas_size=(HEIGHT, WIDTH)
    )


@given(box_sets(), st.booleans(), st.integers(0, 3))
def test_turns_and_flips_equal_torchvisions(boxes: np.ndarray, flip: bool, turns: int) -> None:
    image = picture()
    pixels, corners = torch.from_numpy(np.array(image)).permute(2, 0, 1), as_v2(boxes)
    if flip:
        pixels, corners = v2.horizontal_flip(pixels), v2.horizontal_flip(corners)
    if turns:
        pixels = torch.rot90(pixels, turns, (1, 2))
        corners = v2.rotate(corners, 90 * turns, expand=True)
    ours = orient_image(image, flip, turns)
    assert np.array_equal(np.asarray(ours), pixels.permute(1, 2, 0).numpy())
    expected = corners.as_subclass(torch.Tensor).numpy()
    if len(boxes):  # v2 finds no size for a turned set of no boxes
        np.testing.assert_allclose(orient_boxes(boxes, (HEIGHT, WIDTH), flip, turns), expected, atol=1e-3)


@given(box_sets())
def test_flip_and_resize_of_boxes_equal_torchvisions(boxes: np.ndarray) -> None:
    flipped = v2.horizontal_flip(as_v2(boxes)).as_subclass(torch.Tensor).numpy()
    assert np.array_equal(flip_boxes(boxes, WIDTH), flipped)
    resized = v2.resize(as_v2(boxes), [30, 100]).as_subclass(torch.Tensor).numpy()
    ours = resize_boxes(boxes, np.zeros(len(boxes), bool), (HEIGHT, WIDTH), (30, 100))[0]
    np.testing.assert_allclose(ours, resized, rtol=1e-5, atol=1e-4)


def test_directions_are_as_likely_as_asked() -> None:
    config = DataConfig(flip=0, quarter_turns=0.75)
    assert turned_chance(config) == pytest.approx(0.5)
    counts = np.zeros(4)
    for i in range(2000):
        generator = sample_generator(0, i)
        turned = bool(generator.random() < turned_chance(config))
        counts[draw_variation(config, sample_generator(1, i), turned).turns] += 1
    assert np.abs(counts / 2000 - 0.25).max() < 0.04
    upside_down = [draw_variation(DataConfig(flip=0, flip_vertical=1), sample_generator(i)) for i in range(9)]
    assert all((v.flip, v.turns) == (True, 2) for v in upside_down), "flipped and turned by half"
    image = picture()
    assert np.array_equal(np.asarray(vary_image(image, upside_down[0])), np.asarray(image)[::-1])


def test_a_part_changes_no_other_draw() -> None:
    every = DataConfig(augment="aerial")
    for i in range(50):
        full = draw_variation(every, sample_generator(1, 0, i))
        less = draw_variation(DataConfig(augment="aerial", flip_vertical=0, hue=0), sample_generator(1, 0, i))
        assert (full.brightness, full.contrast, full.saturation) == (
            less.brightness,
            less.contrast,
            less.saturation,
        )
        assert full.turns % 2 == less.turns % 2
        assert less.hue == 0


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.0), (1.1, 0.8, 1.0), (1.0, 1.0, 0.5), (0.9, 1.1, 1.2)]
)
def test_one_matrix_equals_three_steps(factors: tuple[float, float, float]) -> None:
    pixels = np.random.default_rng(0).integers(60, 180, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = np.asarray(recolour(image, *factors, 0.0)).astype(int)
    assert np.abs(ours - np.asarray(photometric(image, *factors)).astype(int)).max() <= 2
    assert np.array_equal(np.asarray(image), pixels)


def test_hue_turns_colours_and_leaves_gray() -> None:
    image = Image.fromarray(np.array([[[120, 120, 120], [150, 90, 90]]], np.uint8))
    assert recolour(image, 1, 1, 1, 0) is image
    turned = np.asarray(recolour(image, 1, 1, 1, 1 / 3)).astype(int)[0]
    assert np.abs(turned[0] - 120).max() <= 1
    assert turned[1].argmax() == 1, "red becomes green"
    back = np.asarray(recolour(Image.fromarray(turned[None].astype(np.uint8)), 1, 1, 1, -1 / 3)).astype(int)[
        0
    ]
    assert np.abs(back - np.asarray(image)[0]).max() <= 3


def test_the_largest_scale() -> None:
    assert largest_scale(Config()) == 1
    assert largest_scale(Config(data=DataConfig(scale_jitter=(0.5, 0.8)))) == 1
    assert largest_scale(Config(data=DataConfig(scale_jitter=(0.8, 1.25), multi_scale=(400, 1600)))) == 2.5
