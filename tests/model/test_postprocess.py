"""Room 13 against torchvision's post-processing, the candidate limit, and the way back to original pixels."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from frcnn.config import RoiConfig
from frcnn.model.postprocess import Limits, postprocess
from frcnn.structures import ImageBatch, Proposals

CONFIG = RoiConfig(score_threshold=0.1, max_dets=20, min_size=1e-2)
SIZES = [(60.0, 90.0), (64.0, 50.0)]


def batch(images: int = 2, originals: list[tuple[float, float]] | None = None) -> ImageBatch:
    sizes = torch.tensor(SIZES[:images]).reshape(-1, 2)
    original = torch.tensor(originals).reshape(-1, 2) if originals is not None else sizes
    return ImageBatch(torch.zeros(images, 3, 64, 96), sizes, sizes / original, original)


def inputs(
    images: int = 2, count: int = 40, classes: int = 3, seed: int = 0
) -> tuple[Proposals, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(images, count, 2, generator=generator) * 40], -1)
    logits = torch.randn(images, count, classes + 1, generator=generator) * 2
    deltas = torch.randn(images, count, classes, 4, generator=generator)
    shape = (images, count)
    valid = torch.ones(shape, dtype=torch.bool)
    return Proposals(boxes, torch.ones(shape), torch.zeros(shape).long(), valid), logits, deltas


@pytest.mark.parametrize(("images", "count"), [(0, 0), (0, 5), (2, 0)])
def test_nothing_gives_nothing(images: int, count: int) -> None:
    found = postprocess(*inputs(images, count), batch(images), CONFIG)
    assert found.boxes.shape == (images, min(CONFIG.max_dets, 3 * count), 4)
    assert not found.valid.any() and found.exact.all()
    assert len(found.per_image()) == images


def test_no_valid_proposal_gives_no_detection() -> None:
    proposals, logits, deltas = inputs()
    nothing = Proposals(proposals.boxes, proposals.scores, proposals.level, proposals.valid & False)
    found = postprocess(nothing, logits, deltas, batch(), CONFIG)
    assert not found.valid.any() and found.exact.all()
    assert found.boxes.eq(0).all() and found.scores.eq(0).all()
    assert [len(b) for b, _, _ in found.per_image()] == [0, 0]


def theirs(
    proposals: Proposals, logits: Tensor, deltas: Tensor, config: RoiConfig
) -> list[tuple[Tensor, ...]]:
    """torchvision's, with the background moved to the front and its NMS made exact."""
    coder = torchvision.models.detection._utils.BoxCoder(config.delta_weights)
    fake = mock.Mock(box_coder=coder, score_thresh=config.score_threshold, nms_thresh=config.nms_iou)
    fake.detections_per_img = config.max_dets
    front = torch.cat([logits[..., -1:], logits[..., :-1]], -1).flatten(0, 1)
    no_box = torch.zeros_like(deltas[:, :, :1])
    flat = torch.cat([no_box, deltas], 2).flatten(0, 1).flatten(1)
    exact = torchvision.ops.boxes._batched_nms_vanilla
    with mock.patch.object(torchvision.models.detection.roi_heads.box_ops, "batched_nms", exact):
        sizes = [(int(h), int(w)) for h, w in SIZES]
        found = RoIHeads.postprocess_detections(fake, front, flat, list(proposals.boxes), sizes)
    return [tuple(f) for f in zip(*found, strict=True)]


@pytest.mark.parametrize("max_dets", [5, 20, 1000])
def test_equals_torchvision(max_dets: int) -> None:
    config = CONFIG.model_copy(update={"max_dets": max_dets})
    found = postprocess(*inputs(), batch(), config)
    expected = theirs(*inputs(), config)
    for (boxes, scores, labels), (their_boxes, their_scores, their_labels) in zip(
        found.per_image(), expected, strict=True
    ):
        assert len(boxes) > 4
        torch.testing.assert_close(boxes, their_boxes)
        torch.testing.assert_close(scores, their_scores)
        assert labels.equal(their_labels - 1)


def test_class_agnostic_boxes_serve_every_class() -> None:
    proposals, logits, deltas = inputs()
    one = deltas[:, :, :1]
    agnostic = postprocess(proposals, logits, one, batch(), CONFIG)
    spread = postprocess(proposals, logits, one.expand(-1, -1, 3, -1), batch(), CONFIG)
    assert agnostic.boxes.equal(spread.boxes) and agnostic.labels.equal(spread.labels)


