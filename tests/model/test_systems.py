"""What each reference system publishes of its shapes, through its recipe; and its rules, through its network.

Letters: N images, A anchors, P proposals, K classes.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from small import batch_of, build, change, small, targets_of
from torch import Tensor

from frcnn.boxes import inside, iou
from frcnn.config import Config
from frcnn.model.anchors import Anchors
from frcnn.model.detector import FasterRCNN, build_network
from frcnn.model.network import Network
from frcnn.model.postprocess import Limits
from frcnn.model.proposer import ProposalNetwork
from frcnn.model.trunks import TORCHVISION
from frcnn.recipes import RECIPES, recipe
from frcnn.structures import ImageBatch, Targets, Trace

TWO_STAGES = [name for name in RECIPES if recipe(name).detector == "two_stage"]
IGNORING = ["rpn-vgg16", "vgg16", "vgg16-dontcare", "regnetx400mf-fpn", "lite0-fpn"]


@cache
def regnet() -> Network:
    return build(recipe("regnetx400mf-fpn"), classes=20)


@cache
def pictures() -> ImageBatch:
    return batch_of(recipe("regnetx400mf-fpn"), [(224, 224), (224, 224)])


@cache
def regnet_trace() -> Trace:
    with torch.no_grad():
        return regnet().trace(pictures())


def test_regnet_maps_of_a_picture_of_224() -> None:
    backbone = regnet().backbone
    shapes = [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, 224, 224))]
    assert shapes == [(64, 28, 28), (160, 14, 14), (400, 7, 7)]
    assert [tuple(m.shape) for m in regnet_trace().features] == [(2, 64, s, s) for s in (28, 14, 7)]


def test_regnet_logits_and_deltas() -> None:
    """(2, 2352), (2, 588), (2, 147): three anchors a cell, one logit an anchor."""
    rpn = regnet_trace().rpn
    assert rpn.level_sizes == (2352, 588, 147)
    assert rpn.objectness_logits.shape == (2, 3087) and rpn.deltas.shape == (2, 3087, 4)


def test_regnet_anchors_are_eight_strides_wide() -> None:
    anchors = regnet().anchors(224, 224)
    first = anchors[:3]  # of the first cell, centre (4, 4), stride 8
    torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, torch.full((3, 2), 4.0))
    sides = first[:, 2:] - first[:, :2]
    torch.testing.assert_close(sides.prod(1), torch.full((3,), 64.0**2))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_regnet_proposes_at_most_100_a_level_and_only_classifies() -> None:
    trace = regnet_trace()
    assert trace.proposals is not None and trace.deltas is not None and trace.detections is not None
    assert trace.proposals.boxes.shape == (2, 300, 4)
    for level in range(3):
        assert ((trace.proposals.level == level) & trace.proposals.valid).sum(1).max() <= 100
    assert trace.deltas.shape == (2, 300, 0, 4)
    with torch.no_grad():
        found = regnet().trace(pictures(), limits=Limits(score=0.0)).detections
    assert found is not None and found.valid.any()
    rows = torch.arange(2)[:, None]
    wanted = trace.proposals.boxes[rows, found.roi_index][found.valid]
    torch.testing.assert_close(found.boxes[found.valid], wanted), "the proposals' boxes"


def test_regnet_samples_over_the_whole_batch() -> None:
    objects = targets_of([[((10, 10, 200, 200), 0)], []])
    noise = regnet().draw_noise(pictures(), objects, 0)
    trace = regnet().trace(pictures(), objects, noise)
    assert trace.rpn_samples is not None and trace.rois is not None
    assert trace.rpn_samples.valid.sum() == 2 * 16 and trace.rois.valid.sum() == 2 * 32
    assert trace.rpn_samples.foreground.sum() <= 16


def test_dontcare_anchors_of_the_published_picture() -> None:
    anchors = Anchors(recipe("vgg16-dontcare").anchors, [16])(37 * 16, 62 * 16)
    assert len(anchors) == 20_646
    assert int(inside(anchors, torch.tensor([598.0, 1000.0])).sum()) == 7_858


def test_dontcare_scores_are_all_background_then_all_object() -> None:
    config = small("vgg16-dontcare")
    head = build(config).rpn_head
    logits, _ = head([torch.zeros(1, 512, 2, 3)])
    with torch.no_grad():
        head.objectness.bias.copy_(torch.arange(18.0))  # type: ignore[union-attr, operator]
    logits, _ = head([torch.zeros(1, 512, 2, 3)])
    assert logits[0, :9].tolist() == [[float(a), float(a + 9)] for a in range(9)]


def test_proposals_alone_of_a_stretched_picture() -> None:
    config = recipe("rpn-vgg16")
    assert config.train.batch == 15 and config.preprocess.fixed_size == (800, 800)
    network = build_network(config, 1)
    assert isinstance(network, ProposalNetwork) and not isinstance(network, FasterRCNN) and not network.heads
    assert network.anchors.level_sizes(800, 800) == (22_500,)
    names = {name.split(".")[0] for name in network.state_dict()}
    assert names == {"backbone", "rpn_head"}, "no second stage is saved"


def small_batch(config: Config) -> ImageBatch:
    return batch_of(config, [(96, 128), (128, 96)])


@pytest.mark.parametrize("name", IGNORING)
def test_an_ignored_place_teaches_nothing_about_classes(name: str) -> None:
    """The gradient of the classification losses is exactly 0 for anchors and RoIs inside an ignore region."""
    config = change(
        small(name, roi={"hidden": 16, "batch_size": 16, "dropout": 0.0}), preprocess={"fixed_size": None}
    )
    config = change(config, rpn={"batch_size": 4096, "inside_only": False}, roi={"batch_size": 4096})
    if "vgg16" in name:  # whose own anchors are larger than these pictures
        config = change(config, anchors={"sizes": ((16, 32, 64),)})
    classes = 1 if config.detector == "rpn" else 3
    model, batch = build_network(config, classes).eval(), small_batch(config)
    region = ((0.0, 0.0, 64.0, 128.0), -1)
    targets = targets_of([[region], [((70, 10, 90, 60), 0), region]], [[True], [False, True]])
    trace = model.trace(batch, targets, model.draw_noise(batch, targets, 0))
    losses = trace.losses
    assert losses is not None
    trace.rpn.objectness_logits.retain_grad()
    objectness = losses.parts()[0]
    gradient = torch.autograd.grad(objectness, trace.rpn.objectness_logits, retain_graph=True)[0]
    covered = lies_in(trace.rpn.anchors.expand(2, -1, 4), region[0])
    covered &= ~touches(trace.rpn.anchors, targets)
    assert covered.any() and gradient[covered].eq(0).all() and gradient[~covered].ne(0).any()
    if trace.rois is None:
        return
    assert trace.train_class_logits is not None
    gradient = torch.autograd.grad(losses.parts()[2], trace.train_class_logits)[0]
    proposals = trace.train_proposals
    assert proposals is not None
    covered = lies_in(proposals.boxes, region[0]) & ~touches(proposals.boxes, targets) & proposals.valid
    assert covered.any(), "there are RoIs in the region to draw from"
    covered = lies_in(trace.rois.boxes, region[0]) & ~touches(trace.rois.boxes, targets)
    assert not (covered & trace.rois.valid).any(), "and none of them is drawn"
    assert gradient[~trace.rois.valid].eq(0).all() and gradient[trace.rois.valid].ne(0).any()


def lies_in(boxes: Tensor, region: tuple[float, ...]) -> Tensor:
    """(N, M) bool: more than half of the box lies in the region."""
    place = torch.tensor(region)
    sides = (torch.minimum(boxes[..., 2:], place[2:]) - torch.maximum(boxes[..., :2], place[:2])).clamp(min=0)
    own = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return sides.prod(-1) > 0.5 * own


def touches(boxes: Tensor, targets: Targets) -> Tensor:
    """(N, M) bool: the box overlaps a real object."""
    table = iou(boxes.expand(len(targets.labels), -1, 4), targets.boxes) * targets.real[:, None]
    return table.amax(-1) > 0


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_learns_finitely_from_nothing(name: str) -> None:
    config = change(small(name), preprocess={"fixed_size": None})
    if config.backbone.name.startswith(TORCHVISION):
        config = change(config, backbone={"norm": "batch"})
    network = build_network(config, 1 if config.detector == "rpn" else 3)
    batch, targets = small_batch(config), targets_of([[], []])
    losses = network(batch, targets, network.draw_noise(batch, targets, 0)).losses
    assert losses is not None and losses.names() == network.losses.names()
    losses.total.backward()
    for key, parameter in network.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
