"""Import torchvision's detectors: a module or a state dict becomes a configuration and our tensors.

What changes on the way: names; background moves from the first class row to the last and its box deltas go;
the first fully connected layer's columns are permuted from (C, 7, 7) to (7, 7, C).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

from frcnn.config import Config
from frcnn.recipes import recipe
from frcnn.settings import from_dict
from frcnn.weights.checkpoint import CheckpointError
from frcnn.weights.imagenet import channels_last_columns

ARCHITECTURES = {
    "fasterrcnn_resnet50_fpn": "r50-fpn",
    "fasterrcnn_resnet50_fpn_v2": "r50-fpn-v2",
    "fasterrcnn_mobilenet_v3_large_fpn": "mobilenetv3-fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "mobilenetv3-320-fpn",
}
"""torchvision's names and our recipes; either may be given."""
USUAL_EPS = 1e-5
PUBLISHED_NORM: dict[str, tuple[Literal["frozen", "batch"], float]] = {
    "r50-fpn": ("frozen", 0.0),
    "r50-fpn-v2": ("batch", USUAL_EPS),
    "mobilenetv3-fpn": ("frozen", USUAL_EPS),
    "mobilenetv3-320-fpn": ("frozen", USUAL_EPS),
}
"""The backbone's norm and epsilon that torchvision builds around its published weights; no file says them."""

_RENAMED = (
    (r"^backbone\.body\.", "backbone.net."),
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)$", r"fpn.inner.\1.0.\2"),  # before torchvision 0.13
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)$", r"fpn.output.\1.0.\2"),
    (r"^backbone\.fpn\.inner_blocks\.", "fpn.inner."),
    (r"^backbone\.fpn\.layer_blocks\.", "fpn.output."),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn_head.conv.0.\1"),  # before torchvision 0.13
    (r"^rpn\.head\.cls_logits\.", "rpn_head.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.deltas."),
    (r"^roi_heads\.box_head\.(fc[67])\.", r"box_head.trunk.\1."),
    (r"^roi_heads\.box_head\.5\.", "box_head.trunk.fc."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.classes."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.deltas."),
)


def architecture(name: str) -> str:
    """The recipe that equals a torchvision architecture.

    Raises:
        CheckpointError: listing the known names.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name in ARCHITECTURES.values():
        return name
    near = difflib.get_close_matches(name, [*ARCHITECTURES, *ARCHITECTURES.values()], 1, 0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise CheckpointError(
        f"unknown torchvision architecture {name!r}; {hint}known are {', '.join(ARCHITECTURES)}"
    )


def import_config(source: nn.Module | Mapping[str, Tensor], arch: str, bn_eps: float | None = None) -> Config:
    """The configuration under which our detector equals theirs.

    A module is asked for its batch norm, sizes and thresholds. A state dict holds none of these: then the
    recipe's values apply, and a batch norm without ``num_batches_tracked`` is taken for the frozen one of the
    published weights (epsilon as torchvision builds it around them, or ``bn_eps``).
    """
    name = architecture(arch)
    config = recipe(name)
    if isinstance(source, nn.Module):
        norms = [m for m in source.backbone.body.modules() if _is_norm(m)]  # type: ignore[union-attr]
        frozen = isinstance(norms[0], torchvision.ops.FrozenBatchNorm2d)
        eps = norms[0].eps
        config = _with_module_settings(config, source)
    else:
        frozen = not any(key.endswith("num_batches_tracked") for key in source if ".body." in key)
        eps = PUBLISHED_NORM[name][1] if frozen else USUAL_EPS
    eps = float(eps if bn_eps is None else bn_eps)  # type: ignore[arg-type]
    return _with_norm(config, "frozen" if frozen else "batch", eps, arch)


def published_config(arch: str) -> Config:
    """The configuration of torchvision's published weights."""
    name = architecture(arch)
    return _with_norm(recipe(name), *PUBLISHED_NORM[name], arch)


def _with_norm(config: Config, norm: Literal["frozen", "batch"], eps: float, arch: str) -> Config:
    backbone = {"norm": norm, "norm_eps": eps, "weights": f"torchvision:{arch}"}
    return config.model_copy(update={"backbone": config.backbone.model_copy(update=backbone)})


