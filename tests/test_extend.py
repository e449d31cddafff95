"""The examples of docs/extend.md run as written, and do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frcnn.boxes import iou
from frcnn.predict import Detector
from frcnn.structures import RpnOutput, Targets

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
TARGETS = [{"boxes": [[10, 12, 60, 70], [50, 20, 90, 60]], "labels": [0, 1]}, {"boxes": [], "labels": []}]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the page's code defines."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(2)]


def test_atss_of_no_object_is_all_background(example: dict[str, Any]) -> None:
    rpn = RpnOutput(torch.zeros(1, 4), torch.zeros(1, 4, 4), torch.rand(4, 4), (4,))
    empty = Targets(torch.zeros(1, 8, 4), torch.full((1, 8), -1), torch.zeros(1, 8, dtype=torch.bool))
    matches = example["atss"](rpn, torch.tensor([[96.0, 128]]), empty)
    assert (matches.labels == 0).all()


def test_atss_by_hand(example: dict[str, Any]) -> None:
    # nine anchors of one level in a row, one object on the third: mean + deviation lets only the third pass
    anchors = torch.tensor([[10.0 * i, 0, 10 * i + 12, 12] for i in range(9)])
    boxes = torch.zeros(1, 8, 4)
    boxes[0, 3] = torch.tensor([20.0, 0, 32, 12])
    labels = torch.full((1, 8), -1)
    labels[0, 3] = 0
    targets = Targets(boxes, labels, torch.zeros(1, 8, dtype=torch.bool))
    rpn = RpnOutput(torch.zeros(1, 9), torch.zeros(1, 9, 4), anchors, (9,))
    overlap = iou(anchors, boxes[0, 3:4])[:, 0]
    assert float(overlap.mean() + overlap.std()) > float(overlap[1])
    matches = example["atss"](rpn, torch.tensor([[96.0, 128]]), targets)
    assert matches.labels[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert int(matches.index[0, 2]) == 3


@pytest.mark.parametrize("name", ["detector", "small", "smooth"])
def test_replaced_parts_train_and_predict(example: dict[str, Any], name: str) -> None:
    detector: Detector = example[name]
    assert detector.model.parts.replaced == [
        {"detector": "matcher", "small": "box_head", "smooth": "loss"}[name]
    ]
    trace = detector.trace(pictures(), TARGETS)
    assert trace.losses is not None and torch.isfinite(trace.losses.total)
    trace.losses.total.backward()
    assert all(p.grad is not None for p in detector.model.parameters())
    assert len(detector.predict(pictures(), score=0.0)) == 2


def test_the_parts_for_training_are_those(example: dict[str, Any]) -> None:
    assert example["parts"].replaced == ["matcher"] and callable(example["train"])


def test_the_replaced_part_is_used(example: dict[str, Any]) -> None:
    plain = Detector.from_recipe("lite0-fpn", classes=["disc", "ring"])
    with_atss: Detector = example["detector"]
    a, b = plain.trace(pictures(), TARGETS), with_atss.trace(pictures(), TARGETS)
    assert a.rpn_matches is not None and b.rpn_matches is not None
    assert torch.equal(a.rpn.objectness_logits, b.rpn.objectness_logits)
    assert not torch.equal(a.rpn_matches.labels, b.rpn_matches.labels)
    assert (b.rpn_matches.labels[0] == 1).any() and (b.rpn_matches.labels[1] == 0).all()
