"""Named recipes: each is a function that returns a ``Config``.

``RECIPES`` is a plain table of them for the command line; a recipe of your own needs no entry here: pass its
``Config`` to ``Detector.from_config`` or to ``frcnn.train``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from frcnn.config import (
    AnchorConfig,
    BackboneConfig,
    Config,
    DataConfig,
    FpnConfig,
    PreprocessConfig,
    ProposalConfig,
    RoiConfig,
    RpnConfig,
    TrainConfig,
)
from frcnn.settings import ConfigError


def lite0_fpn() -> Config:
    """EfficientNet-Lite0 with a pyramid and a cascade of three stages: the default, made to learn on a CPU.

    A third of a step would go into the 3x3 convolutions of the finest map, so it has neither smoothing nor
    anchors and is only pooled from; the next one has two sizes of anchors instead.
    """
    return Config(
        recipe="lite0-fpn",
        data=DataConfig(scale_jitter=(0.8, 1.25), brightness=0.2, contrast=0.2, saturation=0.2),
        preprocess=PreprocessConfig(min_size=320, max_size=640, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        backbone=BackboneConfig(name="tf_efficientnet_lite0", levels=(1, 2, 3, 4), weights="package"),
        fpn=FpnConfig(channels=128, smooth_from=1),
        anchors=AnchorConfig(sizes=((16, 24), (48, 72), (112, 160), (224, 320))),
        rpn=RpnConfig(first_level=1),
        proposals=ProposalConfig(pre_nms_train=500, post_nms_train=500, pre_nms_test=500, post_nms_test=300),
        roi=RoiConfig(batch_size=128, hidden=512, cascade=(0.6, 0.7)),
        train=TrainConfig(epochs=10, batch=4, lr=0.04, warmup=100, ema=0.998),
    )


def r50_fpn() -> Config:
    """ResNet-50 with a pyramid: equal to torchvision's ``fasterrcnn_resnet50_fpn``, so its weights work
    here.
    """
    return Config(
        recipe="r50-fpn",
        preprocess=PreprocessConfig(min_size=800, max_size=1333, method="torchvision"),
        backbone=BackboneConfig(name="resnet50", levels=(1, 2, 3, 4), freeze=2),
        fpn=FpnConfig(channels=256),
        anchors=AnchorConfig(rounding="torchvision", centre=0.0, stride="from_padding"),
        rpn=RpnConfig(),
        proposals=ProposalConfig(
            pre_nms_train=2000, post_nms_train=2000, pre_nms_test=1000, post_nms_test=1000
        ),
        roi=RoiConfig(),
        train=TrainConfig(epochs=26, batch=2, lr=0.02, warmup=1000, ema=0.0, clip=0.0),
    )


def r50_fpn_v2() -> Config:
    """ResNet-50 with a deeper RPN and box head: equal to torchvision's ``fasterrcnn_resnet50_fpn_v2``."""
    base = r50_fpn()
    return base.model_copy(
        update={
            "recipe": "r50-fpn-v2",
            "backbone": base.backbone.model_copy(update={"norm": "batch"}),
            "fpn": FpnConfig(channels=256, norm="batch"),
            "rpn": RpnConfig(depth=2),
            "roi": RoiConfig(head="conv_fc", convs=4, hidden=1024),
        }
    )


def mobilenetv3_fpn() -> Config:
    """MobileNetV3-Large with a pyramid of strides 32, 32 and 64: equal to torchvision's
    ``fasterrcnn_mobilenet_v3_large_fpn``.
    """
    base = r50_fpn()
    return base.model_copy(
        update={
            "recipe": "mobilenetv3-fpn",
            "backbone": BackboneConfig(
                name="torchvision/mobilenet_v3_large", levels=(13, 16), freeze=3, norm_eps=1e-5
            ),
            "anchors": AnchorConfig(
                sizes=((32, 64, 128, 256, 512),) * 3,
                rounding="torchvision",
                centre=0.0,
                stride="from_padding",
            ),
            "proposals": base.proposals.model_copy(update={"score_threshold": 0.05}),
        }
    )


def mobilenetv3_320_fpn() -> Config:
    """The same for small pictures: equal to torchvision's ``fasterrcnn_mobilenet_v3_large_320_fpn``."""
    base = mobilenetv3_fpn()
    limits = {"pre_nms_test": 150, "post_nms_test": 150}
    return base.model_copy(
        update={
            "recipe": "mobilenetv3-320-fpn",
            "preprocess": base.preprocess.model_copy(update={"min_size": 320, "max_size": 640}),
            "proposals": base.proposals.model_copy(update=limits),
        }
    )


def vgg16() -> Config:
    """The paper's detector: VGG16, one level of stride 16, two-way softmax, RoI max-pooling, fc6 and fc7."""
    return Config(
        recipe="vgg16",
        data=DataConfig(),
        preprocess=PreprocessConfig(min_size=600, max_size=1000),
        backbone=BackboneConfig(name="vgg16", levels=(4,), freeze=1),
        fpn=FpnConfig(channels=0, extra_pool=False),
        anchors=AnchorConfig(sizes=((128, 256, 512),)),
        rpn=RpnConfig(
            objectness="softmax",
            hidden_channels=512,
            inside_only=True,
            beta=1.0,
            box_normaliser="positives",
            box_weight=10.0,
            ignore_rule="iou",
        ),
        proposals=ProposalConfig(
            pre_nms_train=12000,
            post_nms_train=2000,
            pre_nms_test=6000,
            post_nms_test=300,
            min_size=16,
            min_size_stage="before_topk",
        ),
        roi=RoiConfig(
            pool="roipool",
            head="vgg",
            hidden=4096,
            dropout=0.5,
            batch_size=128,
            beta=1.0,
            box_normaliser="positives",
            box_weight=10.0,
            delta_weights=(1.0, 1.0, 1.0, 1.0),
            ignore_rule="iou",
            nms_iou=0.3,
        ),
        train=TrainConfig(epochs=14, batch=1, lr=0.016, warmup=500, ema=0.0, clip=10.0, weight_decay=5e-4),
    )


RECIPES: dict[str, Callable[[], Config]] = {
    "lite0-fpn": lite0_fpn,
    "vgg16": vgg16,
    "r50-fpn": r50_fpn,
    "r50-fpn-v2": r50_fpn_v2,
    "mobilenetv3-fpn": mobilenetv3_fpn,
    "mobilenetv3-320-fpn": mobilenetv3_320_fpn,
}


def recipe(name: str) -> Config:
    """The configuration of a named recipe.

    Raises:
        ConfigError: naming the nearest recipe.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown recipe {name!r}; {hint}recipes are {', '.join(RECIPES)}")
    return RECIPES[name]()
