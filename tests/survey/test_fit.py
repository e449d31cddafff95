from __future__ import annotations

import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.config import AnchorConfig
from frcnn.recipes import lite0_fpn, r50_fpn, vgg16
from frcnn.settings import with_settings
from frcnn.survey.coverage import LOW_IOU, best_anchor_iou
from frcnn.survey.fit import TOLERANCE, fit_anchors, k_means, quality, setting_words
from frcnn.survey.survey import anchor_strides


def tall(count: int, seed: int = 0) -> np.ndarray:
    """Objects three times as high as wide, of many sizes."""
    rng = np.random.default_rng(seed)
    wide = np.exp(rng.uniform(np.log(10), np.log(80), count))
    return np.stack([wide * rng.uniform(2.6, 3.4, count), wide], 1).astype(np.float32)


def test_without_an_object() -> None:
    with pytest.raises(ValueError, match="there is no usable object; correct the errors first"):
        fit_anchors(np.zeros((0, 2), np.float32), AnchorConfig(), (4, 8, 16, 32, 64))


@pytest.mark.parametrize("recipe", [lite0_fpn, r50_fpn, vgg16])
def test_tall_objects_get_tall_anchors(recipe) -> None:
    config = recipe()
    strides, sizes = anchor_strides(config), tall(300)
    fitted = fit_anchors(sizes, config.anchors, strides)
    before, after = (best_anchor_iou(sizes, a, strides) for a in (config.anchors, fitted))
    assert (
        np.median(after) > np.median(before) + 0.05 and (after < LOW_IOU).mean() <= (before < LOW_IOU).mean()
    )
    assert min(fitted.ratios) >= 0.5 and max(fitted.ratios) > 2.5
    assert [len(level) for level in fitted.sizes] == [len(level) for level in config.anchors.sizes]
    assert len(fitted.ratios) == len(config.anchors.ratios)
    assert fitted == fit_anchors(sizes, config.anchors, strides)
    words = setting_words(fitted)
    assert with_settings(config, words[1::2]).anchors == fitted
    assert shlex.split(shlex.join(words)) == words


def test_anchors_that_fit_stay() -> None:
    config = r50_fpn()
    strides = anchor_strides(config)
    sizes = np.asarray([(s, s) for level in config.anchors.sizes for s in level], np.float32)
    fitted = fit_anchors(sizes, config.anchors, strides)
    assert quality(best_anchor_iou(sizes, fitted, strides)) >= quality(
        best_anchor_iou(sizes, config.anchors, strides)
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.integers(0, 1000))
def test_coverage_never_gets_worse(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(0.5), np.log(700), (count, 2))).astype(np.float32)
    anchors, strides = AnchorConfig(sizes=((16.0,), (64.0,), (200.0,))), (8, 16, 32)
    fitted = fit_anchors(sizes, anchors, strides)
    before, after = (best_anchor_iou(sizes, a, strides) for a in (anchors, fitted))
    assert quality(after) >= quality(before)
    assert (after < LOW_IOU).mean() <= (before < LOW_IOU).mean() + TOLERANCE
    assert min(fitted.ratios) > 0 and min(min(level) for level in fitted.sizes) > 0


def test_k_means_finds_groups() -> None:
    values = np.concatenate([np.full(10, 1.0), np.full(30, 4.0), np.full(5, 9.0)])
    assert k_means(values, 3) == pytest.approx([1, 4, 9])
    assert k_means(np.asarray([2.0]), 3) == pytest.approx([2, 2, 2])
