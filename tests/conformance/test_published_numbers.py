"""The numbers that the systems S0, S1, S3 and S4 publish, through the real rooms and the ``vgg16`` recipe.

The sources list anchors columns first and keep those inside the picture only; ours are rows first, all of
them. Their order is made here from ours, so that their indices can be compared. They write (y1, x1, y2, x2),
we (x1, y1, x2, y2).
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.boxes import clip, decode_deltas, encode_deltas, inside, iou
from frcnn.config import AnchorConfig
from frcnn.model.anchors import Anchors, cell_anchors, grid_anchors
from frcnn.model.backbones import Backbone
from frcnn.model.heads import BoxHead
from frcnn.model.losses import LossInputs, default_losses, roi_losses, rpn_losses
from frcnn.model.matching import match_anchors, overlaps
from frcnn.model.pooling import pool_rois
from frcnn.model.proposals import ProposalLimits, select_proposals
from frcnn.model.rpn import RpnHead
from frcnn.model.sampling import roi_samples, rpn_targets, sample
from frcnn.recipes import vgg16
from frcnn.structures import Losses, Matches, Proposals, RoiSamples, RpnOutput, Samples, Targets

CONFIG = vgg16()
SIDE, CELLS, STRIDE = 800, 50, 16
SIZES = torch.tensor([[800.0, 800.0]])
A, B = (20.0, 30.0, 400.0, 500.0), (300.0, 400.0, 500.0, 600.0)  # as published: (y1, x1, y2, x2)
LABELS = (6, 8)

SOURCE_INDEX = [2262, 2508, 5620, 5628, 5636, 5644, 5866, 5874, 5882]
SOURCE_INDEX += [5890, 6112, 6120, 6128, 6136, 6358, 6366, 6374, 6382]
OUR_INDEX = [7349, 7358, 10615, 10624, 10633, 10642, 11065, 11074, 11083]
OUR_INDEX += [11092, 11515, 11524, 11533, 11542, 11965, 11974, 11983, 11992]


def xyxy(box: tuple[float, ...]) -> tuple[float, ...]:
    y1, x1, y2, x2 = box
    return x1, y1, x2, y2


def objects() -> Targets:
    """The two published objects, padded as our batches are; 6 and 8 count the background first."""
    boxes, labels = torch.zeros(1, 8, 4), torch.full((1, 8), -1)
    boxes[0, :2] = torch.tensor([xyxy(A), xyxy(B)])
    labels[0, :2] = torch.tensor(LABELS) - 1
    return Targets(boxes, labels, torch.zeros(1, 8, dtype=torch.bool))


@cache
def anchors() -> Tensor:
    return Anchors(CONFIG.anchors, [STRIDE])(SIDE, SIDE)


def columns_first(values: Tensor) -> Tensor:
    """Values of all anchors in the order of the sources."""
    return values.view(CELLS, CELLS, 9, *values.shape[1:]).transpose(0, 1).reshape(values.shape)


def source_inside() -> Tensor:
    """Inside anchors in the order of the sources -> (8940, 4)."""
    ordered = columns_first(anchors())
    return ordered[inside(ordered, SIZES)[0]]


def matched() -> Matches:
    return match_anchors(anchors(), SIZES, objects(), CONFIG.rpn)


def drawn(matches: Matches) -> Samples:
    noise = torch.rand(matches.labels.shape, generator=torch.Generator().manual_seed(0))
    config = CONFIG.rpn
    return sample(matches.labels, noise, config.batch_size, int(config.batch_size * config.positive_fraction))


# ------------------------------------------------------------------------------------------------ exact


def test_no_object_has_no_positive_anchor() -> None:
    nothing = Targets(torch.zeros(1, 0, 4), torch.zeros(1, 0).long(), torch.zeros(1, 0, dtype=torch.bool))
    labels = match_anchors(anchors(), SIZES, nothing, CONFIG.rpn).labels
    assert labels.eq(0).sum() == 8940 and labels.eq(1).sum() == 0


def test_feature_map_is_512_x_50_x_50_from_30_layers() -> None:
    with torch.device("meta"):  # shapes of the real layers without their 30 GFLOP
        backbone = Backbone(CONFIG.backbone)
        features = backbone(torch.empty(1, 3, SIDE, SIDE))
    assert [tuple(f.shape) for f in features] == [(1, 512, 50, 50)]
    assert backbone.channels == [512] and backbone.strides == [16]
    assert len([m for m in backbone.net.modules() if not list(m.children())]) == 30


def test_base_anchors_at_the_first_cell() -> None:
    base = cell_anchors(CONFIG.anchors.sizes[0], CONFIG.anchors, STRIDE)
    assert base.shape == (9, 4)
    first = (-37.254833, -82.50967, 53.254833, 98.50967)  # (y1, x1, y2, x2)
    assert base[0].tolist() == pytest.approx(xyxy(first), abs=1e-5)
    assert ((base[:, :2] + base[:, 2:]) / 2).tolist() == [[8, 8]] * 9
    sides = [(90.51, 181.02), (181.02, 362.04), (362.04, 724.08), (128, 128), (256, 256), (512, 512)]
    sides += [(w, h) for h, w in sides[:3]]  # the three transposed
    heights_widths = torch.stack([base[:, 3] - base[:, 1], base[:, 2] - base[:, 0]], -1)
    torch.testing.assert_close(heights_widths, torch.tensor(sides, dtype=torch.float32), rtol=0, atol=6e-3)


def test_anchor_counts() -> None:
    assert len(anchors()) == 22_500
    assert inside(anchors(), SIZES).sum() == 8_940
    assert len(source_inside()) == 8_940


def test_best_overlaps() -> None:
    usable = inside(anchors(), SIZES)
    table = iou(anchors()[usable[0]], objects().boxes[0, :2])
    assert table.amax(0).tolist() == pytest.approx([0.68130493, 0.61035156], abs=1e-7)
    found = overlaps(anchors(), objects(), usable)
    assert found.best[0, OUR_INDEX[:2]].tolist() == pytest.approx([0.68130493] * 2, abs=1e-7)
    assert found.best[0, OUR_INDEX[2:]].tolist() == pytest.approx([0.61035156] * 16, abs=1e-7)


def test_eighteen_anchors_hold_the_best_overlaps_ties_included() -> None:
    labels = matched().labels[0]
    assert labels.eq(1).sum() == 18
    assert labels.eq(1).nonzero()[:, 0].tolist() == OUR_INDEX
    ordered = columns_first(labels)[inside(columns_first(anchors()), SIZES)[0]]
    assert ordered.eq(1).nonzero()[:, 0].tolist() == SOURCE_INDEX


def test_largest_overlap_of_the_first_three_inside_anchors() -> None:
    best = iou(source_inside()[:3], objects().boxes[0, :2]).amax(1)
    assert best.tolist() == pytest.approx([0.06811669, 0.07083762, 0.07083762], abs=1e-8)


def test_deltas_of_the_first_three_and_the_last_inside_anchor() -> None:
    deltas = encode_deltas(source_inside(), torch.tensor(xyxy(A)))  # (dx, dy, dw, dh)
    dy_dx_dh_dw = deltas[:, [1, 0, 3, 2]]
    same = (2.30914558, 0.7415674, 1.64727602)
    for row, dy in zip(dy_dx_dh_dw, (0.5855728, 0.49718446, 0.40879611), strict=False):
        assert row.tolist() == pytest.approx([dy, *same], abs=2e-6)
    assert dy_dx_dh_dw[-1, :2].tolist() == pytest.approx([-2.68479606, -5.29225232], abs=2e-6)


def test_sampled_anchors() -> None:
    samples = drawn(matched())
    assert samples.index.shape == (1, 256) and samples.valid.all()
    assert samples.foreground.sum() == 18 and (~samples.foreground).sum() == 238
    assert sorted(samples.index[0, :18].tolist()) == OUR_INDEX
    assert samples.index.unique().numel() == 256


def test_rpn_maps_and_outputs() -> None:
    with torch.device("meta"):
        head = RpnHead(512, 9, CONFIG.rpn)
        feature = torch.empty(1, 512, 50, 50)
        hidden = head.conv(feature)
        logits, deltas = head([feature])
    assert head.objectness(hidden).shape == (1, 18, 50, 50)
    assert head.deltas(hidden).shape == (1, 36, 50, 50)
    assert head.objectness(hidden).permute(0, 2, 3, 1).shape == (1, 50, 50, 18)
    assert deltas.shape == (1, 22_500, 4) and logits.shape == (1, 22_500, 2)
    assert RpnOutput(logits, deltas, torch.empty(0), (22_500,)).scores.shape == (1, 22_500)


@cache
def fresh_rpn() -> RpnOutput:
    """The recipe's untrained RPN on features of the true shape."""
    torch.manual_seed(0)
    head = RpnHead(512, 9, CONFIG.rpn)
    with torch.no_grad():
        logits, deltas = head([torch.randn(1, 512, 50, 50).relu() * 0.3])
    return RpnOutput(logits, deltas, anchors(), (22_500,))


