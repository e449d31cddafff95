"""FCOS: its head, losses and detections, the path as a whole, compiled or not, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from small import Object, batch_of, change, targets_of
from torch import Tensor
from torch._dynamo.utils import counters

from frcnn.boxes import giou
from frcnn.config import BackboneConfig, Config, FcosConfig, FpnConfig, PreprocessConfig
from frcnn.model.compiled import Mode, compile_detector
from frcnn.model.detector import build_network, detect
from frcnn.model.fcos import PRIOR, Fcos, FcosHead, fcos_losses, find_objects, focal_loss
from frcnn.model.parts import Parts
from frcnn.model.points import Points, decode_distances, match_points, per_point, point_targets
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import pad_batch
from frcnn.ops.nms import nms_mask_reference
from frcnn.predict import Detector
from frcnn.structures import Detections, FcosLosses, FcosOutput, ImageBatch, Matches, Targets

SIZE = (64, 96)
RANGES = FcosConfig(channels=16, size_ranges=((0, 16), (16, 32), (32, None)))
PAPER = RANGES.model_copy(
    update={"distances": "exp", "box_loss": "giou", "norm": "group", "centre_radius": 1.5}
)
STRIDES = (4, 8, 16)
OBJECTS: list[list[Object]] = [[((8, 8, 56, 56), 0), ((50, 10, 90, 40), 2)], [((5, 5, 40, 50), 1)]]
PICTURES = [SIZE, (60, 50)]


def tiny(fcos: FcosConfig = RANGES) -> Config:
    """The smallest of backbones, strides 4, 8 and 16."""
    return Config(
        recipe="tiny-fcos",
        detector="fcos",
        preprocess=PreprocessConfig(min_size=64, max_size=128),
        backbone=BackboneConfig(name="test_byobnet", levels=(1, 2, 3), norm="frozen"),
        fpn=FpnConfig(channels=16, extra_pool=False),
        fcos=fcos,
    )


def build(config: Config | None = None, classes: int = 3, seed: int = 0) -> Fcos:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(config or tiny(), classes)
    assert isinstance(model, Fcos)
    return model.eval()


@cache
def shared() -> Fcos:
    """One network for the tests that leave it as they found it."""
    return build()


def inputs(objects: list[list[Object]] | None = None) -> tuple[ImageBatch, Targets]:
    return batch_of(tiny(), PICTURES), targets_of(OBJECTS if objects is None else objects)


def losses_of(model: Fcos, batch: ImageBatch, targets: Targets) -> FcosLosses:
    losses = model(batch, targets, model.draw_noise(batch, targets, 0)).losses
    assert isinstance(losses, FcosLosses)
    return losses


def pictures(
    sizes: Sequence[tuple[int, int]], original: Sequence[tuple[int, int]] | None = None
) -> ImageBatch:
    """A batch of these true sizes in SIZE, without pixels worth looking at."""
    true = torch.tensor(sizes, dtype=torch.float32).view(-1, 2)
    first = true if original is None else torch.tensor(original, dtype=torch.float32)
    return ImageBatch(torch.zeros(len(true), 3, *SIZE), true, true / first, first)


def output_of(
    images: int, classes: int = 3, seed: int = 0, spread: float = 3.0, config: FcosConfig = RANGES
) -> FcosOutput:
    """What a head might say, at random."""
    generator = torch.Generator().manual_seed(seed)
    made = Points(config, STRIDES)
    points, levels = made(*SIZE), made.level_sizes(*SIZE)

    def draw(*shape: int) -> Tensor:
        return torch.randn(images, len(points), *shape, generator=generator)

    strides = per_point(STRIDES, levels, points.device)
    return FcosOutput(spread * draw(classes) - 4, draw(4) + 2, draw(), points, strides, levels)


def matched(output: FcosOutput, targets: Targets, batch: ImageBatch, config: FcosConfig = RANGES) -> Matches:
    return match_points(output.points, batch.sizes, targets, config, STRIDES, output.level_sizes)


# ------------------------------------------------------------------------------------------- empty cases


@pytest.mark.parametrize("fcos", [RANGES, PAPER], ids=["S2", "paper"])
@pytest.mark.parametrize("columns", [0, 8])
def test_a_batch_of_empty_pictures_has_finite_losses_and_all_gradients(
    fcos: FcosConfig, columns: int
) -> None:
    model = build(tiny(fcos))
    batch, targets = inputs([[], []])
    losses = losses_of(model, batch, targets.map(lambda t: t[:, :columns]))
    losses.total.backward()
    assert losses.fcos_box == losses.fcos_centerness == 0 < losses.fcos_class.item() < math.inf
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(g is not None and g.isfinite().all() for g in trained.values())


def test_no_pictures_give_no_detections_and_no_loss() -> None:
    output, batch, targets = output_of(0), pictures([]), targets_of([[]]).map(lambda t: t[:0])
    losses = fcos_losses(output, matched(output, targets, batch), targets, RANGES)
    assert losses.total == 0
    found = find_objects(output, batch, RANGES)
    assert found.boxes.shape == (0, 100, 4) and found.exact.shape == (0,)


def test_nothing_above_the_threshold_is_nothing_found() -> None:
    output = replace(output_of(2), class_logits=torch.full((2, 504, 3), -50.0))
    found = find_objects(output, pictures([SIZE, SIZE]), RANGES)
    assert not found.valid.any() and not found.boxes.any() and not found.scores.any() and found.exact.all()


# ------------------------------------------------------------------------------------------------- head


@pytest.mark.parametrize(
    "fcos", [RANGES, PAPER, RANGES.model_copy(update={"convs": 0})], ids=["S2", "paper", "no convolution"]
)
def test_the_head_answers_rows_first_for_every_point(fcos: FcosConfig) -> None:
    head = FcosHead(8, 5, 3, fcos)
    maps = [torch.randn(2, 8, h, w) for h, w in ((6, 9), (3, 5), (2, 3))]
    logits, boxes = head(maps)
    assert logits.shape == (2, 54 + 15 + 6, 5) and boxes.shape == (2, 75, 5)
    assert logits.dtype == boxes.dtype == torch.float32
    one = head.classes(head.class_branch(maps[1]))[:, :, 1, 4]
    torch.testing.assert_close(logits[:, 54 + 1 * 5 + 4], one)
    if fcos.distances == "exp":
        assert (boxes[..., :4] > 0).all()


def test_a_fresh_network_finds_every_class_with_the_prior() -> None:
    trace = shared().trace(inputs()[0])
    assert trace.fcos is not None and trace.rpn is None
    assert trace.fcos.class_logits.sigmoid().mean().item() == pytest.approx(PRIOR, rel=0.2)


def test_each_level_learns_its_scale() -> None:
    model = build(tiny(PAPER))
    objects: list[Object] = [((4, 4, 20, 20), 0), ((30, 6, 70, 46), 1), ((2, 2, 92, 60), 2)]  # one a level
    losses_of(model, *inputs([objects, []])).total.backward()
    assert model.head.scales is not None and model.head.scales.grad is not None
    assert (model.head.scales.grad != 0).all()
    with torch.no_grad():
        model.head.scales.fill_(1e6)  # exp stays finite
    assert losses_of(model, *inputs()).total.isfinite()


# ----------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.0), (0.9, 5.0)])
def test_focal_loss_equals_torchvisions(alpha: float, gamma: float) -> None:
    logits = torch.linspace(-12, 12, 97).repeat(2)
    wanted = torch.arange(194) < 97
    found = focal_loss(logits, wanted, alpha, gamma)
    torch.testing.assert_close(
        found, torchvision.ops.sigmoid_focal_loss(logits, wanted.float(), alpha, gamma), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_certain_answers_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([-300.0, 300.0, -300.0, 300.0], requires_grad=True)
    found = focal_loss(logits, torch.tensor([True, True, False, False]), 0.25, gamma)
    found.sum().backward()
    assert found[[1, 2]].tolist() == [0, 0] and found[[0, 3]].tolist() == pytest.approx([75, 225])
    assert logits.grad is not None and logits.grad.isfinite().all()


def plain_losses(output: FcosOutput, matches: Matches, targets: Targets, config: FcosConfig) -> list[float]:
    """The three losses point by point."""
    classification = box = central = 0.0
    positives = 0
    for image in range(len(matches.labels)):
        for a, (x, y) in enumerate(output.points.tolist()):
            kind, stride = int(matches.labels[image, a]), float(output.strides[a])
            g = int(matches.index[image, a])
            for k, logit in enumerate(output.class_logits[image, a].tolist()):
                if kind >= 0:
                    p = 1 / (1 + math.exp(-logit))
                    if kind == 1 and targets.labels[image, g] == k:
                        classification -= config.focal_alpha * (1 - p) ** config.focal_gamma * math.log(p)
                    else:
                        rest = 1 - config.focal_alpha
                        classification -= rest * p**config.focal_gamma * math.log(1 - p)
            if kind != 1:
                continue
            positives += 1
            x1, y1, x2, y2 = targets.boxes[image, g].tolist()
            left, top, right, bottom = (v / stride for v in (x - x1, y - y1, x2 - x, y2 - y))
            said = output.distances[image, a].tolist()
            if config.box_loss == "l1":
                wanted = (left, top, right, bottom)
                box += sum(abs(u - v) for u, v in zip(said, wanted, strict=True)) / 4
            else:
                dx1, dy1, dx2, dy2 = (max(v, 0) * stride for v in said)
                pred = torch.tensor([x - dx1, y - dy1, x + dx2, y + dy2])
                box += 1 - float(giou(pred, targets.boxes[image, g]))
            near = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            p, wish = 1 / (1 + math.exp(-float(output.centerness_logits[image, a]))), math.sqrt(near)
            central -= wish * math.log(p) + (1 - wish) * math.log(1 - p)
    sums = (classification, config.box_weight * box, config.centerness_weight * central)
    return [value / max(positives, 1) for value in sums]


@pytest.mark.parametrize("box_loss", ["l1", "giou"])
def test_losses_equal_plain_python(box_loss: str) -> None:
    update = {"box_loss": box_loss, "box_weight": 2.0, "centerness_weight": 0.5, "focal_gamma": 1.5}
    config = RANGES.model_copy(update=update)
    output, batch = output_of(2), pictures([SIZE, (50, 70)])
    targets = targets_of(
        [[((4, 4, 60, 50), 0), ((50, 10, 90, 40), 2), ((20, 20, 28, 30), 1)], [((5, 5, 40, 45), 1)]],
        [[False, True, False], [False]],
    )
    matches = matched(output, targets, batch)
    assert {-1, 0, 1} == set(matches.labels.unique().tolist())
    losses = fcos_losses(output, matches, targets, config)
    assert [v.item() for v in losses.parts()] == pytest.approx(
        plain_losses(output, matches, targets, config), rel=1e-4
    )


def test_points_in_ignored_boxes_have_no_gradient_at_all() -> None:
    """A region without a class, and an ignored object: their points teach nothing; all others do."""
    output, batch = output_of(1), pictures([SIZE])
    objects = [((0, 0, 40, 64), -1), ((40, 0, 64, 30), 1), ((70, 30, 90, 60), 2)]
    targets = targets_of([objects], [[True, True, False]])
    leaves = [
        v.clone().requires_grad_() for v in (output.class_logits, output.distances, output.centerness_logits)
    ]
    said = replace(output, class_logits=leaves[0], distances=leaves[1], centerness_logits=leaves[2])
    fcos_losses(said, matched(output, targets, batch), targets, RANGES).total.backward()
    x, y = output.points.unbind(-1)
    inside = ((x < 40) & (y < 64)) | ((x > 40) & (x < 64) & (y < 30))
    classes, distances, central = (leaf.grad[0] for leaf in leaves if leaf.grad is not None)
    assert inside.sum() > 100 and not classes[inside].any()
    assert (classes[~inside] != 0).all(), "background and objects learn"
    object_points = matched(output, targets, batch).labels[0] == 1
    assert (central != 0).equal(object_points) and (distances != 0).all(1).equal(object_points)


def test_the_losses_do_not_look_at_the_padding() -> None:
    """Not even where an object reaches into it."""
    output, targets = output_of(2), targets_of(OBJECTS)
    batch = pictures([SIZE, (32, 48)])
    once = fcos_losses(output, matched(output, targets, batch), targets, RANGES)
    wild = output.class_logits.clone()
    outside = (output.points[:, 0] >= 48) | (output.points[:, 1] >= 32)
    wild[1, outside] = 90.0
    again = fcos_losses(replace(output, class_logits=wild), matched(output, targets, batch), targets, RANGES)
    assert once.as_dict() == again.as_dict()


# ------------------------------------------------------------------------------------------- detections


def perfect(objects: list[list[Object]], batch: ImageBatch) -> FcosOutput:
    """What a head would say that has learnt everything."""
    targets, output = targets_of(objects), output_of(len(batch))
    matches = matched(output, targets, batch)
    labels, distances, central = point_targets(output.points, output.strides, matches, targets)
    classes = 40.0 * (labels[..., None] == torch.arange(3)) - 20
    return replace(output, class_logits=classes, distances=distances, centerness_logits=central.logit(1e-6))


@pytest.mark.parametrize("factor", [1, 2])
def test_perfect_answers_give_the_objects_back_in_original_pixels(factor: int) -> None:
    objects: list[list[Object]] = [
        [((8, 8, 40, 56), 0), ((50, 10, 90, 40), 2), ((60, 50, 72, 60), 2)],
        [((5, 5, 40, 48), 1), ((10, 10, 25, 22), 0)],
        [],
    ]
    sizes = [SIZE, (56, 50), SIZE]
    batch = pictures(sizes, [(h * factor, w * factor) for h, w in sizes])
    found = find_objects(perfect(objects, batch), batch, RANGES)
    assert found.exact.all() and found.valid.sum(1).tolist() == [3, 2, 0]
    for (boxes, scores, labels), wanted in zip(found.per_image(), objects, strict=True):
        pairs = sorted(zip(boxes.round().int().tolist(), labels.tolist(), strict=True))
        assert pairs == sorted(([factor * int(v) for v in box], label) for box, label in wanted)
        assert (scores > 0.5).all() and scores.equal(scores.sort(descending=True).values)


def plain_detections(output: FcosOutput, image: int, size: tuple[int, int], config: FcosConfig) -> list[Any]:
    """(label, point, box, score) of one picture, best first, by plain Python."""
    pairs, start = [], 0
    for count in output.level_sizes:
        level = []
        for a in range(start, start + count):
            x, y = output.points[a].tolist()
            central = 1 / (1 + math.exp(-float(output.centerness_logits[image, a])))
            for k, logit in enumerate(output.class_logits[image, a].tolist()):
                score = math.sqrt(central / (1 + math.exp(-logit)))
                if score > config.score_threshold and x < size[1] and y < size[0]:
                    level.append((score, a, k))
        pairs += sorted(level, reverse=True)[: config.pre_nms]
        start += count
    pairs.sort(reverse=True)
    rows = [a for _, a, _ in pairs]
    boxes = decode_distances(output.points[rows], output.distances[image, rows], output.strides[rows])
    for i in range(2):
        boxes[:, i::2] = boxes[:, i::2].clamp(0, size[1 - i])
    large = ((boxes[:, 2:] - boxes[:, :2]) >= config.min_size).all(1)
    groups = torch.tensor([[k for *_, k in pairs]])
    keep = nms_mask_reference(boxes[None], config.nms_iou, groups, large[None])[0].tolist()
    found = [(k, a, box, s) for (s, a, k), box, ok in zip(pairs, boxes.tolist(), keep, strict=True) if ok]
    return found[: config.max_dets]


@pytest.mark.parametrize("pre_nms", [15, 1000])
def test_detections_equal_plain_python(pre_nms: int) -> None:
    config = RANGES.model_copy(update={"pre_nms": pre_nms, "score_threshold": 0.35, "max_dets": 40})
    output, sizes = output_of(2), [SIZE, (40, 70)]
    found = find_objects(output, pictures(sizes), config)
    for image, size in enumerate(sizes):
        expected = plain_detections(output, image, size, config)
        count = int(found.valid[image].sum())
        assert count == len(expected) > 10
        assert found.labels[image, :count].tolist() == [k for k, *_ in expected]
        assert found.roi_index[image, :count].tolist() == [a for _, a, *_ in expected]
        torch.testing.assert_close(found.boxes[image, :count], torch.tensor([b for *_, b, _ in expected]))
        torch.testing.assert_close(found.scores[image, :count], torch.tensor([s for *_, s in expected]))


def test_what_the_candidate_limit_may_have_cost_is_told_and_mended() -> None:
    """Not exact: fewer survivors than asked for that score as much as what was cut."""
    output, batch = output_of(2, spread=1.0), pictures([SIZE, SIZE])
    whole = find_objects(output, batch, RANGES, Limits(candidates=2**31 - 1))
    short = find_objects(output, batch, RANGES, Limits(candidates=20))
    assert whole.exact.all() and not short.exact.any() and short.valid.sum() < whole.valid.sum()
    few = find_objects(output, batch, RANGES, Limits(candidates=20, max_dets=3))
    assert few.exact.all(), "the best three are the same with and without the limit"
    assert few.boxes.equal(whole.boxes[:, :3]) and few.scores.equal(whole.scores[:, :3])


@pytest.mark.parametrize("seed", range(6))
def test_exact_detections_are_those_without_the_limit(seed: int) -> None:
    output, batch = output_of(8, seed=seed, spread=2.0), pictures([SIZE] * 8)
    for most, limit in ((5, 12), (10, 16), (30, 60)):
        whole = find_objects(output, batch, RANGES, Limits(max_dets=most, candidates=2**31 - 1))
        found = find_objects(output, batch, RANGES, Limits(max_dets=most, candidates=limit))
        for i in found.exact.nonzero()[:, 0].tolist():
            assert found.boxes[i].equal(whole.boxes[i]) and found.scores[i].equal(whole.scores[i])


def test_detect_looks_again_where_the_limit_may_have_cost_something() -> None:
    config = tiny(RANGES.model_copy(update={"pre_nms": 5, "score_threshold": 0.01, "distances": "exp"}))
    model, batch = build(config), inputs()[0]
    with torch.inference_mode():
        first = model.trace(batch).detections
        found = detect(model, batch)
        whole = detect(model, batch, Limits(candidates=10**6))
    assert first is not None and not first.exact.any()
    assert found.exact.all() and found.valid.sum() > first.valid.sum()
    assert found.boxes.equal(whole.boxes)


def test_limits_of_a_caller_hold() -> None:
    output, batch = output_of(2), pictures([SIZE, SIZE])
    assert (find_objects(output, batch, RANGES, Limits(score=0.5)).scores[:, 0] > 0.5).all()
    found = find_objects(output, batch, RANGES, Limits(score=0.5, max_dets=7))
    assert found.boxes.shape == (2, 7, 4) and (found.scores[found.valid] > 0.5).all()
    floors = torch.tensor([0.9, 0.2, 1.0])
    found = find_objects(output, batch, RANGES, Limits(floors=floors))
    assert found.valid.any() and (found.scores >= floors[found.labels])[found.valid].all()
    assert not (found.labels[found.valid] == 2).any()


def test_nan_and_infinite_answers_are_not_found() -> None:
    output = output_of(1)
    logits, distances = output.class_logits.clone(), output.distances.clone()
    logits[0, :50] = math.nan
    distances[0, 50:100] = math.nan
    found = find_objects(replace(output, class_logits=logits, distances=distances), pictures([SIZE]), RANGES)
    assert found.boxes.isfinite().all() and found.scores.isfinite().all()
    assert found.valid.any() and (found.roi_index[found.valid] >= 100).all()


def test_nothing_is_found_from_points_in_the_padding() -> None:
    output = output_of(1)
    logits = torch.full_like(output.class_logits, -30.0)
    outside = (output.points >= 40).any(1)
    logits[0, outside] = 30.0
    batch = pictures([(40, 40)])
    assert not find_objects(replace(output, class_logits=logits), batch, RANGES).valid.any()
    found = find_objects(replace(output, class_logits=-logits), batch, RANGES)
    assert found.valid.any() and (found.boxes <= 40).all() and (found.boxes >= 0).all()


# ------------------------------------------------------------------------------------------ as a network


def test_pictures_do_not_depend_on_their_company() -> None:
    model, (batch, _) = shared(), inputs()
    together = model.trace(batch).fcos
    alone = model.trace(batch.map(lambda t: t[1:])).fcos
    assert together is not None and alone is not None
    torch.testing.assert_close(alone.class_logits[0], together.class_logits[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.distances[0], together.distances[1], rtol=1e-4, atol=1e-5)


def test_a_flipped_picture_has_the_same_losses_and_flipped_detections() -> None:
    output, batch, targets = output_of(2), pictures([SIZE, SIZE]), targets_of(OBJECTS)
    x1, y1, x2, y2 = targets.boxes.unbind(-1)
    mirrored = replace(targets, boxes=torch.stack([SIZE[1] - x2, y1, SIZE[1] - x1, y2], -1))
    turned = _mirror(output, Points(RANGES, STRIDES).grids(*SIZE))
    a = fcos_losses(output, matched(output, targets, batch), targets, RANGES)
    b = fcos_losses(turned, matched(output, mirrored, batch), mirrored, RANGES)
    torch.testing.assert_close(a.as_dict(), b.as_dict())
    one, two = find_objects(output, batch, RANGES), find_objects(turned, batch, RANGES)
    assert one.valid.all()
    torch.testing.assert_close(one.scores, two.scores)
    torch.testing.assert_close(one.boxes[..., [0, 2]], SIZE[1] - two.boxes[..., [2, 0]])
    torch.testing.assert_close(one.boxes[..., [1, 3]], two.boxes[..., [1, 3]])


def _mirror(output: FcosOutput, grids: Sequence[tuple[int, int]]) -> FcosOutput:
    def turn(values: Tensor) -> Tensor:
        parts = values.split(list(output.level_sizes), 1)
        turned = [p.unflatten(1, grid).flip(2).flatten(1, 2) for p, grid in zip(parts, grids, strict=True)]
        return torch.cat(turned, 1)

    return replace(
        output,
        class_logits=turn(output.class_logits),
        distances=turn(output.distances)[..., [2, 1, 0, 3]],
        centerness_logits=turn(output.centerness_logits),
    )


def test_bf16_changes_no_target() -> None:
    model, (batch, targets) = shared(), inputs()
    noise = model.draw_noise(batch, targets, 0)
    plain = model.trace(batch, targets, noise, detect=True)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.trace(batch, targets, noise, detect=True)
    assert plain.rpn_matches is not None and cast.rpn_matches is not None
    assert cast.rpn_matches.labels.equal(plain.rpn_matches.labels)
    assert (
        cast.fcos is not None and cast.fcos.class_logits.dtype == cast.fcos.distances.dtype == torch.float32
    )
    assert cast.losses is not None and plain.losses is not None and cast.detections is not None
    assert all(v.dtype == torch.float32 for v in cast.losses.parts())
    torch.testing.assert_close(cast.losses.as_dict(), plain.losses.as_dict(), rtol=0.05, atol=0.02)
    assert cast.detections.boxes.dtype == torch.float32


def shapes(record: Any) -> Any:
    if isinstance(record, torch.Tensor):
        return tuple(record.shape)
    if isinstance(record, tuple):
        return [shapes(v) for v in record]
    return {k: shapes(v) for k, v in vars(record).items()} if hasattr(record, "__dict__") else record


def test_shapes_do_not_depend_on_what_the_pictures_show() -> None:
    model, seen = shared(), []
    for seed, objects in ((0, []), (1, [((8.0, 8, 56, 56), 1)] * 8)):
        batch = batch_of(model.config, [SIZE, (40, 70)] if seed else [SIZE, SIZE], seed)
        targets = targets_of([objects, []])
        with torch.no_grad():
            noise = model.draw_noise(batch, targets, seed)
            seen.append(shapes(model.trace(batch, targets, noise, detect=True)))
    assert seen[0] == seen[1] and seen[0]["fcos"]["level_sizes"] == [384, 96, 24]


def test_what_fcos_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"part matcher is replaced, and recipe 'tiny-fcos' .* no such part"):
        Fcos(tiny(), 3, Parts(matcher=lambda *_: Matches(torch.zeros(1), torch.zeros(1))))
    with pytest.raises(ValueError, match="no stage 'rpn' to freeze; it has backbone"):
        Fcos(change(tiny(), train={"freeze": ("rpn",)}), 3)
    batch = replace(inputs()[0], given=torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"no second stage to look at given proposals; leave them out"):
        shared().trace(batch)
    assert not any(
        p.requires_grad for p in build(change(tiny(), train={"freeze": ("backbone",)})).fpn.parameters()
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_ranges": ((0, 16),)}, "size_ranges for 1 levels, the features have 3; give a"),
        ({"size_ranges": ((0, 16), (32, 16), (32, None))}, r"\(32, 16\) must be \(low, high\)"),
        ({"box_loss": "giou"}, "'giou' learns nothing .* set distances 'exp' too"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    tree = tiny().model_dump()
    tree["fcos"] |= values
    with pytest.raises(ValueError, match=message):
        Config(**tree)


def test_limits_are_those_of_the_section_that_is_read() -> None:
    config = change(tiny(), fcos={"max_dets": 7, "score_threshold": 0.3})
    assert (config.max_dets, config.score_threshold) == (7, 0.3)
    raised = config.with_limits(9)
    assert (raised.fcos.max_dets, raised.fcos.score_threshold, raised.roi) == (9, 0.3, config.roi)
    other = config.model_copy(update={"detector": "two_stage"})
    assert (other.max_dets, other.score_threshold) == (config.roi.max_dets, config.roi.score_threshold)
    assert other.with_limits(9, 0.5).roi.score_threshold == 0.5


# --------------------------------------------------------------------------------------------- compiled


@pytest.fixture
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def same(found: Detections, expected: Detections) -> None:
    assert expected.valid.any()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    assert found.labels.equal(expected.labels) and found.valid.equal(expected.valid)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("mode", ["regional", "step"])
@pytest.mark.parametrize("fcos", [RANGES, pytest.param(PAPER, marks=pytest.mark.slow)], ids=["S2", "paper"])
def test_the_graph_finds_and_learns_the_same(mode: Mode, fcos: FcosConfig) -> None:
    fcos = fcos.model_copy(update={"score_threshold": 0.01, "pre_nms": 5})
    model, (batch, targets) = build(tiny(fcos)), inputs()
    with torch.no_grad():
        model.head.distances.bias.fill_(1.0)  # type: ignore[union-attr]  # boxes with an area
    wanted = [None, Limits(floors=torch.tensor([0.01, 0.9, 0.06]), max_dets=3)]

    def find() -> list[Detections]:
        with torch.inference_mode():
            return [detect(model, batch, limits) for limits in wanted]

    expected = find()
    compiled = compile_detector(model, mode, backend="aot_eager")
    for one, other in zip(find(), expected, strict=True):
        same(one, other)
    assert compiled.inside == len(wanted)
    assert counters["stats"]["unique_graphs"] == {"regional": 1, "step": 2}[mode]

    def learn() -> tuple[FcosLosses, list[Tensor | None]]:
        model.zero_grad()
        losses = losses_of(model, batch, targets)
        losses.total.backward()
        return losses.detach(), [p.grad for p in model.parameters()]

    model.compiled = None
    losses, gradients = learn()
    compiled = compile_detector(model, mode, training=True, backend="aot_eager")
    again, others = learn()
    assert compiled.inside == 1
    torch.testing.assert_close(again.as_dict(), losses.as_dict())
    for mine, theirs in zip(others, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("_fresh")
def test_one_graph_of_one_size_for_one_and_four_pictures() -> None:
    model, nodes = shared(), []

    def backend(graph: torch.fx.GraphModule, _: list[Any]) -> Any:
        nodes.append(sum(len(m.graph.nodes) for m in graph.modules() if isinstance(m, torch.fx.GraphModule)))
        return graph.forward

    stages = torch.compile(model.stages, fullgraph=True, backend=backend, dynamic=False)
    for images in (1, 4):
        batch, targets = batch_of(model.config, [SIZE] * images), targets_of([OBJECTS[0]] * images)
        stages(batch, model.anchors(*SIZE), targets, model.draw_noise(batch, targets, 0), True)
    assert len(nodes) == 2 and nodes[0] == nodes[1] > 100


# ---------------------------------------------------------------------------------------- learning, files


@pytest.mark.parametrize("fcos", [RANGES, PAPER], ids=["S2", "paper"])
def test_it_learns_a_scene_by_heart(fcos: FcosConfig) -> None:
    model = build(change(tiny(fcos), backbone={"norm": "batch"}), classes=2)
    generator = torch.Generator().manual_seed(0)
    objects: list[list[Object]] = [[((8, 8, 32, 30), 0), ((50, 20, 90, 60), 1)], [((30, 10, 60, 50), 1)]]
    images = []
    for items in objects:
        pixels = torch.randint(90, 130, (3, *SIZE), generator=generator, dtype=torch.uint8)
        for (x1, y1, x2, y2), label in items:
            pixels[label, int(y1) : int(y2), int(x1) : int(x2)] = 230
        images.append(pixels)
    batch, targets = pad_batch(images, [SIZE, SIZE], model.config.preprocess), targets_of(objects)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    history = []
    for _ in range(150):
        optimizer.zero_grad()
        losses = losses_of(model, batch, targets)
        losses.total.backward()
        optimizer.step()
        history.append(losses.detach())
    first, last = history[0], history[-1]
    assert last.total < 0.5 * first.total
    assert last.fcos_class < 0.3 * first.fcos_class and last.fcos_box < 0.6 * first.fcos_box
    with torch.inference_mode():
        found = detect(model, batch, Limits(score=0.4))
    for (boxes, _, labels), items in zip(found.per_image(), objects, strict=True):
        ious = torchvision.ops.box_iou(boxes, torch.tensor([box for box, _ in items], dtype=torch.float32))
        alike = labels[:, None] == torch.tensor([label for _, label in items])
        assert ((ious > 0.5) & alike).any(0).all()


def test_a_saved_model_finds_the_same(tmp_path: Path) -> None:
    config = change(tiny(PAPER), fcos={"score_threshold": 0.01})
    detector = Detector.from_config(config, ["a", "b"])
    detector.save(tmp_path / "model.safetensors")
    again = Detector.load(tmp_path / "model.safetensors")
    assert isinstance(again.model, Fcos) and again.config == config
    picture = torch.randint(
        0, 256, (3, 70, 90), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    mine, theirs = (
        d.predict(picture.numpy().transpose(1, 2, 0), precision="fp32")[0] for d in (detector, again)
    )
    assert len(mine.scores) and (mine.boxes == theirs.boxes).all() and (mine.scores == theirs.scores).all()
