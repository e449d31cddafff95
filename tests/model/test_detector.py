"""Room 1: the path as a whole, its modes, its losses, and that it learns."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from small import Object, batch_of, build, change, small, targets_of
from torch import Tensor, nn

from frcnn.config import Config
from frcnn.evaluation.coco import evaluate_json
from frcnn.model.detector import FasterRCNN
from frcnn.model.losses import LossInputs, default_losses
from frcnn.model.matching import match_anchors
from frcnn.model.parts import Parts
from frcnn.model.preprocess import pad_batch
from frcnn.model.rpn import RpnHead
from frcnn.model.sampling import sample
from frcnn.recipes import RECIPES, recipe
from frcnn.structures import ImageBatch, Losses, Matches, Samples, Targets
from frcnn.weights.imagenet import load_pretrained

PICTURES = [(64, 96), (60, 50)]
OBJECTS: list[list[Object]] = [[((8, 8, 56, 56), 0), ((50, 10, 90, 40), 2)], [((5, 5, 40, 50), 1)]]


@cache
def detector(name: str) -> FasterRCNN:
    """One small detector of each recipe, made once; tests leave it as they found it."""
    return build(small(name))


def inputs(model: FasterRCNN, objects: list[list[Object]] | None = None) -> tuple[ImageBatch, Targets]:
    return batch_of(model.config, PICTURES), targets_of(OBJECTS if objects is None else objects)


def losses_of(model: FasterRCNN, batch: ImageBatch, targets: Targets, seed: int = 0) -> Losses:
    losses = model(batch, targets, model.draw_noise(batch, targets, seed)).losses
    assert losses is not None
    return losses


def names_without_gradient(model: nn.Module) -> list[str]:
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


# --------------------------------------------------------------------------------------- empty pictures


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("columns", [0, 8])
def test_a_batch_of_empty_pictures_has_finite_losses_and_all_gradients(name: str, columns: int) -> None:
    model = detector(name)
    batch, targets = inputs(model, [[], []])
    targets = targets.map(lambda t: t[:, :columns])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    try:
        losses = losses_of(model, batch, targets)
        losses.total.backward()
        assert all(math.isfinite(v.item()) for v in losses.as_dict().values())
        assert losses.rpn_box.item() == losses.roi_box.item() == 0.0
        all_negatives_overlap = model.config.roi.negative_iou[0] > 0  # without an object there is none
        assert (losses.roi_class.item() == 0) == all_negatives_overlap
        assert names_without_gradient(model) == []
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    finally:
        model.zero_grad()
        model.load_state_dict(state)
        model.eval()


@pytest.mark.parametrize("name", ["lite0-fpn", "vgg16"])
def test_one_empty_picture_beside_a_full_one(name: str) -> None:
    model = detector(name)
    batch, targets = inputs(model, [OBJECTS[0], []])
    losses = losses_of(model, batch, targets)
    assert all(math.isfinite(v.item()) for v in losses.as_dict().values())
    assert losses.roi_box.item() > 0


def test_a_black_picture_and_one_without_any_proposal_are_fine() -> None:
    config = small("lite0-fpn", proposals={"score_threshold": 0.999})
    model = build(config)
    batch, targets = inputs(model, [[], []])
    output = model(batch, targets, model.draw_noise(batch, targets, 0), detect=True)
    assert output.losses is not None and output.detections is not None
    assert output.losses.roi_class.item() == 0.0, "nothing to draw RoIs from"
    assert not output.detections.valid.any()
    assert math.isfinite(output.losses.total.item())


# ------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("name", RECIPES)
def test_the_mode_comes_from_the_arguments(name: str) -> None:
    model = detector(name)
    batch, targets = inputs(model)
    noise = model.draw_noise(batch, targets, 0)
    with torch.no_grad():
        only = model(batch)
        learn = model(batch, targets, noise)
        both = model(batch, targets, noise, detect=True)
    assert only.losses is None and only.detections is not None
    assert learn.losses is not None and learn.detections is None
    assert both.losses is not None and both.detections is not None
    assert both.detections.boxes.equal(only.detections.boxes)
    assert both.losses.total.equal(learn.losses.total)
    per_level = model.config.proposals.post_nms_scope == "level"
    proposals = 30 * (len(model.config.backbone.levels) if per_level else 1)
    candidates = 100 if model.config.detector == "fcos" else proposals * 3  # FCOS has points enough
    assert only.detections.boxes.shape == (2, min(100, candidates), 4)


@pytest.mark.parametrize("name", ["lite0-fpn", "r50-fpn"])
def test_training_mode_changes_nothing_where_the_norm_is_frozen(name: str) -> None:
    model = build(small(name, backbone={"weights": "none", "norm": "frozen"}))
    batch, targets = inputs(model)
    with torch.no_grad():
        quiet, found = losses_of(model.eval(), batch, targets), model(batch).detections
        loud, again = losses_of(model.train(), batch, targets), model(batch).detections
    assert [v.item() for v in quiet.as_dict().values()] == [v.item() for v in loud.as_dict().values()]
    assert found is not None and again is not None and found.boxes.equal(again.boxes)


@pytest.mark.parametrize("name", RECIPES)
def test_a_validation_pass_changes_no_state(name: str) -> None:
    model = detector(name).eval()
    batch, targets = inputs(model)
    noise = model.draw_noise(batch, targets, 0)
    copies = [r.map(torch.clone) for r in (batch, targets, noise)]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        output = model(batch, targets, noise, detect=True)
    assert torch.get_rng_state().equal(random)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    assert not any(m.training for m in model.modules())
    for record, copy in zip((batch, targets, noise), copies, strict=True):
        assert all(v.equal(getattr(copy, k)) for k, v in vars(record).items() if v is not None), (
            "arguments stay as they were"
        )
    assert output.losses is not None and output.detections is not None


@pytest.mark.parametrize("name", ["lite0-fpn", "vgg16"])
def test_the_same_noise_gives_the_same_losses(name: str) -> None:
    # more anchors and RoIs than are drawn, so that the noise matters
    model = build(
        small(name, rpn={"batch_size": 8, "inside_only": False}, roi={"hidden": 32, "batch_size": 8})
    )
    batch, targets = inputs(model)
    with torch.no_grad():
        torch.manual_seed(1)
        first = losses_of(model, batch, targets, seed=3)
        torch.manual_seed(2)
        again = losses_of(model, batch, targets, seed=3)
        other = losses_of(model, batch, targets, seed=4)
    assert first.total.equal(again.total)
    assert not first.total.equal(other.total)


def test_noise_has_the_shape_of_anchors_and_candidates_and_its_own_generator() -> None:
    model = detector("lite0-fpn")
    batch, targets = inputs(model)
    random = torch.get_rng_state()
    noise = model.draw_noise(batch, targets, 7)
    assert torch.get_rng_state().equal(random)
    assert noise.rpn.shape == (2, len(model.anchors(64, 96)))
    assert noise.roi.shape == (2, 40 + 8)
    assert noise.rpn.equal(model.draw_noise(batch, targets, 7).rpn)
    assert not noise.rpn.equal(model.draw_noise(batch, targets, 8).rpn)
    assert noise.rpn.min() >= 0 and noise.rpn.max() < 1


def test_a_picture_does_not_see_its_neighbours() -> None:
    model = detector("lite0-fpn")
    batch, _ = inputs(model)
    with torch.no_grad():
        together = model.trace(batch)
        for i in range(2):
            alone = model.trace(batch.map(lambda t, i=i: t[i : i + 1]))
            assert alone.detections is not None and together.detections is not None
            torch.testing.assert_close(alone.rpn.deltas[0], together.rpn.deltas[i], rtol=1e-3, atol=1e-5)
            mine, theirs = alone.detections, together.detections
            assert mine.valid[0].equal(theirs.valid[i])
            torch.testing.assert_close(mine.scores[0], theirs.scores[i], rtol=1e-3, atol=1e-5)


def test_the_trace_holds_what_its_stages_made() -> None:
    model = detector("lite0-fpn")
    batch, targets = inputs(model)
    with torch.no_grad():
        found = model.trace(batch)
        learnt = model.trace(batch, targets, model.draw_noise(batch, targets, 0))
    assert [tuple(f.shape[-2:]) for f in found.features[1:]] == model.anchors.grids(64, 96)
    assert tuple(found.features[0].shape[-2:]) == (16, 24)  # pooled from, without anchors
    assert found.batch.pixels.dtype == torch.float32
    for name in ("proposals", "pooled", "class_logits", "deltas", "detections"):
        assert getattr(found, name) is not None and getattr(learnt, name) is None
    for name in ("rpn_matches", "rpn_samples", "train_proposals", "rois", "train_class_logits", "losses"):
        assert getattr(found, name) is None and getattr(learnt, name) is not None
    assert (
        found.pooled is not None and found.pooled.shape[:2] == (2, 30) and found.pooled.shape[-2:] == (7, 7)
    )
    assert learnt.rois is not None and learnt.rois.boxes.shape == (2, 16, 4)


def test_objects_join_the_proposals_only_where_the_recipe_says_so() -> None:
    for kind, expected in (("exact", True), ("none", False)):
        model = build(small("lite0-fpn", roi={"hidden": 32, "batch_size": 48, "gt_proposals": kind}))
        batch, targets = inputs(model)
        with torch.no_grad():
            rois = model.trace(batch, targets, model.draw_noise(batch, targets, 0)).rois
        assert rois is not None
        boxes = {tuple(b) for b in rois.boxes[0].tolist()}
        assert ((8.0, 8.0, 56.0, 56.0) in boxes) is expected


# --------------------------------------------------------------------------------------- errors and parts


def test_errors_name_the_cause() -> None:
    model = detector("lite0-fpn")
    batch, targets = inputs(model)
    with pytest.raises(ValueError, match="draw_noise"):
        model(batch, targets)
    with pytest.raises(ValueError, match="at least one class, got 0"):
        FasterRCNN(small("lite0-fpn"), 0)


def test_a_padded_size_that_the_strides_do_not_divide() -> None:
    """Padded convolutions round up, as anchors do; the pooling of VGG16 rounds down, which is refused."""
    for name in ("lite0-fpn", "vgg16"):
        model = detector(name)
        pixels = [torch.zeros(3, 60, 91, dtype=torch.uint8)]
        odd = pad_batch(pixels, [(60, 91)], model.config.preprocess, padded_size=(60, 91))
        if name == "lite0-fpn":
            assert model(odd).detections.boxes.shape[0] == 1
        else:
            with pytest.raises(ValueError, match=r"60 x 91, anchors for .*pad_multiple to a multiple of 16"):
                model(odd)


def test_every_part_can_be_replaced() -> None:
    calls: list[str] = []

    def matcher(rpn: Any, sizes: Tensor, targets: Targets) -> Matches:
        calls.append("matcher")
        return match_anchors(rpn.anchors, sizes, targets, config.rpn)

    def sampler(labels: Tensor, noise: Tensor, count: int, positives: int) -> Samples:
        calls.append("sampler")
        return sample(labels, noise, count, positives)

    def rpn_head(channels: int, per_cell: int) -> nn.Module:
        calls.append("rpn_head")
        return RpnHead(channels, per_cell, config.rpn.model_copy(update={"depth": 2}))

    class Flat(nn.Module):
        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            calls.append("box_head")
            self.out = nn.Linear(channels, classes + 1 + 4)

        def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
            both = self.out(pooled.mean((2, 3)))
            return both[:, :-4], both[:, None, -4:]

    def loss(values: LossInputs) -> Losses:
        calls.append("loss")
        return default_losses(values, config.rpn, config.roi)

    config = small("lite0-fpn")
    parts = Parts(matcher, sampler, rpn_head, Flat, loss)
    model = FasterRCNN(config, 3, parts)
    batch, targets = inputs(model)
    losses_of(model, batch, targets).total.backward()
    heads, samples = ["box_head"] * 3, ["sampler"] * 4  # three stages; the anchors are sampled, too
    assert calls == ["rpn_head", *heads, "matcher", *samples, "loss"]
    assert parts.replaced == ["matcher", "sampler", "rpn_head", "box_head", "loss"]
    assert Parts().replaced == []
    assert names_without_gradient(model) == []


# ----------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ["lite0-fpn", "vgg16"])
def test_the_second_stage_trains_the_backbone_and_the_boxes(name: str) -> None:
    """Published systems cut the graph at the pooled features, or before the box loss."""
    model = detector(name)
    batch, targets = inputs(model)
    try:
        losses = losses_of(model, batch, targets)
        losses.roi_class.backward(retain_graph=True)
        first = next(p for p in model.backbone.parameters() if p.requires_grad)
        assert first.grad is not None and first.grad.abs().sum() > 0
        model.zero_grad()
        losses.roi_box.backward()
        assert model.box_head.deltas.weight.grad.abs().sum() > 0
        assert first.grad is None or first.grad.abs().sum() > 0
        assert model.rpn_head.deltas.weight.grad is None, "proposals carry no gradient"
    finally:
        model.zero_grad()


def test_an_untouched_object_makes_no_anchor_positive() -> None:
    config = small("vgg16")
    model = detector("vgg16")
    batch = batch_of(config, [(64, 96)])
    targets = targets_of([[((0, 0, 2, 2), 0)]])
    with torch.no_grad():
        trace = model.trace(batch, targets, model.draw_noise(batch, targets, 0))
    assert trace.rpn_matches is not None and trace.losses is not None
    assert trace.rpn_matches.labels.eq(1).sum() == 0
    assert trace.losses.rpn_box.item() == 0.0


def scene(seed: int) -> tuple[Tensor, list[Object]]:
    """A gray picture of 128 x 160 with up to three red or blue rectangles."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randint(90, 130, (3, 128, 160), generator=generator, dtype=torch.uint8)
    objects: list[Object] = []
    for i in range(3):
        height, width = (int(v) for v in torch.randint(28, 52, (2,), generator=generator))
        x, y = 53 * i, int(torch.randint(0, 128 - height, (1,), generator=generator))
        label = (seed + i) % 2
        color = torch.tensor([[230, 30, 30], [30, 60, 230]][label], dtype=torch.uint8)
        picture[:, y : y + height, x : x + width] = color[:, None, None]
        objects.append(((float(x), float(y), float(x + width), float(y + height)), label))
    return picture, objects