def test_min_size_16_keeps_all_fresh_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    rpn = fresh_rpn()
    boxes = clip(decode_deltas(rpn.anchors, rpn.deltas, CONFIG.rpn.delta_weights), SIZES)
    assert ((boxes[..., 2:] - boxes[..., :2]) >= 16).all(-1).sum() == 22_500
    assert CONFIG.proposals.min_size == 16
    # through the room itself, with NMS out of the way: every anchor comes out valid
    monkeypatch.setattr(
        "frcnn.model.proposals.nms_mask", lambda boxes, iou_threshold, groups, valid, *_: valid
    )
    every = ProposalLimits(22_500, 22_500)
    assert select_proposals(rpn, SIZES, CONFIG.proposals, CONFIG.rpn, every).valid.sum() == 22_500


def test_fresh_rpn_loss_is_ln_2() -> None:
    rpn, matches = fresh_rpn(), matched()
    samples = drawn(matches)
    targets = rpn_targets(anchors(), matches, samples, objects(), CONFIG.rpn.delta_weights)
    objectness, _ = rpn_losses(rpn, samples, targets, CONFIG.rpn)
    assert objectness.item() == pytest.approx(math.log(2), abs=2e-3)
    flat = RpnOutput(torch.zeros_like(rpn.objectness_logits), rpn.deltas, rpn.anchors, rpn.level_sizes)
    assert rpn_losses(flat, samples, targets, CONFIG.rpn)[0].item() == pytest.approx(0.6931, abs=5e-5)


