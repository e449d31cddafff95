"""An object on a seam is found once, and neighbours stay apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.feed.tiles import tile_windows
from frcnn.model.seams import Found, Tile, merge_pieces, merge_tiles, seam_iou
from frcnn.recipes import recipe

TILE, OVERLAP = 200, 0.2
NOTHING = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(c[:, 2:] - c[:, :2]).prod(1) for c in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def seen(
    objects: np.ndarray, labels: np.ndarray, windows: np.ndarray, noise: float, rng: np.random.Generator
) -> list[Tile]:
    """What a detector finds that sees every object of which a tile shows 30 %, its sides moved by noise."""
    tiles = []
    for x1, y1, x2, y2 in windows.tolist():
        cut = objects.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
        shown = (cut[:, 2:] - cut[:, :2]).prod(1) >= 0.3 * (objects[:, 2:] - objects[:, :2]).prod(1)
        boxes = cut[shown] - [x1, y1, x1, y1]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = (boxes + rng.normal(0, noise, boxes.shape) * sides).clip(0, [x2 - x1, y2 - y1] * 2)
        scores = rng.uniform(0.3, 1, len(boxes))
        found = Found(boxes.astype(np.float32), scores.astype(np.float32), labels[shown])
        tiles.append(Tile((x1, y1, x2, y2), found))
    return tiles


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects (g, 4) no longer than a tile, which overlap no other one of their class; labels; tiles."""
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 900, 2)
    count = int(rng.integers(1, 30))
    sides = np.minimum(np.exp(rng.uniform(2, 5.3, (count, 1)) + rng.normal(0, 0.3, (count, 2))), TILE)
    sides = np.minimum(sides, size * 0.9)
    corners = rng.random((count, 2)) * (size - sides)
    objects, labels = np.concatenate([corners, corners + sides], 1), rng.integers(0, 3, count)
    kept: list[int] = []
    for i in range(count):
        same = [j for j in kept if labels[j] == labels[i]]
        if not same or overlaps(objects[[i]], objects[same]).max() < 0.02:
            kept.append(i)
    windows = tile_windows((int(size[1]), int(size[0])), TILE, OVERLAP)
    return objects[kept].astype(np.float32), labels[kept], windows


def test_nothing_found() -> None:
    windows = tile_windows((300, 300), TILE, OVERLAP).tolist()
    merged = merge_pieces([Tile((a, b, c, d), NOTHING) for a, b, c, d in windows], 0.5)
    assert merged.boxes.shape == (0, 4)
    assert (merged.boxes.dtype, merged.scores.dtype, merged.labels.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )


def test_a_single_tile_is_left_alone() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 50, 51]], np.float32)
    found = Found(boxes, np.array([0.1, 0.9], np.float32), np.array([0, 0]))
    assert merge_tiles(found, np.zeros(2, np.int64), np.array([[0, 0, 100, 100]]), 0.5) is found


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_object_is_found_once(seed: int) -> None:
    objects, labels, windows = scene(seed)
    merged = merge_pieces(seen(objects, labels, windows, 0.0, np.random.default_rng(seed)), 0.5)
    same = overlaps(objects, merged.boxes) * (labels[:, None] == merged.labels)
    assert len(merged.boxes) == len(objects)
    assert (same.max(1) > 0.6).all(), "a long object's last part, below 30 %, is never seen"
    short = (objects[:, 2:] - objects[:, :2] <= TILE * OVERLAP).all(1)
    assert (same.max(1)[short] > 0.999).all(), "some tile shows all of it"
    assert len(windows) == 1 or (np.diff(merged.scores) <= 0).all()


def test_boxes_that_are_not_exact_are_put_together_too() -> None:
    wrong = total = 0
    for seed in range(100):
        objects, labels, windows = scene(seed)
        merged = merge_pieces(seen(objects, labels, windows, 0.02, np.random.default_rng(seed)), 0.5)
        same = overlaps(objects, merged.boxes) * (labels[:, None] == merged.labels)
        wrong += int((same.max(1) < 0.7).sum()) + abs(len(merged.boxes) - len(objects))
        total += len(objects)
    assert total > 800
    assert wrong <= 0.005 * total