def coco(model: FasterRCNN, batch: ImageBatch, objects: list[list[Object]]) -> dict[str, float | None]:
    with torch.no_grad():
        found = model.eval()(batch).detections
    truth = {
        "images": [{"id": i, "height": 128, "width": 160} for i in range(len(objects))],
        "categories": [{"id": k, "name": str(k)} for k in range(2)],
        "annotations": [
            {"id": 10 * i + j + 1, "image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i, items in enumerate(objects)
            for j, ((x1, y1, x2, y2), label) in enumerate(items)
        ],
    }
    results = [
        {"image_id": i, "category_id": int(k), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(s)}
        for i, (boxes, scores, labels) in enumerate(found.per_image())
        for (x1, y1, x2, y2), s, k in zip(boxes.tolist(), scores, labels, strict=True)
    ]
    return evaluate_json(truth, results)


def overfit_config() -> Config:
    return change(
        recipe("lite0-fpn"),
        fpn={"channels": 64},
        anchors={"sizes": ((8, 12), (16, 24), (32, 48), (64, 96))},
        proposals={"pre_nms_train": 100, "post_nms_train": 100, "pre_nms_test": 100, "post_nms_test": 50},
        roi={"hidden": 64, "batch_size": 64},
    )


def test_four_pictures_are_learnt_by_heart() -> None:
    config = overfit_config()
    model = build(config, classes=2)
    load_pretrained(model)
    scenes = [scene(i) for i in range(4)]
    objects = [items for _, items in scenes]
    batch = pad_batch([picture for picture, _ in scenes], [(128, 160)] * 4, config.preprocess)
    targets = targets_of(objects)
    before = coco(model, batch, objects)["AP50"]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=60)
    model.train()
    for step in range(60):
        losses = losses_of(model, batch, targets, seed=step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        schedule.step()
    after = coco(model, batch, objects)["AP50"]
    assert before is not None and before < 0.2
    assert after is not None and after > 0.99


def test_anchors_may_begin_at_a_coarser_level_than_pooling() -> None:
    """The finest map costs most in the RPN and the pyramid; small objects want it for pooling only."""
    config = small(
        "lite0-fpn",
        fpn={"smooth_from": 1},
        rpn={"first_level": 1, "batch_size": 32},
        anchors={"sizes": ((16,), (32,), (64,), (128,))},
        roi={"hidden": 32, "batch_size": 16, "cascade": ()},
    )
    model = build(config)
    batch, targets = inputs(model)
    trace = model.trace(batch, targets, model.draw_noise(batch, targets, 0), detect=True)
    height, width = batch.pixels.shape[-2:]
    strides = [8, 16, 32, 64]
    assert trace.rpn.level_sizes == tuple(-(-height // s) * -(-width // s) * 3 for s in strides)
    assert len(trace.features) == 5 and trace.features[0].shape[-2:] == (height // 4, width // 4)
    trace.losses.roi_class.backward()
    assert model.fpn.inner[0][0].weight.grad.abs().sum() > 0  # the finest map is pooled from
    assert not list(model.fpn.output[0].parameters())
