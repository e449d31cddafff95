"""Parity with torchvision's detectors: stage by stage, end to end, and in the losses.

Weights are random (no download); heads are scaled so that there are many detections of many classes.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision_pair import CLASSES, as_floats, exact_nms, make, ours, pictures

from frcnn.boxes import iou
from frcnn.model.postprocess import postprocess
from frcnn.model.proposals import limits, select_proposals
from frcnn.predict import Detector
from frcnn.structures import ImageBatch, Proposals, RpnOutput
from frcnn.weights.checkpoint import CheckpointError
from frcnn.weights.torchvision import import_config

ARCHITECTURES = [
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Detector]:
    """Theirs and ours."""
    model = make(request.param)
    return model, ours(model, request.param)


class Recorded:
    """What passed between torchvision's stages for one batch."""

    def __init__(self, model: Any, images: list[Tensor]) -> None:
        self.seen: dict[str, Any] = {}
        hooks = [
            part.register_forward_hook(
                lambda _, inputs, output, name=name: self.seen.update({name: (inputs, output)})
            )
            for name, part in (
                ("transform", model.transform),
                ("backbone", model.backbone),
                ("rpn_head", model.rpn.head),
                ("rpn", model.rpn),
                ("pool", model.roi_heads.box_roi_pool),
                ("predictor", model.roi_heads.box_predictor),
            )
        ]
        with torch.no_grad(), exact_nms():
            self.detections = model(images)
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def recorded(pair: tuple[nn.Module, Detector]) -> Recorded:
    """Their stages for three pictures of different sizes in one batch."""
    return Recorded(pair[0], as_floats(pictures()))


def matched(boxes: Tensor, scores: Tensor, labels: Tensor, theirs: dict[str, Tensor]) -> int:
    """How many of ours have a partner of the same label, within 0.02 px and 1e-4, one to one."""
    if not len(boxes) or not len(theirs["boxes"]):
        return 0
    free = torch.ones(len(theirs["boxes"]), dtype=torch.bool)
    count = 0
    for box, score, label in zip(boxes, scores, labels, strict=True):
        same = free & (theirs["labels"] == label + 1)
        overlap = torch.where(same, iou(box[None], theirs["boxes"])[0], -1.0)
        best = overlap.argmax()
        near = (theirs["boxes"][best] - box).abs().max() <= 0.02 and abs(
            theirs["scores"][best] - score
        ) <= 1e-4
        if overlap[best] >= 0 and near:
            free[best] = False
            count += 1
    return count


def check_end_to_end(found: list[Any], theirs: list[dict[str, Tensor]]) -> None:
    """At least 99 % of the detections are matched one to one, in every picture."""
    assert len(found) == len(theirs)
    total = sum(len(t["boxes"]) for t in theirs)
    assert total > 60 * len(theirs), "a parity test with few detections says little"
    assert len({int(v) for t in theirs for v in t["labels"]}) >= 5
    same = 0
    for result, t in zip(found, theirs, strict=True):
        assert abs(len(result.boxes) - len(t["boxes"])) <= 1
        same += matched(*(torch.as_tensor(v) for v in (result.boxes, result.scores, result.labels)), t)
    assert same >= 0.99 * total, f"{same} of {total}"


def test_single_pictures(pair: tuple[nn.Module, Detector]) -> None:
    theirs, detector = pair
    for picture in pictures():
        with torch.no_grad(), exact_nms():
            expected = theirs(as_floats([picture]))
        check_end_to_end(detector.predict(picture, score=0.05, precision="fp32"), expected)


def test_a_batch_of_three_sizes(pair: tuple[nn.Module, Detector], recorded: Recorded) -> None:
    found = pair[1].predict(pictures(), score=0.05, batch=3, precision="fp32")
    check_end_to_end(found, recorded.detections)


def test_an_array_and_a_tensor_are_the_picture(pair: tuple[nn.Module, Detector]) -> None:
    picture = pictures()[0]
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    expected = pair[1].predict(picture)[0]
    for other in (tensor, tensor.permute(1, 2, 0).numpy(), tensor.float() / 255):
        found = pair[1].predict(other)[0]
        assert (found.boxes == expected.boxes).all() and (found.scores == expected.scores).all()


