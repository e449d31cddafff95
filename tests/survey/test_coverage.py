from __future__ import annotations

import numpy as np
import pytest

from frcnn.config import AnchorConfig
from frcnn.survey.coverage import CHUNK, best_anchor_iou, coverage

ANCHORS = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=(1.0,))
STRIDES = (8, 16)


@pytest.mark.parametrize(
    ("size", "low", "high"), [((32, 32), 0.7, 0.9), ((64, 64), 0.7, 0.9), ((8, 8), 0.03, 0.07)]
)
def test_best_anchor_iou(size: tuple[int, int], low: float, high: float) -> None:
    assert len(best_anchor_iou(np.zeros((0, 2), np.float32), ANCHORS, STRIDES)) == 0
    assert low < float(best_anchor_iou(np.array([size], np.float32), ANCHORS, STRIDES)[0]) < high


def test_best_anchor_iou_is_that_of_placed_boxes() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.uniform(5, 150, (40, 2)).astype(np.float32)
    anchors = AnchorConfig(sizes=((24.0, 40.0), (80.0, 100.0)), ratios=(0.5, 1.0, 2.0))
    expected = np.zeros(len(sizes))
    for level, stride in zip(anchors.sizes, STRIDES, strict=True):
        for size in level:
            for ratio in anchors.ratios:
                high, wide = size * ratio**0.5, size / ratio**0.5
                for i, (h, w) in enumerate(sizes.astype(float)):
                    over = [
                        max(min(a, stride / 4 + b) - max(-a, stride / 4 - b), 0)
                        for a, b in ((high / 2, h / 2), (wide / 2, w / 2))
                    ]
                    shared = over[0] * over[1]
                    expected[i] = max(expected[i], shared / (high * wide + h * w - shared))
    assert best_anchor_iou(sizes, anchors, STRIDES) == pytest.approx(expected, abs=1e-5)


def test_many_objects_are_looked_at_in_parts() -> None:
    sizes = np.full((CHUNK + 3, 2), 30, np.float32)
    sizes[-1] = 64
    best = best_anchor_iou(sizes, ANCHORS, STRIDES)
    assert len(best) == CHUNK + 3 and best[0] == best[-2] != best[-1]


def test_coverage_of_nothing() -> None:
    found = coverage(np.zeros(0, np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.int64), ("a",))
    assert found.total.objects == 0 and found.by_size == () and found.by_class[0].objects == 0
    assert sum(found.histogram) == 0 and found.mean == 0


def test_coverage_by_size_and_class() -> None:
    best = np.asarray([0.2, 0.6, 0.8, 1.0], np.float32)
    sizes = np.asarray([(8, 8), (8, 10), (100, 100), (300, 300)], np.float32)
    found = coverage(best, sizes, np.asarray([0, 1, 1, 1]), ("a", "b", "none"))
    assert (found.total.objects, found.total.low) == (4, 0.25)
    assert [(s.name, s.objects, s.low) for s in found.by_size] == [
        ("0 to 16 px", 2, 0.5),
        ("64 to 128 px", 1, 0.0),
        ("256 px or more", 1, 0.0),
    ]
    assert [(s.name, s.objects, s.low) for s in found.by_class] == [
        ("a", 1, 1.0),
        ("b", 3, 0.0),
        ("none", 0, 0.0),
    ]
    assert found.by_class[1].median == pytest.approx(0.8)
    assert found.histogram[4] == 1 and found.histogram[-1] == 1 and sum(found.histogram) == 4
