"""Room 12: the losses' arithmetic, what they look at, and what must have no gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small import targets_of

from frcnn.boxes import ciou, decode_deltas, encode_deltas, giou
from frcnn.config import RoiConfig, RpnConfig
from frcnn.model.losses import LossInputs, default_losses, roi_counts, roi_losses, rpn_losses
from frcnn.model.matching import match_anchors, match_rois
from frcnn.model.sampling import roi_samples, rpn_targets, sample, with_objects
from frcnn.structures import Proposals, RoiSamples, RpnOutput, Samples

UNIT = (1.0, 1.0, 1.0, 1.0)


def rpn_output(n: int, a: int, softmax: bool = False) -> RpnOutput:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, a, 2, generator=generator) if softmax else torch.randn(n, a, generator=generator)
    deltas = torch.randn(n, a, 4, generator=generator)
    return RpnOutput(logits.requires_grad_(), deltas.requires_grad_(), torch.zeros(a, 4), (a,))


def samples_of(index: list[int], foreground: list[bool], valid: list[bool]) -> Samples:
    return Samples(
        torch.tensor([index]).long(), torch.tensor([foreground]).bool(), torch.tensor([valid]).bool()
    )


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("normaliser", ["sampled", "positives"])
@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou", "ciou"])
def test_nothing_sampled_gives_zero_loss_and_zero_gradient(softmax: bool, normaliser: str, kind: str) -> None:
    config = RpnConfig.model_validate({"box_normaliser": normaliser, "box_loss": kind})
    for samples in (samples_of([], [], []), samples_of([0, 0], [False] * 2, [False] * 2)):
        rpn = rpn_output(1, 3, softmax)
        objectness, box = rpn_losses(rpn, samples, torch.zeros(*samples.index.shape, 4), config)
        assert objectness.item() == box.item() == 0.0
        (objectness + box).backward()
        assert rpn.objectness_logits.grad is not None and rpn.objectness_logits.grad.eq(0).all()
        assert rpn.deltas.grad is not None and rpn.deltas.grad.eq(0).all()


def rois_of(labels: list[int], classes: int) -> RoiSamples:
    n = len(labels)
    table = torch.tensor([labels]).long()
    foreground, valid = (table >= 0) & (table < classes), table >= 0
    target = torch.randn(1, n, 4, generator=torch.Generator().manual_seed(1)) * foreground[..., None]
    boxes = torch.tensor([10.0, 20, 40, 60]).expand(1, n, 4)
    index = torch.zeros(1, n).long()
    return RoiSamples(boxes, index, table, index, target, foreground, valid)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou", "ciou"])
def test_no_roi_gives_zero_loss_and_zero_gradient(kind: str) -> None:
    config = RoiConfig.model_validate({"box_loss": kind})
    for labels in ([], [-1, -1]):
        logits = torch.randn(1, len(labels), 4).requires_grad_()
        deltas = torch.randn(1, len(labels), 3, 4).requires_grad_()
        classification, box = roi_losses(rois_of(labels, 3), logits, deltas, config)
        assert classification.item() == box.item() == 0.0
        (classification + box).backward()
        assert logits.grad is not None and logits.grad.eq(0).all()
        assert deltas.grad is not None and deltas.grad.eq(0).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_rpn_objectness_is_the_mean_over_what_was_sampled(softmax: bool) -> None:
    rpn = rpn_output(1, 5, softmax)
    samples = samples_of([4, 1, 2, 4], [True, False, False, False], [True, True, True, False])
    objectness, _ = rpn_losses(rpn, samples, torch.zeros(1, 4, 4), RpnConfig())
    truth = torch.tensor([1, 0, 0])
    logits = rpn.objectness_logits[0, [4, 1, 2]]
    expected = (
        F.cross_entropy(logits, truth)
        if softmax
        else F.binary_cross_entropy_with_logits(logits, truth.float())
    )
    torch.testing.assert_close(objectness, expected)


@pytest.mark.parametrize(
    ("kind", "beta", "normaliser", "weight", "divisor"),
    [
        ("smooth_l1", 1 / 9, "sampled", 1.0, 3),
        ("smooth_l1", 1.0, "positives", 10.0, 2),
        ("smooth_l1", 0.0, "sampled", 1.0, 3),
        ("l1", 1.0, "positives", 2.0, 2),
    ],
)
def test_rpn_box_loss(kind: str, beta: float, normaliser: str, weight: float, divisor: int) -> None:
    settings = {"box_loss": kind, "beta": beta, "box_normaliser": normaliser, "box_weight": weight}
    config = RpnConfig.model_validate(settings)
    rpn = rpn_output(1, 5)
    samples = samples_of([4, 1, 2, 4], [True, True, False, False], [True, True, True, False])
    targets = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(2)) * samples.foreground[..., None]
    _, box = rpn_losses(rpn, samples, targets, config)
    difference = rpn.deltas[0, [4, 1]] - targets[0, :2]
    each = difference.abs()
    if kind == "smooth_l1" and beta:
        each = torch.where(each < beta, difference**2 / (2 * beta), each - beta / 2)
    torch.testing.assert_close(box, weight * each.sum() / divisor)


def test_roi_losses_look_at_the_true_class_only() -> None:
    rois = rois_of([2, 0, 3, 3, -1], 3)
    logits = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    deltas = torch.randn(1, 5, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    classification, box = roi_losses(rois, logits, deltas, RoiConfig(beta=1.0))
    torch.testing.assert_close(classification, F.cross_entropy(logits[0, :4], rois.labels[0, :4]))
    chosen = torch.stack([deltas[0, 0, 2], deltas[0, 1, 0]])
    expected = F.smooth_l1_loss(chosen, rois.box_targets[0, :2], reduction="sum") / 4
    torch.testing.assert_close(box, expected)
    (classification + box).backward()
    assert deltas.grad is not None and logits.grad is not None
    assert deltas.grad[0].abs().sum(-1).ne(0).nonzero().tolist() == [[0, 2], [1, 0]]
    assert logits.grad[0, 4].eq(0).all(), "a RoI that is not valid teaches nothing"


def test_class_agnostic_boxes_have_one_set() -> None:
    rois, deltas = rois_of([2, 0, 3], 3), torch.randn(1, 3, 1, 4)
    _, box = roi_losses(
        rois, torch.zeros(1, 3, 4), deltas, RoiConfig(box_regression="agnostic", box_loss="l1")
    )
    torch.testing.assert_close(box, (deltas[0, :2, 0] - rois.box_targets[0, :2]).abs().sum() / 3)


def test_giou_loss_is_zero_for_a_perfect_box_and_grows_outside() -> None:
    config = RoiConfig(box_loss="giou", box_normaliser="positives")
    rois = rois_of([1], 3)
    rois = replace(rois, box_targets=rois.box_targets * 0.5)
    perfect = rois.box_targets[:, :, None].expand(1, 1, 3, 4)
    assert roi_losses(rois, torch.zeros(1, 1, 4), perfect, config)[1].item() == pytest.approx(0, abs=1e-5)
    far = roi_losses(rois, torch.zeros(1, 1, 4), perfect + torch.tensor([30.0, 0, 0, 0]), config)[1]
    assert 1 < far.item() < 2


@pytest.mark.parametrize("kind", ["giou", "ciou"])
def test_the_rpn_learns_boxes_by_their_overlap(kind: str) -> None:
    config = RpnConfig.model_validate({"box_loss": kind, "box_normaliser": "positives", "box_weight": 2.0})
    anchors = torch.tensor([[0.0, 0, 20, 20], [10, 10, 50, 30], [5, 40, 25, 60]])
    truth = torch.tensor([[2.0, 1, 22, 25], [0, 0, 1, 1], [5, 38, 29, 62]])
    deltas = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(3)).mul(0.3).requires_grad_()
    rpn = RpnOutput(torch.zeros(1, 3), deltas, anchors, (3,))
    samples = samples_of([2, 0, 1, 0], [True, True, False, False], [True, True, True, False])
    targets = encode_deltas(anchors, truth)[None, [2, 0, 1, 0]]
    _, box = rpn_losses(rpn, samples, targets, config)
    measure = giou if kind == "giou" else ciou
    found = decode_deltas(anchors, deltas[0])
    torch.testing.assert_close(box, 2 * (2 - measure(found[2], truth[2]) - measure(found[0], truth[0])) / 2)
    box.backward()
    assert deltas.grad is not None and deltas.grad[0, 1].eq(0).all() and deltas.grad[0, [0, 2]].ne(0).any()
    perfect = replace(rpn, deltas=encode_deltas(anchors, truth)[None])
    assert rpn_losses(perfect, samples, targets, config)[1].item() == pytest.approx(0, abs=1e-5)


def test_normaliser_counts_over_the_whole_batch_not_per_image() -> None:
    """The number must not depend on how pictures are grouped: 3 + 1 anchors are one mean of 4."""
    rpn = rpn_output(2, 4)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    index = torch.tensor([[0, 1, 2], [3, 3, 3]])
    objectness, _ = rpn_losses(rpn, Samples(index, valid & False, valid), torch.zeros(2, 3, 4), RpnConfig())
    logits = torch.cat([rpn.objectness_logits[0, :3], rpn.objectness_logits[1, 3:]])
    torch.testing.assert_close(objectness, F.softplus(logits).mean())


ANCHORS = torch.tensor(
    [[0.0, 0, 20, 20], [40, 40, 60, 60], [70, 70, 90, 90], [20, 0, 40, 20], [5, 5, 22, 22]]
)
REGION = (40.0, 40.0, 60.0, 58.0)


@pytest.mark.parametrize("rule", ["ioa", "iou"])
@pytest.mark.parametrize("softmax", [False, True])
def test_an_anchor_in_an_ignored_region_has_exactly_no_gradient(rule: str, softmax: bool) -> None:
    config = RpnConfig.model_validate({"ignore_rule": rule})
    targets = targets_of([[((0, 0, 20, 20), 0), (REGION, 1)]], [[False, True]])
    matches = match_anchors(ANCHORS, torch.tensor([[100.0, 100.0]]), targets, config)
    rpn = replace(rpn_output(1, 5, softmax), anchors=ANCHORS)
    samples = sample(matches.labels, torch.rand(1, 5), 5, 2)  # everything that may be drawn is drawn
    deltas = rpn_targets(ANCHORS, matches, samples, targets, UNIT)
    sum(rpn_losses(rpn, samples, deltas, config)).backward()
    gradient = rpn.objectness_logits.grad
    assert gradient is not None and rpn.deltas.grad is not None
    touched = gradient.view(5, -1).ne(0).any(-1)
    assert touched.tolist() == [True, False, True, True, False]  # anchor 4: between the thresholds
    assert rpn.deltas.grad[0, 1].eq(0).all()


@pytest.mark.parametrize("rule", ["ioa", "iou"])
def test_a_proposal_in_an_ignored_region_has_exactly_no_gradient(rule: str) -> None:
    config = RoiConfig.model_validate({"ignore_rule": rule, "delta_weights": UNIT})
    targets = targets_of([[((0, 0, 20, 20), 0), (REGION, 1)]], [[False, True]])
    n = len(ANCHORS)
    shape = (1, n)
    proposals = Proposals(
        ANCHORS[None], torch.ones(shape), torch.zeros(shape).long(), torch.ones(shape).bool()
    )
    candidates = with_objects(proposals, targets)
    matches = match_rois(candidates, targets, config)
    samples = sample(matches.labels, torch.rand(matches.labels.shape), 13, 4)
    rois = roi_samples(candidates, matches, samples, targets, config, background=3)
    # logits of all candidates, so that the gradient of each can be read whether it was drawn or not
    every_logits = torch.randn(1, n + 8, 4).requires_grad_()
    every_deltas = torch.randn(1, n + 8, 3, 4).requires_grad_()
    rows = samples.index[0]
    sum(roi_losses(rois, every_logits[:, rows], every_deltas[:, rows], config)).backward()
    assert every_logits.grad is not None and every_deltas.grad is not None
    touched = every_logits.grad[0].ne(0).any(-1)
    assert touched.tolist() == [True, False, True, True, True, True] + [False] * 7
    assert every_deltas.grad[0, 1].eq(0).all()


def test_default_losses_are_the_four_and_their_sum() -> None:
    rpn = rpn_output(1, 5)
    samples = samples_of([0, 1], [True, False], [True, True])
    rois, targets = rois_of([1, 3], 3), torch.ones(1, 2, 4)
    logits, deltas = torch.zeros(1, 2, 4), torch.zeros(1, 2, 3, 4)
    losses = default_losses(LossInputs(rpn, samples, targets, rois, logits, deltas), RpnConfig(), RoiConfig())
    first, second = (
        rpn_losses(rpn, samples, targets, RpnConfig()),
        roi_losses(rois, logits, deltas, RoiConfig()),
    )
    values = [v.item() for v in (*first, *second)]
    assert [v.item() for v in losses.as_dict().values()] == pytest.approx([*values, sum(values)])
    assert list(losses.as_dict()) == ["rpn_objectness", "rpn_box", "roi_class", "roi_box", "total"]
    assert losses.roi_class.item() == pytest.approx(math.log(4))


def test_class_weights_are_those_of_a_weighted_log_likelihood() -> None:
    rois, logits = rois_of([2, 0, 3, 3, -1], 3), torch.randn(1, 5, 4)
    config = RoiConfig(class_weights=(1.0, 5.0, 2.0, 0.5))
    loss, _ = roi_losses(rois, logits, torch.zeros(1, 5, 3, 4), config)
    weight = torch.tensor([1.0, 5.0, 2.0, 0.5])
    torch.testing.assert_close(loss, F.cross_entropy(logits[0, :4], rois.labels[0, :4], weight))
    nothing, _ = roi_losses(rois_of([], 3), torch.zeros(1, 0, 4), torch.zeros(1, 0, 3, 4), config)
    assert nothing == 0


def test_background_counts_as_much_as_there_are_objects_for_it() -> None:
    rois, logits = rois_of([2, 3, 3, 3, 3, -1], 3), torch.randn(1, 6, 4)
    loss, _ = roi_losses(rois, logits, torch.zeros(1, 6, 3, 4), RoiConfig(background_weight="fg_over_bg"))
    weight = torch.tensor([1.0, 1.0, 1.0, 0.25])  # one object, four of the background
    torch.testing.assert_close(loss, F.cross_entropy(logits[0, :5], rois.labels[0, :5], weight))
    objects = rois_of([2, 1], 3)
    plain, _ = roi_losses(objects, logits[:, :2], torch.zeros(1, 2, 3, 4), RoiConfig())
    same, _ = roi_losses(
        objects, logits[:, :2], torch.zeros(1, 2, 3, 4), RoiConfig(background_weight="fg_over_bg")
    )
    torch.testing.assert_close(plain, same)
    nothing = rois_of([3, 3], 3)  # no object: the background is learnt all the same
    plain, _ = roi_losses(nothing, logits[:, :2], torch.zeros(1, 2, 3, 4), RoiConfig())
    same, _ = roi_losses(
        nothing, logits[:, :2], torch.zeros(1, 2, 3, 4), RoiConfig(background_weight="fg_over_bg")
    )
    torch.testing.assert_close(plain, same)


def test_weights_of_single_coordinates() -> None:
    rois, deltas = rois_of([0], 3), torch.randn(1, 1, 3, 4)
    apart = (deltas[0, 0, 0] - rois.box_targets[0, 0]).abs()
    config = RoiConfig(box_loss="l1", inside_weights=(1, 0, 2, 1), outside_weights=(1, 1, 1, 3))
    _, box = roi_losses(rois, torch.zeros(1, 1, 4), deltas, config)
    torch.testing.assert_close(box, (apart * torch.tensor([1.0, 0, 2, 3])).sum())


def test_a_head_that_only_classifies_has_no_box_loss() -> None:
    rois, deltas = rois_of([0, 3], 3), torch.zeros(1, 2, 0, 4, requires_grad=True)
    _, box = roi_losses(rois, torch.zeros(1, 2, 4), deltas, RoiConfig(box_regression="none"))
    assert box == 0 and box.requires_grad


def test_losses_divided_by_what_should_have_been_drawn() -> None:
    rpn, samples = rpn_output(1, 5), samples_of([0, 1, 2], [True, False, False], [True, True, True])
    target = torch.zeros(1, 3, 4)
    few = RpnConfig(batch_size=3, box_loss="l1")
    fixed = few.model_copy(
        update={"batch_size": 12, "class_normaliser": "batch_size", "box_normaliser": "batch_size"}
    )
    for ours, asked in zip(
        rpn_losses(rpn, samples, target, few), rpn_losses(rpn, samples, target, fixed), strict=True
    ):
        torch.testing.assert_close(ours / 4, asked)


def test_counts_of_what_was_right() -> None:
    empty = roi_counts(rois_of([], 3), torch.zeros(1, 0, 4))
    assert [float(v) for v in vars(empty).values()] == [0, 0, 0, 0]
    logits = F.one_hot(torch.tensor([[2, 1, 3, 0, 3]]), 4).float()
    counts = roi_counts(rois_of([2, 0, 3, 3, -1], 3), logits)
    assert [float(v) for v in vars(counts).values()] == [1, 1, 2, 2]
