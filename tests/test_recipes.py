"""The recipes: valid, named after themselves, and the numbers that the reference systems publish."""

from __future__ import annotations

import math
from operator import attrgetter

import pytest
import torch
import torchvision

from frcnn.config import Config
from frcnn.recipes import RECIPES, recipe, vgg16
from frcnn.settings import ConfigError, from_dict
from frcnn.weights.torchvision import ARCHITECTURES


@pytest.mark.parametrize("name", ["", "vgg61", "VGG16", "r50", "zzz"])
def test_an_unknown_recipe_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(name)
    assert repr(name) in str(caught.value) and "recipes are lite0-fpn, rpn-vgg16, vgg16, " in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("typo", "meant"), [("vgg61", "vgg16"), ("lite0fpn", "lite0-fpn"), ("r50-fpn-v3", "r50-fpn-v2")]
)
def test_the_nearest_recipe_is_proposed(typo: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        recipe(typo)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_is_valid_and_knows_its_name(name: str) -> None:
    config = recipe(name)
    assert isinstance(config, Config) and config.recipe == name
    assert from_dict(config.model_dump(mode="json")) == config, "also those made by model_copy are validated"
    assert RECIPES[name].__doc__


def test_the_default_starts_pretrained_without_a_download() -> None:
    assert recipe("lite0-fpn").backbone.weights == "package"
    assert next(iter(RECIPES)) == "lite0-fpn"


def test_vgg16_has_the_papers_numbers() -> None:
    config = vgg16()
    assert config.anchors.sizes == ((128, 256, 512),) and config.anchors.ratios == (0.5, 1, 2)
    assert (config.rpn.objectness, config.rpn.hidden_channels, config.rpn.box_weight) == ("softmax", 512, 10)
    assert (config.rpn.positive_iou, config.rpn.negative_iou, config.rpn.inside_only) == (0.7, 0.3, True)
    assert (config.rpn.batch_size, config.rpn.positive_fraction, config.rpn.beta) == (256, 0.5, 1)
    proposals = config.proposals
    assert (proposals.pre_nms_train, proposals.post_nms_train) == (12_000, 2_000)
    assert (proposals.pre_nms_test, proposals.post_nms_test) == (6_000, 300)
    assert (proposals.nms_iou, proposals.min_size, proposals.min_size_stage) == (0.7, 16, "before_topk")
    roi = config.roi
    assert (roi.pool, roi.head, roi.hidden, roi.batch_size, roi.positive_fraction) == (
        "roipool",
        "vgg",
        4096,
        128,
        0.25,
    )
    assert (roi.positive_iou, roi.negative_iou, roi.box_weight, roi.beta) == (0.5, (0, 0.5), 10, 1)
    assert config.roi.gt_proposals == "exact"


S0 = {
    "detector": "rpn",
    "preprocess.fixed_size": (800, 800),
    "train.batch": 15,
    "anchors.sizes": ((128, 256, 512),),
    "rpn.objectness": "softmax",
    "rpn.positive_iou": 0.7,
    "rpn.negative_iou": 0.3,
    "rpn.inside_only": True,
    "rpn.batch_size": 256,
    "rpn.positive_fraction": 0.5,
    "rpn.box_loss": "smooth_l1",
    "rpn.beta": 1,
    "rpn.box_normaliser": "positives",
    "rpn.box_weight": 10,
    "backbone.freeze": 4,
    "train.save_every": 5,
}
S1 = {
    "anchors.rounding": "pyfrcnn",
    "rpn.objectness": "softmax",
    "rpn.channel_order": "grouped",
    "rpn.inside_only": True,
    "rpn.box_weight": 1,
    "rpn.ignore_rule": "by_kind",
    "rpn.ignore_wins": True,
    "proposals.pre_nms_train": 12_000,
    "proposals.post_nms_train": 300,
    "proposals.post_nms_test": 300,
    "proposals.min_size": 16,
    "proposals.min_size_unit": "original",
    "roi.pool": "roipool",
    "roi.gt_proposals": "jittered",
    "roi.negative_iou": (0.1, 0.5),
    "roi.background_weight": "fg_over_bg",
    "roi.target_mean": (0, 0, 0, 0),
    "roi.target_std": (0.1, 0.1, 0.2, 0.2),
    "roi.ignore_rule": "by_kind",
    "roi.ignore_wins": True,
}
S2_FEATURES = {
    "preprocess.min_size": 224,
    "backbone.name": "regnetx_004_tv",
    "backbone.levels": (2, 3, 4),
    "fpn.channels": 64,
    "fpn.extra_pool": False,
}
S2 = {
    **S2_FEATURES,
    "anchors.sizes": ((64,), (128,), (256,)),
    "rpn.objectness": "sigmoid",
    "rpn.depth": 2,
    "rpn.output_kernel": 3,
    "rpn.positive_iou": 0.6,
    "rpn.negative_iou": 0.3,
    "rpn.negative_at_edge": True,
    "rpn.best_anchor": False,
    "rpn.inside_only": False,
    "rpn.sampling": "per_batch",
    "rpn.batch_size": 16,
    "rpn.box_loss": "l1",
    "rpn.class_normaliser": "batch_size",
    "rpn.box_normaliser": "batch_size",
    "rpn.max_log_scale": math.log(28),
    "proposals.pre_nms_train": 400,
    "proposals.post_nms_train": 100,
    "proposals.pre_nms_test": 400,
    "proposals.post_nms_test": 100,
    "proposals.post_nms_scope": "level",
    "proposals.nms_iou": 0.7,
    "roi.pool": "roialign",
    "roi.aligned": True,
    "roi.box_regression": "none",
    "roi.positive_iou": 0.5,
    "roi.positive_at_edge": False,
    "roi.sampling": "per_batch",
    "roi.batch_size": 32,
    "roi.positive_fraction": 0.25,
}
FCOS = {
    **S2_FEATURES,
    "detector": "fcos",
    "fcos.size_ranges": ((0, 64), (64, 128), (128, None)),
    "fcos.box_loss": "l1",
    "fcos.focal_alpha": 0.25,
    "fcos.focal_gamma": 2,
}


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("rpn-vgg16", S0), ("vgg16-dontcare", S1), ("regnetx400mf-fpn", S2), ("fcos-regnetx400mf", FCOS)],
)
def test_reference_systems_have_their_numbers(name: str, numbers: dict[str, object]) -> None:
    config = recipe(name)
    assert {key: attrgetter(key)(config) for key in numbers} == numbers


