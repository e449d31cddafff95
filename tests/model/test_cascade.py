"""Further stages: their configuration, how boxes move between them, what they are trained with."""

from __future__ import annotations

import pytest
import torch
from small import batch_of, build, small, targets_of
from torch import Tensor

from frcnn.boxes import decode_deltas, encode_deltas, iou
from frcnn.config import RoiConfig
from frcnn.model.cascade import RoiStage, move_boxes, next_samples, stage_configs
from frcnn.model.detector import FasterRCNN, detect
from frcnn.model.losses import roi_losses
from frcnn.model.postprocess import Limits
from frcnn.model.sampling import sample
from frcnn.structures import RoiSamples, Targets

CASCADE = RoiConfig(cascade=(0.6, 0.7))
SIZES = torch.tensor([[64.0, 96.0], [50.0, 60.0]])


def rois_of(boxes: Tensor, valid: Tensor | None = None) -> RoiSamples:
    n, r = boxes.shape[:2]
    none = torch.zeros(n, r, dtype=torch.long)
    valid = torch.ones(n, r, dtype=torch.bool) if valid is None else valid
    return RoiSamples(boxes, none, none, none, torch.zeros(n, r, 4), valid & False, valid)


def boxes_in(sizes: Tensor, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(len(sizes), count, 2, 2, generator=generator) * sizes.flip(-1)[:, None, None]
    return torch.cat([corners.amin(2), corners.amax(2) + 1], -1)


def cascade(**roi: object) -> FasterRCNN:
    return build(small("lite0-fpn", roi={"cascade": (0.6, 0.7), "hidden": 32, "batch_size": 16} | roi))


# ----------------------------------------------------------------------------------------- configuration


def test_without_a_cascade_there_is_one_stage() -> None:
    config = RoiConfig()
    assert stage_configs(config) == (config,)


def test_every_stage_is_stricter_and_finer() -> None:
    first, second, third = stage_configs(CASCADE)
    assert first is CASCADE
    assert [s.positive_iou for s in (first, second, third)] == [0.5, 0.6, 0.7]
    assert [s.negative_iou for s in (second, third)] == [(0.0, 0.6), (0.0, 0.7)]
    assert second.delta_weights == (20, 20, 10, 10) and third.delta_weights == (30, 30, 15, 15)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_a_threshold_outside_the_open_interval_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cascade"):
        RoiConfig(cascade=(value,))


# ----------------------------------------------------------------------------------------- moving boxes


def test_no_boxes_stay_no_boxes() -> None:
    moved = move_boxes(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), torch.zeros(2, 0, 3, 4), SIZES, CASCADE)
    assert moved.shape == (2, 0, 4)


@pytest.mark.parametrize("columns", [3, 1])
def test_a_box_moves_by_the_deltas_of_its_likeliest_class(columns: int) -> None:
    generator = torch.Generator().manual_seed(1)
    boxes, logits = boxes_in(SIZES, 7), torch.randn(2, 7, 4, generator=generator)
    logits[..., 3] += 5  # background is likeliest, and has no deltas
    deltas = torch.randn(2, 7, columns, 4, generator=generator)
    moved = move_boxes(boxes, logits, deltas, SIZES, CASCADE)
    for i, (height, width) in enumerate(SIZES.tolist()):
        for r in range(7):
            best = max(range(3), key=lambda k: float(logits[i, r, k])) if columns > 1 else 0
            x1, y1, x2, y2 = decode_deltas(boxes[i, r], deltas[i, r, best], CASCADE.delta_weights).tolist()
            clipped = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width)]
            assert moved[i, r].tolist() == pytest.approx([*clipped, min(max(y2, 0), height)], abs=1e-4)


# ----------------------------------------------------------------------------------------- training