def published_rpn_losses() -> tuple[Tensor, Tensor]:
    """Zero logits and deltas for the 18 positives, through matching, sampling, encoding and losses."""
    matches = matched()
    samples = drawn(matches)
    targets = rpn_targets(anchors(), matches, samples, objects(), CONFIG.rpn.delta_weights)
    rpn = RpnOutput(torch.zeros(1, 22_500, 2), torch.zeros(1, 22_500, 4), anchors(), (22_500,))
    return rpn_losses(rpn, samples, targets, CONFIG.rpn)


def test_rpn_loss_arithmetic() -> None:
    objectness, box = published_rpn_losses()
    assert box.item() * 18 / CONFIG.rpn.box_weight == pytest.approx(1.1629, abs=5e-5)
    assert (objectness + box).item() == pytest.approx(1.3392, abs=5e-5)
    assert CONFIG.rpn.box_weight == 10


def test_roi_features_and_outputs() -> None:
    with torch.device("meta"):
        head = BoxHead(512, 20, CONFIG.roi)  # 20 classes and the background
        logits, deltas = head(torch.empty(128, 512, 7, 7))
    assert head.trunk.fc6.weight.shape == (4096, 25_088)
    assert logits.shape == (128, 21)
    # the sources have 84 values, 4 of them for a background box that is never used
    assert deltas.shape == (128, 20, 4) and head.deltas.out_features == 84 - 4
    rois = torch.tensor([0.0, 0, 400, 400]).expand(1, 128, 4)
    assert pool_rois([torch.zeros(1, 512, 50, 50)], rois, [16], CONFIG.roi, 1).flatten(0, 1).shape == (
        128,
        512,
        7,
        7,
    )
    assert CONFIG.roi.batch_size == 128