def test_pixels(pair: tuple[nn.Module, Detector], recorded: Recorded) -> None:
    images, _ = recorded.seen["transform"][1]
    batch = pair[1].trace(pictures()).batch
    assert batch.pixels.shape == images.tensors.shape
    assert [tuple(int(v) for v in s) for s in batch.sizes] == [tuple(s) for s in images.image_sizes]
    torch.testing.assert_close(batch.pixels, images.tensors, rtol=0, atol=1e-6)


def test_features_logits_and_anchors(pair: tuple[nn.Module, Detector], recorded: Recorded) -> None:
    trace = pair[1].trace(pictures())
    for mine, theirs in zip(trace.features, recorded.seen["backbone"][1].values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.std()))
    logits, deltas = recorded.seen["rpn_head"][1]
    n = len(pictures())
    flat = torch.cat([v.permute(0, 2, 3, 1).reshape(n, -1) for v in logits], 1)
    torch.testing.assert_close(trace.rpn.objectness_logits, flat, rtol=1e-4, atol=1e-3)
    flat = torch.cat([v.permute(0, 2, 3, 1).reshape(n, -1, 4) for v in deltas], 1)
    torch.testing.assert_close(trace.rpn.deltas, flat, rtol=1e-4, atol=1e-3)
    images, _ = recorded.seen["transform"][1]
    anchors = pair[0].rpn.anchor_generator(images, list(recorded.seen["backbone"][1].values()))
    assert torch.equal(trace.rpn.anchors, anchors[0])


def their_rpn(detector: Detector, recorded: Recorded) -> RpnOutput:
    """Our value made of their head's output."""
    trace_anchors = detector.model.anchors(*recorded.seen["transform"][1][0].tensors.shape[-2:])
    logits, deltas = recorded.seen["rpn_head"][1]
    n = logits[0].shape[0]
    return RpnOutput(
        torch.cat([v.permute(0, 2, 3, 1).reshape(n, -1) for v in logits], 1),
        torch.cat([v.permute(0, 2, 3, 1).reshape(n, -1, 4) for v in deltas], 1),
        trace_anchors,
        tuple(v.shape[1] * v.shape[2] * v.shape[3] for v in logits),
    )


def test_proposals_from_their_rpn_output(pair: tuple[nn.Module, Detector], recorded: Recorded) -> None:
    config = pair[1].config
    images, _ = recorded.seen["transform"][1]
    sizes = torch.tensor([tuple(s) for s in images.image_sizes], dtype=torch.float32)
    rpn = their_rpn(pair[1], recorded)
    found = select_proposals(rpn, sizes, config.proposals, config.rpn, limits(config.proposals, False))
    for i, theirs in enumerate(recorded.seen["rpn"][1][0]):
        mine = found.boxes[i][found.valid[i]]
        assert mine.shape == theirs.shape and len(mine) > 100
        # equal objectness (sigmoid saturates) may swap neighbours: compare as sets
        nearest = torch.cdist(mine, theirs, p=float("inf")).min(1).values
        assert nearest.max() <= 1e-3