def test_next_samples_are_the_same_rois_matched_anew() -> None:
    targets = targets_of([[((10, 10, 40, 40), 2)], []])
    old = torch.tensor([[[10.0, 10, 20, 20], [0, 0, 9, 9], [50, 50, 60, 60]]] * 2)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    now = RoiStage(rois_of(old, valid), torch.zeros(2, 3, 5), torch.zeros(2, 3, 1, 4))
    boxes = torch.tensor([[[10.0, 10, 40, 30], [10, 10, 40, 28], [10, 10, 40, 40]]] * 2)  # IoU 0.67, 0.6, 1
    second, third = stage_configs(CASCADE)[1:]
    noise = torch.rand(2, 9, generator=torch.Generator().manual_seed(0))
    for config, positives in ((second, 2), (third, 0)):
        found = next_samples(now, boxes, targets, config, noise, sample)
        assert found.boxes.shape == (2, 3, 4) and found.valid.sum(1).tolist() == [2, 3]
        assert found.foreground.sum(1).tolist() == [positives, 0]  # the third RoI was never valid
        assert found.labels[0][found.foreground[0]].tolist() == [2] * positives
        assert (found.labels[1] == 4).all()  # background
        for box, target, foreground in zip(
            found.boxes[0], found.box_targets[0], found.foreground[0], strict=True
        ):
            if foreground:
                overlap = iou(box[None], targets.boxes[0, :1]).item()
                assert overlap >= config.positive_iou
                truth = encode_deltas(box, targets.boxes[0, 0], config.delta_weights)
                assert torch.equal(target, truth)


def losses_and_trace(model: FasterRCNN, targets: Targets):  # type: ignore[no-untyped-def]
    batch = batch_of(model.config, [(64, 96), (64, 64)])
    return model.trace(batch, targets, model.draw_noise(batch, targets, 0))


@pytest.mark.parametrize("objects", [[[], []], [[((5, 5, 40, 40), 0)], [((0, 0, 60, 30), 2)]]])
def test_every_stage_learns(objects: list[list[tuple[tuple[float, ...], int]]]) -> None:
    model = cascade()
    trace = losses_and_trace(model, targets_of(objects))
    trace.losses.total.backward()
    assert torch.isfinite(trace.losses.total)
    assert len(model.heads) == 3
    for head in model.heads:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        assert head.classes.weight.grad.abs().sum() > 0


def test_losses_add_up_with_falling_weights() -> None:
    """Against the stages computed one by one from the outside."""
    model = cascade(box_loss="giou")
    targets = targets_of([[((5, 5, 40, 40), 0)], [((0, 0, 60, 30), 2)]])
    trace = losses_and_trace(model, targets)
    seen: list[RoiStage] = []
    model.parts = type(model.parts)(loss=lambda inputs: seen.extend(inputs.later) or trace.losses)
    losses_and_trace(model, targets)
    configs = stage_configs(model.config.roi)
    first = roi_losses(trace.rois, trace.train_class_logits, trace.train_deltas, configs[0])
    later = [roi_losses(s.rois, s.class_logits, s.deltas, c) for s, c in zip(seen, configs[1:], strict=True)]
    for place, total in enumerate((trace.losses.roi_class, trace.losses.roi_box)):
        parts = [first[place], *(pair[place] for pair in later)]
        weighted = [w * part.item() for w, part in zip((1, 0.5, 0.25), parts, strict=True)]
        assert total.item() == pytest.approx(sum(weighted), rel=1e-5)


# ----------------------------------------------------------------------------------------- detection


def test_detections_come_from_the_last_boxes_and_the_mean_of_the_scores() -> None:
    model = cascade(score_threshold=0.0)
    batch = batch_of(model.config, [(64, 96), (64, 64)])
    with torch.no_grad():
        trace = model.trace(batch)
        boxes, total = trace.proposals.boxes, 0.0
        for head, config in zip(model.heads, stage_configs(model.config.roi), strict=True):
            _, logits, deltas = model._second_stage(trace.features, boxes, head)
            total, before = total + logits, boxes
            boxes = move_boxes(boxes, logits, deltas, trace.batch.sizes, config)
    assert torch.allclose(trace.class_logits, total / 3, atol=1e-6)
    assert torch.allclose(trace.moved, before) and not torch.equal(before, trace.proposals.boxes)
    assert trace.detections.valid.any()


def test_the_second_look_without_a_limit_uses_the_same_boxes() -> None:
    model = cascade(score_threshold=0.0, candidates=4)
    batch = batch_of(model.config, [(64, 96)])
    with torch.inference_mode():
        assert not model(batch).detections.exact.all()
        found = detect(model, batch)
        trace = model.trace(batch, limits=Limits(candidates=10_000))
        last = stage_configs(model.config.roi)[-1]
    assert torch.equal(found.boxes, trace.detections.boxes) and found.exact.all()
    assert last.delta_weights != model.config.roi.delta_weights
