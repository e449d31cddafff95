from __future__ import annotations

import pytest

from frcnn.config.effect import without_effect
from frcnn.recipes import RECIPES, recipe
from frcnn.settings import known_keys, with_settings


@pytest.mark.parametrize("name", RECIPES)
def test_no_setting_has_nothing_to_say(name: str) -> None:
    assert without_effect(recipe(name), []) == []


@pytest.mark.parametrize(
    ("name", "setting", "reason"),
    [
        (
            "fcos-regnetx400mf",
            "anchors.sizes=[[1],[2],[3]]",
            "has points, and neither anchors nor a second stage",
        ),
        ("fcos-regnetx400mf", "roi.max_dets=7", "has points"),
        ("rpn-vgg16", "roi.nms_iou=0.4", "the detector is rpn"),
        ("vgg16", "fcos.convs=3", "the detector is two_stage"),
        ("r50-fpn", "rpn.channel_order=grouped", "sigmoid has one channel"),
        ("regnetx400mf-fpn", "rpn.beta=0.5", "rpn.box_loss is l1"),
        ("regnetx400mf-fpn", "roi.delta_weights=[1,1,1,1]", "roi.box_regression is none"),
        ("r50-fpn", "roi.pool_edges=truncate", "roi.pool is roialign"),
        ("vgg16", "roi.aligned=true", "roi.pool is roipool"),
        ("vgg16", "roi.gt_jitter=0.1", "roi.gt_proposals is exact"),
    ],
)
def test_what_nothing_reads_is_named(name: str, setting: str, reason: str) -> None:
    config = with_settings(recipe(name), [setting])
    (sentence,) = without_effect(config, [setting, "train.epochs=3"])
    assert sentence.startswith(setting.partition("=")[0] + " has no effect: ") and reason in sentence


def test_other_settings_bring_a_key_to_life() -> None:
    settings = ["roi.gt_proposals=jittered", "roi.gt_jitter=0.1"]
    assert without_effect(with_settings(recipe("vgg16"), settings), settings) == []
    settings = ["roi.box_loss=giou", "roi.inside_weights=[0,0,1,1]", "roi.beta=1"]
    assert len(without_effect(with_settings(recipe("r50-fpn"), settings), settings)) == 2


@pytest.mark.parametrize("name", ["rpn-vgg16", "vgg16", "r50-fpn"])
def test_limits_of_detection_always_count(name: str) -> None:
    assert without_effect(recipe(name), ["roi.max_dets=7", "roi.score_threshold=0.2"]) == []


def test_every_key_that_is_named_exists() -> None:
    from frcnn.config.effect import SHARED, _idle

    keys = known_keys()
    for name in RECIPES:
        for start in (*_idle(recipe(name)), *SHARED):
            assert any(key == start or (start.endswith(".") and key.startswith(start)) for key in keys), start
