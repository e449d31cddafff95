"""The recipes: valid, named after themselves, and the numbers that the reference systems publish."""

from __future__ import annotations

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
