"""One architecture twice, with the same weights: torchvision's detector and ours.

Letters: N images, C channels, K classes.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from frcnn.bench.lively import enliven
from frcnn.bench.pictures import Photo
from frcnn.bench.workload import ROIS, SMALL_ROIS, Workload
from frcnn.config import (
    AnchorConfig,
    BackboneConfig,
    Config,
    FpnConfig,
    PreprocessConfig,
    ProposalConfig,
    RoiConfig,
    TrainConfig,
)
from frcnn.predict import Detector
from frcnn.weights.checkpoint import CheckpointError, read_weights, restore
from frcnn.weights.torchvision import import_state

PYRAMID = 256
COCO_CLASSES = 90
ARCHITECTURE = "fasterrcnn_resnet50_fpn"
SMALL_PROPOSALS = 50
_SEED = 0


class TimmPyramid(nn.Module):
    """A timm backbone with torchvision's pyramid, as torchvision's own backbones are put together.

    Attributes:
        body: timm's features with frozen batch norm.
        fpn: torchvision's pyramid with a pooled level.
        out_channels: of every level, which ``FasterRCNN`` asks for.
    """

    def __init__(self, name: str, levels: Sequence[int]) -> None:
        super().__init__()
        net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(levels))
        info: Any = net.feature_info
        self.body = freeze_batch_norm_2d(net)
        self.fpn = FeaturePyramidNetwork(info.channels(), PYRAMID, LastLevelMaxPool())
        self.out_channels = PYRAMID

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels (N, 3, H, W) -> pyramid maps by name, finest first."""
        maps = OrderedDict((str(i), each) for i, each in enumerate(self.body(pixels)))
        found: dict[str, Tensor] = self.fpn(maps)
        return found


def make_twins(workload: Workload, photos: Sequence[Photo], classes: Sequence[str]) -> tuple[Detector, Any]:
    """Ours and torchvision's detector for a workload, on the CPU, with equal weights.

    Args:
        workload: network, picture size, and a file of weights.
        photos: on which random weights are made to find something.
        classes: of the pictures; the pretrained architecture has COCO's number of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        if workload.network == "lite0":
            return _lite0(workload, classes)
        return _r50(workload, photos)


def lite0_config(workload: Workload) -> Config:
    """EfficientNet-Lite0 with everything else as torchvision's ``FasterRCNN`` has it by default."""
    train, test = (SMALL_PROPOSALS, SMALL_PROPOSALS) if workload.small else (2000, 1000)
    return Config(
        preprocess=PreprocessConfig(
            min_size=min(workload.height, workload.width),
            max_size=max(workload.height, workload.width),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        backbone=BackboneConfig(name="tf_efficientnet_lite0", levels=(1, 2, 3, 4), weights="package"),
        fpn=FpnConfig(channels=PYRAMID),
        anchors=AnchorConfig(rounding="torchvision", centre=0.0, stride="from_padding"),
        proposals=ProposalConfig(
            pre_nms_train=train, post_nms_train=train, pre_nms_test=test, post_nms_test=test
        ),
        roi=RoiConfig(batch_size=SMALL_ROIS if workload.small else ROIS, hidden=1024),
        train=TrainConfig(clip=0.0, ema=0.0),
    )


def _lite0(workload: Workload, classes: Sequence[str]) -> tuple[Detector, Any]:
    config = lite0_config(workload)
    detector = Detector.from_config(config, classes)
    spec, backbone = config.preprocess, TimmPyramid(config.backbone.name, config.backbone.levels)
    backbone.body.load_state_dict(detector.model.backbone.net.state_dict())
    theirs = FasterRCNN(
        backbone,
        num_classes=len(classes) + 1,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
        **_limits(workload),
    )
    restore(detector.model, import_state(theirs, config), "torchvision's FasterRCNN")
    return detector, theirs.eval()


def _r50(workload: Workload, photos: Sequence[Photo]) -> tuple[Detector, Any]:
    """With frozen batch norm, as the published detector has it."""
    if workload.weights:
        state = read_weights(workload.weights)
        rows = state.get("roi_heads.box_predictor.cls_score.bias")
        if rows is None:
            raise CheckpointError(
                f"{workload.weights}: no weights of torchvision's {ARCHITECTURE}; save its state_dict()"
            )
    else:
        plain: Any = fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=COCO_CLASSES + 1
        )
        enliven(plain, [photo.chw.float() / 255 for photo in photos])
        state, rows = plain.state_dict(), torch.empty(COCO_CLASSES + 1)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    theirs: Any = FasterRCNN(backbone, num_classes=len(rows), **_limits(workload))
    try:
        theirs.load_state_dict(state)  # knows the names of older versions too
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(f"{workload.weights}: does not fit {ARCHITECTURE} ({reason})") from None
    if workload.weights and not any(key.endswith("num_batches_tracked") for key in state):
        for module in theirs.modules():  # as the published weights were trained
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
    names = [f"class {k}" for k in range(len(rows) - 1)]
    return Detector.from_torchvision(theirs, ARCHITECTURE, names), theirs.eval()


def _limits(workload: Workload) -> dict[str, int]:
    """Picture size and, for a small workload, counts, as ``FasterRCNN`` takes them."""
    values = {
        "min_size": min(workload.height, workload.width),
        "max_size": max(workload.height, workload.width),
    }
    if workload.small:
        stages = [f"rpn_{when}_nms_top_n_{mode}" for when in ("pre", "post") for mode in ("train", "test")]
        values |= {name: SMALL_PROPOSALS for name in stages} | {"box_batch_size_per_image": SMALL_ROIS}
    return values


def channels_last(model: Any) -> Any:
    """A copy whose convolutions read and write channels-last memory."""
    return copy.deepcopy(model).to(memory_format=torch.channels_last)