def import_state(source: nn.Module | Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Their tensors under our names and in our layout."""
    theirs = source.state_dict() if isinstance(source, nn.Module) else source
    ours: dict[str, Tensor] = {}
    for key, value in theirs.items():
        name = _rename(key)
        if name.startswith("box_head.classes."):
            value = torch.cat([value[1:], value[:1]])  # background first -> last
        elif name.startswith("box_head.deltas."):
            value = value[4:]  # background has no box
        elif name in ("box_head.trunk.fc6.weight", "box_head.trunk.fc.weight"):
            value = channels_last_columns(value, config.fpn.channels)
        ours[name] = value.detach().clone()
    return ours


def _rename(key: str) -> str:
    deeper = re.match(r"^rpn\.head\.conv\.(\d+)\.0\.(weight|bias)$", key)
    if deeper:
        return f"rpn_head.conv.{2 * int(deeper[1])}.{deeper[2]}"
    conv = re.match(r"^roi_heads\.box_head\.([0-3])\.([01])\.(.+)$", key)
    if conv:
        return f"box_head.trunk.convs.{3 * int(conv[1]) + int(conv[2])}.{conv[3]}"
    for pattern, name in _RENAMED:
        renamed, count = re.subn(pattern, name, key)
        if count:
            return renamed
    raise CheckpointError(f"tensor {key!r} is not one of a torchvision Faster R-CNN with a pyramid")


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d | torchvision.ops.FrozenBatchNorm2d)


def _with_module_settings(config: Config, model: Any) -> Config:
    """Sizes, counts and thresholds of a torchvision module."""
    rpn, roi, transform = model.rpn, model.roi_heads, model.transform
    ratios = {tuple(float(v) for v in level) for level in rpn.anchor_generator.aspect_ratios}
    if len(ratios) > 1:
        raise CheckpointError(
            f"the model's levels have different anchor ratios {sorted(ratios)}; one set is supported"
        )
    updates: dict[str, dict[str, Any]] = {
        "preprocess": {
            "min_size": int(transform.min_size[-1]),
            "max_size": int(transform.max_size),
            "mean": tuple(transform.image_mean),
            "std": tuple(transform.image_std),
            "pad_multiple": int(transform.size_divisible),
        },
        "proposals": {
            "pre_nms_train": rpn._pre_nms_top_n["training"],
            "pre_nms_test": rpn._pre_nms_top_n["testing"],
            "post_nms_train": rpn._post_nms_top_n["training"],
            "post_nms_test": rpn._post_nms_top_n["testing"],
            "nms_iou": rpn.nms_thresh,
            "min_size": rpn.min_size,
            "score_threshold": rpn.score_thresh,
        },
        "roi": {
            "score_threshold": roi.score_thresh,
            "nms_iou": roi.nms_thresh,
            "max_dets": roi.detections_per_img,
            "batch_size": roi.fg_bg_sampler.batch_size_per_image,
            "positive_fraction": roi.fg_bg_sampler.positive_fraction,
            "positive_iou": roi.proposal_matcher.high_threshold,
            "negative_iou": (0.0, roi.proposal_matcher.low_threshold),
            "delta_weights": tuple(roi.box_coder.weights),
            "output_size": int(roi.box_roi_pool.output_size[0]),
            "sampling_ratio": int(roi.box_roi_pool.sampling_ratio),
        },
        "anchors": {
            "sizes": tuple(tuple(float(v) for v in s) for s in rpn.anchor_generator.sizes),
            "ratios": ratios.pop(),
        },
        "rpn": {
            "positive_iou": rpn.proposal_matcher.high_threshold,
            "negative_iou": rpn.proposal_matcher.low_threshold,
            "best_anchor": rpn.proposal_matcher.allow_low_quality_matches,
            "batch_size": rpn.fg_bg_sampler.batch_size_per_image,
            "positive_fraction": rpn.fg_bg_sampler.positive_fraction,
            "delta_weights": tuple(rpn.box_coder.weights),
        },
    }
    tree = config.model_dump()
    for name, values in updates.items():
        tree[name] |= values
    return from_dict(tree, "torchvision's module")