def published_rois() -> tuple[RoiSamples, Tensor, Tensor]:
    """19 positives and 109 negatives; deltas off a little at the true class, and by a lot at all others."""
    labels = torch.tensor([[5] * 10 + [7] * 9 + [20] * 109])
    foreground = labels < 20
    error = 1.4763965 / 19 / 4  # smooth L1 of x below 1 is x^2 / 2, four times for every box
    off = torch.full((1, 128, 4), math.sqrt(2 * error))
    deltas = torch.full((1, 128, 20, 4), 99.0)
    true_class = labels.clamp(max=19)[..., None, None].expand(-1, -1, 1, 4)
    deltas = deltas.scatter(2, true_class, off[:, :, None])
    everything = torch.ones(1, 128, dtype=torch.bool)
    zeros, index = torch.zeros(1, 128, 4), torch.zeros(1, 128, dtype=torch.long)
    return RoiSamples(zeros, index, labels, index, zeros, foreground, everything), deltas, off


def test_roi_loss_arithmetic() -> None:
    rois, deltas, off = published_rois()
    # (128, 21, 4) -> (128, 4) at the true class: everything else is 99 and would be seen
    assert F.smooth_l1_loss(off[0, :19], torch.zeros(19, 4), reduction="sum").item() == pytest.approx(
        1.4763965
    )
    classification, box = roi_losses(rois, torch.zeros(1, 128, 21), deltas, CONFIG.roi)
    assert box.item() / CONFIG.roi.box_weight == pytest.approx(0.07770508, abs=1e-7)
    assert classification.item() == pytest.approx(math.log(21), abs=1e-5)  # a fresh network: near 3.0366
    assert 3.0366 + box.item() == pytest.approx(3.8137, abs=5e-5)


def test_total_loss_is_the_sum_of_all_four() -> None:
    objectness, rpn_box = published_rpn_losses()
    _, roi_box = roi_losses(published_rois()[0], torch.zeros(1, 128, 21), published_rois()[1], CONFIG.roi)
    losses = Losses(objectness, rpn_box, torch.tensor(3.0366), roi_box)
    assert losses.total.item() == pytest.approx(5.1529, abs=1e-4)


def test_default_losses_join_both_stages() -> None:
    matches = matched()
    samples = drawn(matches)
    targets = rpn_targets(anchors(), matches, samples, objects(), CONFIG.rpn.delta_weights)
    rpn = RpnOutput(torch.zeros(1, 22_500, 2), torch.zeros(1, 22_500, 4), anchors(), (22_500,))
    rois, deltas, _ = published_rois()
    inputs = LossInputs(rpn, samples, targets, rois, torch.zeros(1, 128, 21), deltas)
    losses = default_losses(inputs, CONFIG.rpn, CONFIG.roi)
    assert losses.total.item() == pytest.approx(1.3392 + math.log(21) + 0.7770508, abs=1e-4)


# ---------------------------------------------------------------------------------------------- derived


