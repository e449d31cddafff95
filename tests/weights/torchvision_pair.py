"""A torchvision detector with random but lively weights, and ours made from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

from frcnn.predict import Detector

CLASSES = [f"class{i}" for i in range(8)]
SIZES = ((150, 230), (221, 160), (190, 190))
"""(height, width) of three pictures: landscape, portrait, square."""


def pictures() -> list[Image.Image]:
    """Smooth random pictures of three sizes."""
    generator = np.random.default_rng(3)
    small = [generator.integers(0, 256, (h // 16, w // 16, 3), dtype=np.uint8) for h, w in SIZES]
    return [
        Image.fromarray(s).resize((w, h), Image.Resampling.BICUBIC)
        for s, (h, w) in zip(small, SIZES, strict=True)
    ]


def as_floats(images: list[Image.Image]) -> list[torch.Tensor]:
    """What torchvision's detectors take."""
    return [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]


LIMITS = {
    "min_size": 192,
    "max_size": 256,
    "rpn_pre_nms_top_n_train": 300,
    "rpn_pre_nms_top_n_test": 250,
    "rpn_post_nms_top_n_train": 250,
    "rpn_post_nms_top_n_test": 200,
}


def make(arch: str, classes: int = len(CLASSES)) -> nn.Module:
    """Random weights whose batch norm fits the activations and whose heads give many different detections."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, arch)
    limits = {} if "320" in arch else LIMITS  # that one is small as it is
    model = build(weights=None, weights_backbone=None, num_classes=classes + 1, **limits)
    # small residual branches, as trained networks have: rounding is then not amplified
    small = {name for name, _ in model.named_modules() if name.endswith("bn3")}
    small |= {
        f"{name}.block.{len(block.block) - 1}.1"
        for name, block in model.named_modules()
        if isinstance(block, torchvision.models.mobilenetv3.InvertedResidual) and block.use_res_connect
    }
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # cumulative: one pass sets the statistics
            low, high = (0.05, 0.2) if name in small else (0.7, 1.3)
            nn.init.uniform_(norm.weight, low, high)
            nn.init.normal_(norm.bias, std=0.1)
    with torch.no_grad():
        images, _ = model.transform(as_floats(pictures()))
        features = model.backbone.train()(images.tensors)
        if arch.endswith("v2"):
            rois = [torch.tensor([[10.0, 10, 90, 120], [40, 60, 200, 160]])] * 3
            model.roi_heads.box_head.train()(model.roi_heads.box_roi_pool(features, rois, images.image_sizes))
        model.eval()
        features = model.backbone(images.tensors)
        scale = torch.cat([f.flatten() for f in features.values()]).std()
        model.rpn.head.cls_logits.weight.mul_(60 / scale)
        model.rpn.head.bbox_pred.weight.mul_(12 / scale)
        _spread_classes(model)
    return model.eval()


def _spread_classes(model: nn.Module) -> None:
    """Class rows that look at what differs between RoIs, so that every class is found."""
    predictor = model.roi_heads.box_predictor
    seen: list[torch.Tensor] = []
    hook = predictor.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(as_floats(pictures()))
    hook.remove()
    hidden = torch.cat(seen)
    mean, spread = hidden.mean(0), (hidden - hidden.mean(0)).pow(2).sum(1).mean().sqrt()
    for layer, size in ((predictor.cls_score, 1.4), (predictor.bbox_pred, 0.6)):
        nn.init.normal_(layer.weight, std=float(size / spread))
        layer.bias.copy_(-layer.weight @ mean)


def ours(model: nn.Module, arch: str) -> Detector:
    """The same detector in this library."""
    return Detector.from_torchvision(model, arch, CLASSES)


@contextmanager
def exact_nms() -> Iterator[None]:
    """torchvision's NMS per class without its coordinate shift, which costs up to 0.014 px."""
    boxes = torchvision.ops.boxes
    with mock.patch.object(boxes, "_batched_nms_coordinate_trick", boxes._batched_nms_vanilla):
        yield
