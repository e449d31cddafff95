"""Room 7 against the same steps written per image and level with torchvision's operators."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from frcnn.boxes import decode_deltas
from frcnn.config import AnchorConfig, ProposalConfig, RpnConfig
from frcnn.model.anchors import cell_anchors, grid_anchors
from frcnn.model.proposals import ProposalLimits, given_proposals, limits, select_proposals
from frcnn.structures import RpnOutput

SIZES = torch.tensor([[60.0, 90.0], [64.0, 50.0]])
LIMITS = ProposalLimits(pre_nms=60, post_nms=50)
RPN = RpnConfig()


def output(images: int = 2, softmax: bool = False, seed: int = 0) -> RpnOutput:
    generator = torch.Generator().manual_seed(seed)
    config = AnchorConfig()
    levels = [
        grid_anchors(cell_anchors((size,), config, stride), (64 // stride, 96 // stride), (stride, stride))
        for stride, size in ((8, 16), (16, 32), (32, 64))
    ]
    anchors = torch.cat(levels)
    shape = (images, len(anchors))
    logits = (
        torch.randn(*shape, 2, generator=generator)
        if softmax
        else torch.randn(shape, generator=generator) * 2
    )
    deltas = torch.randn(*shape, 4, generator=generator) * 0.3
    return RpnOutput(logits, deltas, anchors, tuple(len(level) for level in levels))


def plain(rpn: RpnOutput, image: int, config: ProposalConfig, most: ProposalLimits) -> tuple[Tensor, Tensor]:
    """Boxes and probabilities of one picture, level by level; lists become shorter on the way."""
    scores, height, width = rpn.scores[image], *SIZES[image].tolist()
    boxes = decode_deltas(rpn.anchors, rpn.deltas[image])
    boxes = torchvision.ops.clip_boxes_to_image(boxes, (int(height), int(width)))
    large = ((boxes[:, 2:] - boxes[:, :2]) >= config.min_size).all(1)
    kept_boxes, kept_scores, start = [], [], 0
    for size in rpn.level_sizes:
        index = torch.arange(start, start + size)
        if config.min_size_stage == "before_topk":
            index = index[large[index]]
        index = index[scores[index].sort(descending=True).indices[: most.pre_nms]]
        index = index[large[index] & (scores[index].sigmoid() >= config.score_threshold)]
        index = index[torchvision.ops.nms(boxes[index], scores[index], config.nms_iou)]
        kept_boxes.append(boxes[index])
        kept_scores.append(scores[index].sigmoid())
        start += size
    every, probability = torch.cat(kept_boxes), torch.cat(kept_scores)
    order = probability.sort(descending=True).indices[: most.post_nms]
    return every[order], probability[order]


def test_no_image_gives_none() -> None:
    rpn = output(images=0)
    proposals = select_proposals(rpn, torch.zeros(0, 2), ProposalConfig(), RPN, LIMITS)
    assert proposals.boxes.shape == (0, LIMITS.count(rpn.level_sizes), 4)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        ProposalConfig(),
        ProposalConfig(min_size=16, min_size_stage="after_topk"),
        ProposalConfig(min_size=16, min_size_stage="before_topk"),
        ProposalConfig(nms_iou=0.3, score_threshold=0.6),
        ProposalConfig(min_size=60, min_size_stage="before_topk"),  # nothing is this large in picture 2
    ],
)
def test_equals_the_plain_steps(config: ProposalConfig, softmax: bool) -> None:
    rpn = output(softmax=softmax)
    for most in (LIMITS, ProposalLimits(10, 500)):
        proposals = select_proposals(rpn, SIZES, config, RPN, most)
        assert proposals.boxes.shape == (2, most.count(rpn.level_sizes), 4)
        for i in range(2):
            boxes, scores = plain(rpn, i, config, most)
            valid = proposals.valid[i]
            assert valid.sum() == len(boxes)
            assert valid.tolist() == sorted(valid.tolist(), reverse=True), "valid ones stand first"
            torch.testing.assert_close(proposals.boxes[i, valid], boxes)
            torch.testing.assert_close(proposals.scores[i, valid], scores)
            assert proposals.boxes[i, ~valid].eq(0).all() and proposals.scores[i, ~valid].eq(0).all()


def test_softmax_ranks_by_object_minus_background() -> None:
    rpn = output(softmax=True)
    proposals = select_proposals(rpn, SIZES, ProposalConfig(nms_iou=1.0), RPN, ProposalLimits(1000, 3))
    probability = rpn.objectness_logits.softmax(-1)[..., 1]
    torch.testing.assert_close(proposals.scores, probability.topk(3, dim=1).values)


def test_small_boxes_take_no_place_where_they_go_before_the_top_k() -> None:
    rpn = output()
    small = ProposalConfig(min_size=24, nms_iou=1.0)
    after = select_proposals(rpn, SIZES, small, RPN, ProposalLimits(40, 200))
    before_config = small.model_copy(update={"min_size_stage": "before_topk"})
    before = select_proposals(rpn, SIZES, before_config, RPN, ProposalLimits(40, 200))
    assert before.valid.sum() > after.valid.sum() > 0


def test_level_is_that_of_the_anchor() -> None:
    rpn = output()
    proposals = select_proposals(rpn, SIZES, ProposalConfig(), RPN, ProposalLimits(5, 500))
    assert proposals.level.unique().tolist() == [0, 1, 2]
    for level in range(3):
        assert (proposals.level == level).sum(1).tolist() == [5, 5]


def test_not_finite_values_are_dropped_not_spread() -> None:
    rpn = output()
    rpn.objectness_logits[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    rpn.deltas[0, 5] = math.nan
    rpn.objectness_logits[0, 5] = 50.0
    proposals = select_proposals(rpn, SIZES, ProposalConfig(), RPN, LIMITS)
    assert proposals.boxes.isfinite().all() and proposals.scores.isfinite().all()
    assert proposals.valid[0].any()
    alone = select_proposals(output(), SIZES, ProposalConfig(), RPN, LIMITS)
    assert proposals.boxes[1].equal(alone.boxes[1]), "the other picture does not notice"


def test_limits_of_training_and_detection() -> None:
    config = ProposalConfig(pre_nms_train=7, post_nms_train=6, pre_nms_test=5, post_nms_test=4)
    assert limits(config, True) == ProposalLimits(7, 6)
    assert limits(config, False) == ProposalLimits(5, 4)
    assert ProposalLimits(5, 4).count((3, 9)) == 4
    assert ProposalLimits(5, 40).count((3, 9)) == 8
    assert ProposalLimits(5, 40).count(()) == 0


def test_no_gradient_passes() -> None:
    rpn = output()
    rpn.deltas.requires_grad_()
    assert not select_proposals(rpn, SIZES, ProposalConfig(), RPN, LIMITS).boxes.requires_grad


def test_a_limit_for_every_level() -> None:
    rpn, most = output(), ProposalLimits(pre_nms=40, post_nms=5, per_level=True)
    found = select_proposals(rpn, SIZES, ProposalConfig(), RPN, most)
    assert found.boxes.shape == (2, 15, 4) and most.count(rpn.level_sizes) == 15
    alone = select_proposals(rpn, SIZES, ProposalConfig(), RPN, ProposalLimits(40, 120))
    for image in range(2):
        for level in range(3):
            mine = found.scores[image][(found.level[image] == level) & found.valid[image]]
            theirs = alone.scores[image][(alone.level[image] == level) & alone.valid[image]][:5]
            assert mine.equal(theirs), "the best of the level"


def test_the_least_size_in_pixels_of_the_original() -> None:
    rpn, most = output(), ProposalLimits(60, 200)
    scales = torch.tensor([[2.0, 2.0], [0.5, 1.0]])
    config = ProposalConfig(min_size=16, min_size_unit="original")
    found = select_proposals(rpn, SIZES, config, RPN, most, scales)
    sides = (found.boxes[..., 2:] - found.boxes[..., :2]).where(found.valid[..., None], torch.inf)
    assert sides[0].min() >= 32 and sides[1, :, 0].min() >= 16 and 8 <= sides[1, :, 1].min() < 16
    resized = select_proposals(rpn, SIZES, ProposalConfig(min_size=16), RPN, most, scales)
    assert not resized.boxes.equal(found.boxes)


def test_given_proposals_keep_their_order_and_their_padding() -> None:
    assert given_proposals(torch.zeros(2, 0, 4)).valid.shape == (2, 0)
    boxes = torch.tensor([[[0.0, 0, 5, 5], [1, 1, 9, 4], [0, 0, 0, 0]]])
    found = given_proposals(boxes)
    assert found.valid.tolist() == [[True, True, False]] and found.boxes.equal(boxes)


def test_sides_grow_only_so_far() -> None:
    rpn = output(1)
    huge = RpnOutput(
        rpn.objectness_logits,
        torch.tensor([0.0, 0, 9, 9]).expand_as(rpn.deltas),
        torch.tensor([28.0, 28, 32, 32]).expand_as(rpn.anchors),
        rpn.level_sizes,
    )
    config = RPN.model_copy(update={"max_log_scale": math.log(2)})
    boxes = select_proposals(huge, SIZES[:1], ProposalConfig(nms_iou=1.0), config, LIMITS).boxes
    torch.testing.assert_close(boxes[0, 0], torch.tensor([26.0, 26, 34, 34]))