def test_pooling_and_detections_from_their_proposals(
    pair: tuple[nn.Module, Detector], recorded: Recorded
) -> None:
    detector = pair[1]
    proposals = recorded.seen["rpn"][1][0]
    least = min(len(p) for p in proposals)
    boxes = torch.stack([p[:least] for p in proposals])
    features = list(recorded.seen["backbone"][1].values())
    with torch.no_grad():
        pooled, logits, deltas = detector.model._second_stage(features, boxes, detector.model.box_head)
    starts = torch.tensor([0, *[len(p) for p in proposals]]).cumsum(0)
    rows = torch.cat([torch.arange(least) + s for s in starts[:-1]])
    torch.testing.assert_close(pooled.flatten(0, 1), recorded.seen["pool"][1][rows], rtol=1e-4, atol=1e-3)
    their_logits, their_deltas = recorded.seen["predictor"][1]
    rolled = torch.cat([their_logits[:, 1:], their_logits[:, :1]], 1)
    torch.testing.assert_close(logits.flatten(0, 1), rolled[rows], rtol=1e-3, atol=1e-3)
    per_class = their_deltas.view(len(their_deltas), -1, 4)[:, 1:]
    torch.testing.assert_close(deltas.flatten(0, 1), per_class[rows], rtol=1e-3, atol=1e-3)

    # their logits and deltas for all proposals, padded, through our post-processing
    most, k = max(len(p) for p in proposals), len(CLASSES)
    padded = [torch.zeros(3, most, 4), torch.zeros(3, most, k + 1), torch.zeros(3, most, k, 4)]
    valid = torch.zeros(3, most, dtype=torch.bool)
    for i, p in enumerate(proposals):
        part = slice(int(starts[i]), int(starts[i + 1]))
        for target, value in zip(padded, (p, rolled[part], per_class[part]), strict=True):
            target[i, : len(p)] = value
        valid[i, : len(p)] = True
    images, _ = recorded.seen["transform"][1]
    sizes = torch.tensor([tuple(s) for s in images.image_sizes], dtype=torch.float32)
    original = torch.tensor([(p.height, p.width) for p in pictures()], dtype=torch.float32)
    batch = ImageBatch(images.tensors, sizes, sizes / original, original)
    stage = Proposals(padded[0], torch.zeros(3, most), torch.zeros(3, most, dtype=torch.long), valid)
    found = postprocess(stage, padded[1], padded[2], batch, detector.config.roi)
    for (b, s, c), theirs in zip(found.per_image(), recorded.detections, strict=True):
        assert len(b) == len(theirs["boxes"])
        torch.testing.assert_close(s, theirs["scores"], rtol=0, atol=1e-6)
        # equal scores may swap: a partner of the same label and score, one to one
        other = (theirs["labels"] != c[:, None] + 1) | ((theirs["scores"] - s[:, None]).abs() > 1e-6)
        distance = torch.cdist(b, theirs["boxes"], p=float("inf")).masked_fill(other, float("inf"))
        nearest, partner = distance.min(1)
        assert nearest.max() <= 1e-3 and len(partner.unique()) == len(b)