def test_boxes_with_the_best_overlap() -> None:
    assert anchors()[OUR_INDEX[:2]].tolist() == [[8, 8, 520, 520], [24, 8, 536, 520]]
    squares = {(x, y, x + 256, y + 256) for x in (344, 360, 376, 392) for y in (248, 264, 280, 296)}
    assert {tuple(b) for b in anchors()[OUR_INDEX[2:]].tolist()} == squares


def test_labels_before_sampling() -> None:
    labels = matched().labels[0, inside(anchors(), SIZES)[0]]
    assert [int(labels.eq(v).sum()) for v in (1, 0, -1)] == [18, 7_690, 1_232]
    assert matched().labels[0, ~inside(anchors(), SIZES)[0]].eq(-1).all()


def test_the_sources_first_inside_anchor() -> None:
    expected = (10.745166, 13.490332, 101.254834, 194.509668)
    assert source_inside()[0].tolist() == pytest.approx(expected, abs=2e-5)


def test_each_positive_anchor_belongs_to_its_object() -> None:
    matches = matched()
    assert matches.index[0, OUR_INDEX].tolist() == [0] * 2 + [1] * 16


# --------------------------------------------------------------------------------------- random, S1, S3


def test_sampled_rois_have_the_published_count() -> None:
    """19 + 109 RoIs of 128, at most a quarter positive."""
    labels = torch.tensor([[1] * 19 + [0] * 1_739])  # 1,758 proposals
    noise = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    samples = sample(
        labels, noise, CONFIG.roi.batch_size, int(CONFIG.roi.batch_size * CONFIG.roi.positive_fraction)
    )
    assert samples.foreground.sum() == 19 and (samples.valid & ~samples.foreground).sum() == 109
    proposals = Proposals(torch.rand(1, 1_758, 4).cumsum(-1), torch.ones(1, 1_758), labels * 0, labels >= 0)
    rois = roi_samples(proposals, Matches(labels, labels * 0), samples, objects(), CONFIG.roi, 20)
    assert rois.labels.eq(5).sum() == 19 and rois.labels.eq(20).sum() == 109


@pytest.mark.parametrize(
    ("rounding", "with_border", "without"), [("pyfrcnn", 7_858, 7_858), ("none", 7_911, 7_856)]
)
def test_anchors_of_the_598_x_1000_example(rounding: str, with_border: int, without: int) -> None:
    config = AnchorConfig.model_validate({"sizes": ((128, 256, 512),), "rounding": rounding})
    boxes = grid_anchors(cell_anchors(config.sizes[0], config, STRIDE), (37, 62), (STRIDE, STRIDE))
    assert len(boxes) == 20_646
    assert inside(boxes, torch.tensor([[598.0, 1000.0]])).sum() == with_border
    low = (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0)
    assert (low & (boxes[:, 2] < 1000) & (boxes[:, 3] < 598)).sum() == without


def test_rounded_anchors_are_centred_on_7_5() -> None:
    config = AnchorConfig(sizes=((128, 256, 512),), rounding="pyfrcnn")
    base = cell_anchors(config.sizes[0], config, STRIDE)
    assert ((base[:, :2] + base[:, 2:]) / 2).tolist() == [[7.5, 7.5]] * 9
    published = [[-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199], [-56, -56, 71, 71]]
    published += [[-120, -120, 135, 135], [-248, -248, 263, 263], [-36, -80, 51, 95], [-80, -168, 95, 183]]
    assert base.tolist() == [*published, [-168, -344, 183, 359]]


def test_an_object_in_the_corner_makes_no_anchor_positive() -> None:
    """The sources turn all 8,940 anchors positive for (0, 0, 2, 2), which no inside anchor touches."""
    targets = objects()
    targets.boxes[0, 0] = torch.tensor([0.0, 0, 2, 2])
    labels = match_anchors(anchors(), SIZES, targets, CONFIG.rpn).labels[0]
    assert labels.eq(1).nonzero()[:, 0].tolist() == OUR_INDEX[2:]