@pytest.mark.parametrize(("arch", "name"), ARCHITECTURES.items())
def test_recipes_have_torchvisions_numbers(arch: str, name: str) -> None:
    config = recipe(name)
    with torch.device("meta"):  # numbers need no weights
        model = getattr(torchvision.models.detection, arch)(weights=None, weights_backbone=None)
    transform, rpn, roi = model.transform, model.rpn, model.roi_heads
    spec = config.preprocess
    assert ([spec.min_size], spec.max_size) == (list(transform.min_size), transform.max_size)
    assert [*spec.mean] == transform.image_mean and [*spec.std] == transform.image_std
    assert (spec.method, spec.pad_multiple) == ("torchvision", transform.size_divisible)
    assert config.anchors.sizes == rpn.anchor_generator.sizes
    assert set(rpn.anchor_generator.aspect_ratios) == {config.anchors.ratios}
    proposals = config.proposals
    assert rpn._pre_nms_top_n == {"training": proposals.pre_nms_train, "testing": proposals.pre_nms_test}
    assert rpn._post_nms_top_n == {"training": proposals.post_nms_train, "testing": proposals.post_nms_test}
    assert (rpn.nms_thresh, rpn.score_thresh, rpn.min_size) == (
        proposals.nms_iou,
        proposals.score_threshold,
        proposals.min_size,
    )
    matcher, sampler = rpn.proposal_matcher, rpn.fg_bg_sampler
    assert (matcher.high_threshold, matcher.low_threshold) == (
        config.rpn.positive_iou,
        config.rpn.negative_iou,
    )
    assert (sampler.batch_size_per_image, sampler.positive_fraction) == (
        config.rpn.batch_size,
        config.rpn.positive_fraction,
    )
    assert matcher.allow_low_quality_matches is config.rpn.best_anchor is True
    matcher, sampler = roi.proposal_matcher, roi.fg_bg_sampler
    assert (matcher.high_threshold, matcher.low_threshold) == (
        config.roi.positive_iou,
        config.roi.negative_iou[1],
    )
    assert (sampler.batch_size_per_image, sampler.positive_fraction) == (
        config.roi.batch_size,
        config.roi.positive_fraction,
    )
    assert roi.box_coder.weights == config.roi.delta_weights
    assert (roi.score_thresh, roi.nms_thresh) == (config.roi.score_threshold, config.roi.nms_iou)
    assert roi.detections_per_img == config.roi.max_dets
    pool = roi.box_roi_pool
    assert (pool.sampling_ratio, pool.output_size) == (
        config.roi.sampling_ratio,
        (config.roi.output_size,) * 2,
    )
    assert len(rpn.head.conv) == config.rpn.depth