def targets() -> list[dict[str, Tensor]]:
    """Objects in original pixels, each touched by some anchor; one picture has none."""
    return [
        {"boxes": torch.tensor([[20.0, 30, 120, 110], [90, 10, 200, 140]]), "labels": torch.tensor([1, 5])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
        {"boxes": torch.tensor([[5.0, 5, 60, 90]]), "labels": torch.tensor([8])},
    ]


class SameSamples:
    """Makes torchvision draw what ours drew: anchors by index, RoIs by box, because proposal lists differ in
    order.
    """

    def __init__(self, model: Any, trace: Any) -> None:
        self.trace, self.proposals, self.turn = trace, [], 0
        model.rpn.fg_bg_sampler = self.anchors
        assign = model.roi_heads.assign_targets_to_proposals

        def remember(proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]) -> Any:
            self.proposals = proposals
            return assign(proposals, boxes, labels)

        model.roi_heads.assign_targets_to_proposals = remember
        model.roi_heads.subsample = self.rois

    def anchors(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        samples, positive, negative = self.trace.rpn_samples, [], []
        for i, label in enumerate(labels):
            for keep, out in (
                (samples.foreground, positive),
                (samples.valid & ~samples.foreground, negative),
            ):
                mask = torch.zeros(len(label), dtype=torch.uint8)
                mask[samples.index[i][keep[i]]] = 1
                out.append(mask)
            assert (label[positive[-1].bool()] == 1).all() and (label[negative[-1].bool()] == 0).all()
        return positive, negative

    def rois(self, labels: list[Tensor]) -> list[Tensor]:
        rois, out = self.trace.rois, []
        for i, proposals in enumerate(self.proposals):
            mine = rois.boxes[i][rois.valid[i]]
            distance, index = torch.cdist(mine, proposals, p=float("inf")).min(1)
            assert distance.max() < 1e-2 and len(index.unique()) == len(index)
            assert torch.equal(
                labels[i][index], torch.where(rois.foreground, rois.labels + 1, 0)[i][rois.valid[i]]
            )
            out.append(index)
        return out


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_losses_agree_for_the_same_samples(arch: str) -> None:
    theirs = make(arch)
    detector = ours(theirs, arch)
    shifted = [{**t, "labels": t["labels"] - 1} for t in targets()]
    trace = detector.trace(pictures(), shifted)
    assert trace.losses is not None and trace.rois is not None and trace.rois.foreground.sum() > 3
    SameSamples(theirs, trace)
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # the batch's own statistics would see another set of RoIs
    with exact_nms():
        expected = theirs(as_floats(pictures()), targets())
    mine = trace.losses
    names = {
        "loss_objectness": mine.rpn_objectness,
        "loss_rpn_box_reg": mine.rpn_box,
        "loss_classifier": mine.roi_class,
        "loss_box_reg": mine.roi_box,
    }
    for name, value in names.items():
        assert expected[name].detach() > 0
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_state_dict_says_which_batch_norm(pair: tuple[nn.Module, Detector]) -> None:
    state = pair[0].state_dict()
    arch = pair[1].config.recipe
    with_count = import_config(state, arch)
    assert (with_count.backbone.norm, with_count.backbone.norm_eps) == ("batch", 1e-5)
    frozen = import_config({k: v for k, v in state.items() if "num_batches" not in k}, arch)
    eps = (
        0.0 if arch == "r50-fpn" else 1e-5
    )  # torchvision sets 0.0 for the published weights of that one only
    assert (frozen.backbone.norm, frozen.backbone.norm_eps) == ("frozen", eps)
    assert import_config(state, arch, bn_eps=1e-3).backbone.norm_eps == 1e-3


def test_a_module_is_asked_for_its_thresholds(pair: tuple[nn.Module, Detector]) -> None:
    theirs = copy.deepcopy(pair[0])
    theirs.rpn.proposal_matcher.high_threshold = 0.65
    theirs.rpn.fg_bg_sampler.batch_size_per_image = 64
    theirs.roi_heads.box_coder.weights = (8.0, 8.0, 4.0, 4.0)
    theirs.roi_heads.detections_per_img = 250
    config = import_config(theirs, pair[1].config.recipe)
    assert (config.rpn.positive_iou, config.rpn.batch_size) == (0.65, 64)
    assert config.roi.delta_weights == (8.0, 8.0, 4.0, 4.0) and config.roi.max_dets == 250
    theirs.rpn.anchor_generator.aspect_ratios = ((0.5, 1.0, 2.0),) * 4 + ((1.0,),)
    with pytest.raises(CheckpointError, match="different anchor ratios"):
        import_config(theirs, pair[1].config.recipe)


def test_old_key_names_are_accepted() -> None:
    theirs = make("fasterrcnn_resnet50_fpn")
    state = theirs.state_dict()
    old = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for part in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                key = key.replace(f"{part}.{level}.0.", f"{part}.{level}.")
        old[key] = value
    assert set(old) != set(state)
    a = Detector.from_torchvision(state, "fasterrcnn_resnet50_fpn", CLASSES).model.state_dict()
    b = Detector.from_torchvision(old, "r50-fpn", CLASSES).model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_wrong_input_is_named() -> None:
    with pytest.raises(CheckpointError, match="unknown torchvision architecture 'retinanet'"):
        Detector.from_torchvision({}, "retinanet", CLASSES)
    with pytest.raises(CheckpointError, match="missing"):
        Detector.from_torchvision({}, "fasterrcnn_resnet50_fpn", CLASSES)
    with pytest.raises(CheckpointError, match=r"'head\.weight' is not one of"):
        Detector.from_torchvision({"head.weight": torch.zeros(1)}, "fasterrcnn_resnet50_fpn", CLASSES)