def test_roi_index_names_the_proposal() -> None:
    proposals, logits, deltas = inputs()
    found = postprocess(proposals, logits, deltas, batch(), CONFIG)
    probability = logits.softmax(-1)
    for i in range(2):
        for score, label, roi in zip(found.scores[i], found.labels[i], found.roi_index[i], strict=True):
            torch.testing.assert_close(score, probability[i, roi, label])


def test_the_threshold_is_strict() -> None:
    proposals, _, deltas = inputs(count=1)
    logits = torch.tensor([0.0, 0, math.log(2), 0]).expand(2, 1, 4)  # 0.2, 0.2, 0.4
    at = float(logits.softmax(-1)[0, 0, 0])
    found = postprocess(proposals, logits, deltas, batch(), CONFIG.model_copy(update={"score_threshold": at}))
    assert found.valid.sum(1).tolist() == [1, 1]


def test_boxes_return_to_original_pixels_by_each_axis() -> None:
    proposals, logits, deltas = inputs()
    straight = postprocess(proposals, logits, deltas, batch(), CONFIG)
    originals = [(120.0, 45.0), (64.0, 200.0)]
    scaled = postprocess(proposals, logits, deltas, batch(originals=originals), CONFIG)
    for i, ((h, w), (oh, ow)) in enumerate(zip(SIZES, originals, strict=True)):
        factor = torch.tensor([ow / w, oh / h, ow / w, oh / h])
        torch.testing.assert_close(scaled.boxes[i], straight.boxes[i] * factor)
        assert (scaled.boxes[i] <= torch.tensor([ow, oh, ow, oh])).all() and (scaled.boxes[i] >= 0).all()


def test_exact_says_whether_the_candidate_limit_may_have_cost_something() -> None:
    proposals, logits, deltas = inputs(count=200)
    everything = postprocess(proposals, logits, deltas, batch(), CONFIG)
    assert everything.exact.all()
    cut = postprocess(proposals, logits, deltas, batch(), CONFIG.model_copy(update={"candidates": 15}))
    assert not cut.exact.any() and cut.valid.sum() < everything.valid.sum()
    enough = CONFIG.model_copy(update={"candidates": 150, "max_dets": 4})
    few = postprocess(proposals, logits, deltas, batch(), enough)
    assert few.exact.all()
    assert few.boxes.equal(everything.boxes[:, :4]), "cutting the tail changes nothing where enough survive"


def test_small_and_not_finite_boxes_are_dropped() -> None:
    proposals, logits, deltas = inputs()
    deltas[0, 0], logits[0, 1] = math.nan, math.nan
    proposals.boxes[0, 2] = torch.tensor([5.0, 5, 5, 5])
    logits[0, 2, 0] = 50.0
    found = postprocess(proposals, logits, deltas, batch(), CONFIG)
    assert found.boxes.isfinite().all() and found.scores.isfinite().all()
    kept = found.roi_index[0, found.valid[0]].tolist()
    assert kept and not {0, 1, 2} & set(kept)


def test_floors_of_the_classes_come_before_the_limit_of_number() -> None:
    """A crowd of weak detections of one class must not push out another class that asks for less."""
    proposals, logits, deltas = inputs(1, 40, 2)
    logits = torch.tensor([2.0, -2.0, 0.0]).repeat(1, 40, 1)  # class 0 at 0.87 everywhere ...
    logits[0, :3] = torch.tensor([-2.0, 1.0, 0.0])  # ... and three of class 1 at 0.71
    config = RoiConfig(nms_iou=1.0, max_dets=5)
    crowded = postprocess(proposals, logits, deltas, batch(1), config)
    assert crowded.labels[crowded.valid].tolist() == [0] * 5
    floors = Limits(floors=torch.tensor([0.9, 0.7]))
    found = postprocess(proposals, logits, deltas, batch(1), config, floors)
    assert found.labels[found.valid].tolist() == [1] * 3 and sorted(found.roi_index[found.valid]) == [0, 1, 2]


def test_limits_replace_those_of_the_configuration() -> None:
    arguments = (*inputs(), batch())
    low, high = CONFIG.model_copy(update={"score_threshold": 0.4, "max_dets": 3}), Limits(0.4, None, 3, 4000)
    for a, b in zip(
        postprocess(*arguments, low).per_image(),
        postprocess(*arguments, CONFIG, high).per_image(),
        strict=True,
    ):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and len(a[0]) == 3
