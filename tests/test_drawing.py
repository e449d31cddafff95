from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from frcnn.drawing import COLORS, annotate, class_color


def test_nothing_to_draw_is_a_copy() -> None:
    image = Image.new("RGB", (30, 20), (9, 9, 9))
    shown = annotate(image, [], [], [])
    assert shown is not image and np.array_equal(shown, image)
    assert annotate(Image.new("L", (5, 5)), [], [], []).mode == "RGB"


def test_the_line_lies_on_the_box_and_the_picture_is_not_changed() -> None:
    pixels = np.zeros((200, 300, 3), np.uint8)
    shown = np.asarray(annotate(pixels, [[50, 60, 150, 160]], [1], ["a", "b"]))
    assert not pixels.any() and shown.shape == pixels.shape
    for y, x in ((60, 140), (159, 140), (110, 50), (110, 149)):
        assert tuple(shown[y, x]) == COLORS[1]
    assert not shown[70:150, 60:140].any()  # nothing inside
    assert not shown[165:].any() and not shown[:, 155:].any()  # half-open: nothing beyond


def test_classes_differ_and_so_do_ignored_boxes() -> None:
    colors = [class_color(k) for k in range(35)]
    assert len(set(colors)) == 35 and class_color(35) == colors[0]
    near = [sum(abs(a - b) for a, b in zip(p, q, strict=True)) for p, q in itertools.pairwise(colors)]
    assert min(near) > 60
    pixels = np.full((60, 60, 3), 128, np.uint8)
    boxes = [[10, 20, 50, 50]]
    ignored = np.asarray(annotate(pixels, boxes, [-1], ["a"], ignore=[True])).reshape(-1, 3)
    assert (ignored != 128).any() and (np.ptp(ignored, axis=1) == 0).all()  # gray, without a tag


def test_the_best_score_is_on_top() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    boxes = [[50, 50, 250, 250]] * 2
    shown = np.asarray(annotate(pixels, boxes, [0, 1], ["a", "b"], [0.9, 0.2]))
    assert tuple(shown[249, 200]) == COLORS[0]


@pytest.mark.parametrize("size", [(16, 16), (64, 40), (3000, 2000)])
def test_tags_stay_inside_whatever_the_size(size: tuple[int, int]) -> None:
    """The tag of a box at each corner, and beyond it, is as large as that of one in the middle."""
    width, height = size
    name = "long name " * 20
    spots = [(0.4, 0.4), (-0.1, -0.1), (0.9, -0.1), (-0.1, 0.9), (0.9, 0.9)]
    counts = []
    for x, y in spots:
        box = [x * width, y * height, (x + 0.2) * width, (y + 0.2) * height]
        shown = np.asarray(annotate(Image.new("RGB", size), [box], [3], [name] * 4, [0.5]))
        counts.append(int((shown == COLORS[3]).all(-1).sum()))
    assert min(counts) > 0.7 * counts[0] > 0


def test_regions_without_area_and_odd_names() -> None:
    image = Image.new("RGB", (50, 50))
    shown = annotate(image, [[5, 5, 5, 5], [-9, -9, -5, -5], [20, 20, 10, 10]], [0, 0, 0], ["two\nlines"])
    assert np.asarray(shown).any()
    assert np.asarray(annotate(image, [[5, 25, 45, 45]], [0], [""])).any()
