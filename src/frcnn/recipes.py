"""Named recipes: each is a function that returns a ``Config``.

``RECIPES`` is a plain table of them for the command line; a recipe of your own needs no entry here: pass its
``Config`` to ``Detector.from_config`` or to ``frcnn.train``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

from frcnn.config import (
    AnchorConfig,
    BackboneConfig,
    Config,
    DataConfig,
    EvalConfig,
    FcosConfig,
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
            ignore_rule="by_kind",
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
            ignore_rule="by_kind",
            nms_iou=0.3,
        ),
        train=TrainConfig(epochs=14, batch=1, lr=0.016, warmup=500, ema=0.0, clip=10.0, weight_decay=5e-4),
    )


def rpn_vgg16() -> Config:
    """Proposals alone, from VGG16 (reference system S0): evaluated by average recall.

    Where pretrained weights are loaded the backbone keeps them; from scratch it is trained.
    """
    base = vgg16()
    return base.model_copy(
        update={
            "recipe": "rpn-vgg16",
            "detector": "rpn",
            "preprocess": base.preprocess.model_copy(update={"fixed_size": (800, 800)}),
            "backbone": base.backbone.model_copy(update={"freeze": 4}),
            "proposals": base.proposals.model_copy(update={"pre_nms_test": 6000, "post_nms_test": 1000}),
            "roi": RoiConfig(score_threshold=0.0, max_dets=1000),
            "train": TrainConfig(epochs=20, batch=15, lr=0.016, warmup=100, ema=0.0, save_every=5),
            "eval": EvalConfig(max_dets=1000, score_threshold=0.0),
        }
    )


def vgg16_dontcare() -> Config:
    """VGG16 with don't-care areas and hard objects in both stages (reference system S1).

    The box targets' deviations are those of Fast R-CNN's reference code, whose means are 0. The source trains
    the last eight tensors with Adam; that needs a pretrained backbone: ``train.parameters=last:8``,
    ``train.optimizer=adam``.
    """
    base = vgg16()
    return base.model_copy(
        update={
            "recipe": "vgg16-dontcare",
            "anchors": base.anchors.model_copy(update={"rounding": "pyfrcnn"}),
            "rpn": base.rpn.model_copy(
                update={
                    "channel_order": "grouped",
                    "box_weight": 1.0,
                    "ignore_wins": True,
                }
            ),
            "proposals": base.proposals.model_copy(
                update={"post_nms_train": 300, "min_size_unit": "original"}
            ),
            "roi": base.roi.model_copy(
                update={
                    "gt_proposals": "jittered",
                    "negative_iou": (0.1, 0.5),
                    "background_weight": "fg_over_bg",
                    "target_std": (0.1, 0.1, 0.2, 0.2),
                    "box_weight": 1.0,
                    "ignore_wins": True,
                }
            ),
        }
    )


def regnetx400mf_fpn() -> Config:
    """RegNetX-400MF with a pyramid of 64 channels and a second stage that only classifies (S2)."""
    return Config(
        recipe="regnetx400mf-fpn",
        preprocess=PreprocessConfig(min_size=224, max_size=448),
        backbone=BackboneConfig(name="regnetx_004_tv", levels=(2, 3, 4)),
        fpn=FpnConfig(channels=64, extra_pool=False),
        anchors=AnchorConfig(sizes=((64,), (128,), (256,))),
        rpn=RpnConfig(
            depth=2,
            output_kernel=3,
            positive_iou=0.6,
            negative_iou=0.3,
            negative_at_edge=True,
            best_anchor=False,
            batch_size=16,
            sampling="per_batch",
            class_normaliser="batch_size",
            box_loss="l1",
            box_normaliser="batch_size",
            max_log_scale=math.log(224 / 8),
        ),
        proposals=ProposalConfig(
            pre_nms_train=400,
            post_nms_train=100,
            pre_nms_test=400,
            post_nms_test=100,
            post_nms_scope="level",
        ),
        roi=RoiConfig(
            aligned=True,
            head="conv",
            convs=2,
            conv_channels=64,
            box_regression="none",
            positive_at_edge=False,
            batch_size=32,
            sampling="per_batch",
        ),
        train=TrainConfig(epochs=30, batch=16, lr=0.02, warmup=100, ema=0.998),
    )


def fcos_regnetx400mf() -> Config:
    """FCOS on the same backbone and pyramid, which S2 is compared with."""
    base = regnetx400mf_fpn()
    return base.model_copy(update={"recipe": "fcos-regnetx400mf", "detector": "fcos", "fcos": FcosConfig()})


RECIPES: dict[str, Callable[[], Config]] = {
    "lite0-fpn": lite0_fpn,
    "rpn-vgg16": rpn_vgg16,
    "vgg16": vgg16,
    "vgg16-dontcare": vgg16_dontcare,
    "regnetx400mf-fpn": regnetx400mf_fpn,
    "fcos-regnetx400mf": fcos_regnetx400mf,
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