def test_nms_alone_would_not_do() -> None:
    extra = 0
    for seed in range(20):
        objects, labels, windows = scene(seed)
        tiles = seen(objects, labels, windows, 0.0, np.random.default_rng(seed))
        apart = [Tile((0, 0, 9000, 9000), t.found) for t in tiles]  # nothing is cut at a border that far
        moved = [
            Tile(a.window, t.found._replace(boxes=t.found.boxes + np.tile(np.float32(t.window[:2]), 2)))
            for a, t in zip(apart, tiles, strict=True)
        ]
        extra += len(merge_pieces(moved, 0.5).boxes) - len(objects)
    assert extra > 20


def pair(left: list[float], right: list[float], labels: tuple[int, int] = (0, 0)) -> Found:
    """One detection of each of two tiles, 0..200 and 160..360, in pixels of the picture; merged."""
    found = Found(np.array([left, right], np.float32), np.array([0.6, 0.9], np.float32), np.array(labels))
    windows = np.array([[0, 0, 200, 200], [160, 0, 360, 200]])
    return merge_tiles(found, np.array([0, 1]), windows, 0.5)


def test_an_object_longer_than_the_strip_is_put_together() -> None:
    merged = pair([50, 40, 200, 100], [160, 42, 300, 104])
    assert merged.boxes.tolist() == [[50, 40, 300, 104]]
    assert merged.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([170, 40, 200, 100], [170, 40, 300, 100], [[170, 40, 300, 100]]),  # the right tile saw all of it
        ([100, 40, 195, 100], [161, 40, 194, 100], [[100, 40, 195, 100]]),  # the left one did
        ([165, 40, 195, 100], [166, 41, 195, 100], [[166, 41, 195, 100]]),  # both did: NMS, best first
    ],
)
def test_a_whole_detection_counts_more_than_a_cut_one(
    left: list[float], right: list[float], expected: list[list[float]]
) -> None:
    merged = pair(left, right)
    assert merged.boxes.tolist() == expected
    assert merged.scores.tolist() == pytest.approx([0.9]), "the best score of both"


@pytest.mark.parametrize(
    ("left", "right", "labels"),
    [
        ([50, 40, 200, 100], [160, 40, 300, 100], (0, 1)),  # of different classes
        ([50, 10, 200, 60], [160, 70, 300, 120], (0, 0)),  # one above the other
        ([20, 40, 150, 100], [170, 40, 300, 100], (0, 0)),  # neither is cut
    ],
)
def test_neighbours_stay_apart(left: list[float], right: list[float], labels: tuple[int, int]) -> None:
    assert sorted(pair(left, right, labels).boxes.tolist()) == sorted([left, right])


def test_a_corner_of_four_tiles() -> None:
    windows = tile_windows((360, 360), 200, 0.2)
    box, label = np.array([[100.0, 90, 290, 280]]), np.array([2])
    merged = merge_pieces(seen(box, label, windows, 0.0, np.random.default_rng(0)), 0.5)
    assert len(windows) == 4
    assert merged.boxes.tolist() == [[100, 90, 290, 280]] or not len(merged.boxes)
    low = merge_pieces(
        [
            Tile(
                (x1, y1, x2, y2),
                Found(
                    (box.clip([x1, y1, x1, y1], [x2, y2, x2, y2]) - [x1, y1, x1, y1]).astype(np.float32),
                    np.array([0.5], np.float32),
                    label,
                ),
            )
            for x1, y1, x2, y2 in windows.tolist()
        ],
        0.5,
    )
    assert low.boxes.tolist() == [[100, 90, 290, 280]]


def test_the_threshold_of_each_detector() -> None:
    assert seam_iou(recipe("r50-fpn")) == recipe("r50-fpn").roi.nms_iou
    fcos = recipe("fcos-regnetx400mf")
    assert seam_iou(fcos) == fcos.fcos.nms_iou
    alone = recipe("r50-fpn").model_copy(update={"detector": "rpn"})
    assert seam_iou(alone) == alone.proposals.nms_iou
