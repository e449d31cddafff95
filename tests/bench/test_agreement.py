"""Whether both found the same."""

import numpy as np
import pytest
import torch
from torch import Tensor

from frcnn.bench.agreement import share_matched
from frcnn.results import Result

BOXES = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 20.0, 20.0]], np.float32)


def ours(boxes: np.ndarray, scores: list[float], labels: list[int]) -> Result:
    return Result(boxes, np.array(scores, np.float32), np.array(labels), ("a", "b"), size=(30, 30))


def theirs(boxes: np.ndarray, scores: list[float], labels: list[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(boxes),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.int64) + 1,
    }


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "share"),
    [
        (BOXES, [0.9, 0.8], [0, 1], 1.0),
        (BOXES[::-1].copy(), [0.8, 0.9], [1, 0], 1.0),
        (BOXES + 0.05, [0.9005, 0.8], [0, 1], 1.0),
        (BOXES + 0.2, [0.9, 0.8], [0, 1], 0.0),
        (BOXES, [0.9, 0.7], [0, 1], 0.5),
        (BOXES, [0.9, 0.8], [0, 0], 0.5),
        (BOXES[:1], [0.9], [0], 2 / 3),
        (BOXES[:0], [], [], 0.0),
    ],
)
def test_share(boxes: np.ndarray, scores: list[float], labels: list[int], share: float) -> None:
    found = share_matched([ours(BOXES, [0.9, 0.8], [0, 1])], [theirs(boxes, scores, labels)])
    assert found == (pytest.approx(share), 2 + len(boxes))


def test_nothing_on_both_sides_is_the_same() -> None:
    assert share_matched([], []) == (1.0, 0)
    empty = BOXES[:0]
    assert share_matched([ours(empty, [], [])], [theirs(empty, [], [])]) == (1.0, 0)


def test_one_detection_is_matched_once() -> None:
    twice = np.repeat(BOXES[:1], 2, 0)
    found = share_matched([ours(twice, [0.9, 0.9], [0, 0])], [theirs(BOXES[:1], [0.9], [0])])
    assert found == (pytest.approx(2 / 3), 3)
